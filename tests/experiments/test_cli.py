"""train_cifar.py as a user meets it: what it prints, its exit status, and one sentence for whatever goes wrong."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scratchnet.experiments import cli, run
from tests.experiments.conftest import BROKEN_CUPY, Train, broken_cupy, command

Main = Callable[..., subprocess.CompletedProcess[str]]
ONE_EPOCH = "--data", "digits", "--device", "cpu", "--workers", 1, "--epochs", 1
METRICS = {"settings", "versions", "epochs", "final"}
EPOCH = {"epoch", "seconds", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "test_accuracy_sampled"}
FIGURES = {"accuracy", "precision", "recall", "f1"}
FINAL = FIGURES | {f"{name}_sampled" for name in FIGURES} | {"expected_sampled_accuracy"}


def assert_one_sentence(done: subprocess.CompletedProcess[str], status: int, *parts: str) -> None:
    """The last line of stderr is the only error; nothing but the bar may stand before it."""
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert lines[-1].startswith("error: ")
    assert sum("error" in line.lower() for line in lines) == 1
    for part in parts:
        assert part in lines[-1]


@pytest.fixture
def main(capsys: pytest.CaptureFixture[str]) -> Main:
    """`main("--epochs", 0)` runs the command in this process, which is quicker."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        try:
            status = cli.main(list(map(str, arguments)))
        except SystemExit as left:
            status = int(str(left.code))
        return subprocess.CompletedProcess("", status, *capsys.readouterr())

    return run


# --- a run that succeeds


def test_run_prints_summary_epochs_and_final_figures(finished: tuple[Path, Any]) -> None:
    _, done = finished
    assert done.returncode == 0, done.stderr
    out = done.stdout
    assert re.search(r"^digits: 1,\d{3} training and \d{3} test images, 10 classes; files go to runs/", out)
    assert "conv2d_2" in out
    epochs = re.findall(r"digits epoch (\d)/2: [\d.]+ s, training loss [\d.]+, accuracy 0\.\d+; test loss", out)
    assert epochs == ["1", "2"]
    assert "digits: same-padding, gumbel, temperature 0.5, seed 3, cpu" in out
    assert re.search(r"argmax( +0\.\d{4}){4}\n", out)
    assert re.search(r"noise on, sampled( +0\.\d{4}){4}\n", out)
    assert re.search(r"noise on, expected +0\.\d{4}\n", out)
    assert "0.4152" not in out  # the report's, which is not of the digits
    assert "cannot be compared with those of digits" in out


def test_run_shows_a_bar_per_epoch(finished: tuple[Path, Any]) -> None:
    bars = finished[1].stderr
    assert "digits epoch 1/2" in bars
    assert "digits epoch 2/2" in bars
    assert re.search(r"23/23.*loss \d+\.\d{4}, accuracy 0\.\d{4}", bars)


def test_files_are_in_the_default_folder(finished: tuple[Path, Any]) -> None:
    folder, _ = finished
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics) == METRICS
    assert [set(epoch) for epoch in metrics["epochs"]] == [EPOCH, EPOCH]
    assert set(metrics["final"]) == FINAL
    settings = {"recipe": "same-padding", "head": "gumbel", "temperature": 0.5, "seed": 3, "device": "cpu"}
    assert metrics["settings"] | settings | {"data": "digits"} == metrics["settings"]
    assert {path.suffix for path in folder.glob("[!.]*")} == {".json", ".csv", ".safetensors", ".png", ".scratchnet"}


def test_quiet_prints_the_final_block_alone(train: Train, tmp_path: Path) -> None:
    settings = "--recipe", "valid-padding", "--head", "gumbel", "--temperature", "anneal", "--batch-size", 50
    done = train(*ONE_EPOCH, "--quiet", "--output", "out", *settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "digits:", "after", "argmax", "noise", "noise", "The", "Files:"
    ]  # fmt: skip
    assert "valid-padding, gumbel, temperature anneal, seed 0, cpu" in done.stdout
    settings = json.loads((tmp_path / "out" / "metrics.json").read_text())["settings"]
    assert (settings["recipe"], settings["temperature"]) == ("valid-padding", "anneal")


def test_cupy_is_imported_only_when_asked_for(finished: tuple[Path, Any], train: Train, tmp_path: Path) -> None:
    assert finished[1].returncode == 0  # with a cupy that cannot be imported
    assert_one_sentence(train("--device", "gpu", **broken_cupy(tmp_path)), 2, BROKEN_CUPY, "choose the device 'cpu'")


def test_help_names_every_option(train: Train) -> None:
    done = train("--help")
    assert done.returncode == 0
    assert set(re.findall(r"^  (--[a-z-]+)", done.stdout, re.MULTILINE)) == {
        "--recipe", "--head", "--temperature", "--epochs", "--batch-size", "--learning-rate", "--seed", "--device",
        "--precision", "--workers", "--data", "--output", "--quiet", "--compare", "--seeds", "--temperature-study",
        "--jobs", "--backend", "--heads",
        "--checkpoint-every", "--resume", "--samples",
    }  # fmt: skip


# --- what goes wrong


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("--recipe full-padding", ["argument --recipe: invalid choice: 'full-padding'"]),
        ("--head sigmoid", ["argument --head: invalid choice: 'sigmoid'"]),
        ("--device tpu", ["argument --device: invalid choice: 'tpu'"]),
        ("--colour red", ["unrecognized arguments: --colour red"]),
        ("--epoch 3", ["unrecognized arguments: --epoch 3"]),
        ("--epochs", ["argument --epochs: expected one argument"]),
        ("--epochs 0", ["epochs is 0 where a positive integer is wanted"]),
        ("--epochs many", ["argument --epochs: invalid int value: 'many'"]),
        ("--batch-size 0", ["batch_size is 0 where a positive integer is wanted"]),
        ("--batch-size 6.4", ["argument --batch-size: invalid int value: '6.4'"]),
        ("--workers 0", ["workers is 0 where a positive integer is wanted"]),
        ("--learning-rate 0", ["learning_rate is 0.0 where a positive, finite number is wanted"]),
        ("--learning-rate nan", ["learning_rate is nan where a positive, finite number is wanted"]),
        ("--seed -1", ["seed is -1 where an integer from 0 to"]),
        ("--head gumbel --temperature 0", ["temperature is 0.0 where a positive, finite number is wanted"]),
        ("--head gumbel --temperature -1", ["temperature is -1.0 where a positive, finite number is wanted"]),
        ("--head gumbel --temperature inf", ["temperature is inf where a positive, finite number is wanted"]),
        ("--head gumbel --temperature warm", ["--temperature: 'warm' is neither a number nor 'anneal'"]),
        (
            "--temperature 0.5",
            ["temperature has no meaning with head 'softmax': leave it out, or choose head 'gumbel'"],
        ),
    ],
)
def test_wrong_argument(arguments: str, parts: list[str], main: Main) -> None:
    done = main(*arguments.split())
    assert_one_sentence(done, 2, *parts, "--help")
    assert done.stderr.count("\n") == 1


def test_wrong_argument_from_the_shell(train: Train, tmp_path: Path) -> None:
    done = train("--batch-size", 0)
    assert_one_sentence(done, 2, "batch_size is 0 where a positive integer is wanted")
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [None, b"", b"\x1f\x8b\x08 truncated", b"not an archive at all" * 100])
def test_data_missing_truncated_or_corrupted(main: Main, tmp_path: Path, content: bytes | None) -> None:
    archive = tmp_path / "archive.tar.gz"
    if content is not None:
        archive.write_bytes(content)
    done = main("--data", archive, "--device", "cpu", "--output", tmp_path / "out")
    assert_one_sentence(done, 1, str(archive))
    assert [path.name for path in tmp_path.iterdir()] == ([] if content is None else ["archive.tar.gz"])
    assert content is None or archive.read_bytes() == content


def test_loss_that_is_not_finite(train: Train, tmp_path: Path) -> None:
    done = train(*ONE_EPOCH, "--learning-rate", "1e30", "--output", "out")
    assert_one_sentence(done, 1, "at step 2 (epoch 1, batch 2 of 23): the output of conv2d_", "NaN of", "than 1e+30")
    assert os.listdir(tmp_path / "out") == [".lock"]


@pytest.mark.parametrize("output", ["file", "file/below", "/sys", "/sys/below"])
def test_output_that_cannot_be_written(main: Main, tmp_path: Path, output: str) -> None:
    (tmp_path / "file").write_text("as it was")
    done = main(*ONE_EPOCH, "--output", tmp_path / output)
    assert_one_sentence(done, 1, "cannot ", output, "name another folder with --output")
    assert "epoch" not in done.stdout + done.stderr
    assert (tmp_path / "file").read_text() == "as it was"


def test_full_standard_output(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command(*ONE_EPOCH), stdout=full, stderr=subprocess.PIPE, cwd=tmp_path, text=True, timeout=100, check=False
        )
    assert_one_sentence(done, 1, "No space left on device")


@pytest.mark.parametrize("closed", [(1,), (2,), (1, 2)], ids=str)
def test_streams_closed_from_the_beginning(closed: tuple[int, ...], tmp_path: Path) -> None:
    shell = ["sh", "-c", 'exec "$@" ' + " ".join(f"{number}>&-" for number in closed), "sh"]
    done = subprocess.run(
        [*shell, *command(*ONE_EPOCH, "--workers", 2, "--output", "out")],
        cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ("argmax" in done.stdout) == (1 not in closed)
    assert "Error" not in done.stderr
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["final"] is not None


def test_text_that_the_terminal_cannot_show(train: Train, tmp_path: Path) -> None:
    done = train(*ONE_EPOCH, "--quiet", "--output", "ergebnis-\N{GREEK SMALL LETTER ALPHA}", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("Files: ergebnis-\\u03b1\n")
    assert (tmp_path / "ergebnis-\N{GREEK SMALL LETTER ALPHA}" / "metrics.json").exists()


def test_standard_output_closed_early(tmp_path: Path) -> None:
    with subprocess.Popen(
        command(*ONE_EPOCH), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
        status = process.wait(100)
    assert_one_sentence(subprocess.CompletedProcess("", status, "", errors), 1, "standard output was closed")


def test_interruption_from_the_keyboard(tmp_path: Path) -> None:
    """Ctrl-C reaches all processes of the terminal's foreground group."""
    arguments = command("--data", "digits", "--device", "cpu", "--workers", 2, "--epochs", 1000, "--output", "out")
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert any("epoch 1/1000" in line for line in process.stdout)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    done = subprocess.CompletedProcess("", process.returncode, "", errors)
    assert_one_sentence(done, 130, "interrupted", "out", "--resume")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["final"] is None
    assert len(metrics["epochs"]) >= 1


def test_interruption_while_modules_are_imported(train: Train, tmp_path: Path) -> None:
    (tmp_path / "tqdm.py").write_text("raise KeyboardInterrupt\n")
    done = train(PYTHONPATH=str(tmp_path))
    assert_one_sentence(done, 130, "interrupted")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (MemoryError("Unable to allocate 9 TiB"), "memory is exhausted (Unable to allocate 9 TiB): lower --batch-size"),
        (OSError(24, "Too many open files"), "the system refused: [Errno 24] Too many open files"),
    ],
)
def test_failure_of_the_system(error: Exception, sentence: str, main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(cli, "run_experiment", fail)
    assert_one_sentence(main("--data", "digits"), 1, sentence)


@pytest.mark.parametrize("moment", [(run, "load_dataset"), (cli, "final_block")], ids=["before", "after"])
def test_sigterm_when_there_is_no_step_to_wait_for(
    moment: tuple[Any, str], main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*moment, lambda *arguments, **options: os.kill(os.getpid(), signal.SIGTERM))
    done = main(*ONE_EPOCH, "--quiet", "--output", tmp_path)
    assert_one_sentence(done, 143, f"interrupted; what finished epochs wrote is in {tmp_path}")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
