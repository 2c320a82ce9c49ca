"""A run that was ended in any way and resumed has the bits of one that was not."""

import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from scratchnet import Adam, BatchNormalization, Dropout, GumbelSoftmaxCrossEntropy, Sequential
from scratchnet.data import Dataset, Split, load_dataset
from scratchnet.errors import ScratchnetError
from scratchnet.experiments import artifacts, configure, run, run_experiment
from scratchnet.experiments.checkpoint import NAME, PREVIOUS
from scratchnet.experiments.interruption import Interruption, postponed
from scratchnet.experiments.result import Result
from scratchnet.experiments.run import Observer
from scratchnet.training import Trainer
from tests.experiments.conftest import command
from tests.training.problem import dataset, network

SETTINGS: dict[str, Any] = {"data": "digits", "device": "cpu", "checkpoint_every": "4steps"}
EPOCHS, STEPS, BATCH = 3, 10, 16  # of the tests in this process
ARGUMENTS = (
    "--data", "digits", "--device", "cpu", "--head", "gumbel", "--workers", 2, "--batch-size", 150, "--epochs", 3,
    "--checkpoint-every", "4steps", "--output", "out", "--quiet", "--resume",
)  # fmt: skip


class Stop(Observer):
    """Raises or sends itself a signal when a number of steps is done, and remembers the notes."""

    def __init__(self, after: int = 0, how: BaseException | int | None = None) -> None:
        self.left, self.how, self.notes = after, how, []  # type: ignore[var-annotated]

    def note(self, message: str) -> None:
        self.notes.append(message)

    def step(self, epoch: int, step: int, steps: int, loss: float, accuracy: float) -> None:
        assert steps == STEPS
        self.left -= 1
        if self.left == 0 and isinstance(self.how, BaseException):
            raise self.how
        if self.left == 0 and self.how:
            os.kill(os.getpid(), self.how)


def bits(folder: Path) -> dict[str, Any]:
    """All that a run's files tell, but for the seconds."""
    metrics = json.loads((folder / "metrics.json").read_text())
    for epoch in metrics["epochs"]:
        assert epoch.pop("seconds") > 0
    for name in "weights", "predictions":
        arrays = load_file(folder / f"{name}.safetensors")
        metrics[name] = {key: array.tobytes() for key, array in arrays.items()}
    history = (folder / "history.csv").read_text().splitlines()
    metrics["history"] = [[cell for place, cell in enumerate(line.split(",")) if place != 2] for line in history]
    return metrics | {"confusion": (folder / "confusion.csv").read_text()}


def some_digits(*arguments: Any, **options: Any) -> Dataset:
    full = load_dataset("digits")
    train, test = (Split(split.images[:155], split.labels[:155]) for split in (full.train, full.test))
    return replace(full, train=train, test=test)


@pytest.fixture(scope="module", autouse=True)
def _quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Few images, and no figures: they take most of so short a run's time, and show what is compared here."""
    packages = tmp_path_factory.mktemp("packages")
    (packages / "matplotlib.py").write_text("raise ImportError('not in this test')\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "load_dataset", some_digits)
        patch.setenv("PYTHONPATH", str(packages))
        for name in "matplotlib", "matplotlib.figure":
            patch.setitem(sys.modules, name, None)
        yield


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    """By number of workers."""
    found = {}
    for workers in 1, 2:
        folder = tmp_path_factory.mktemp("uninterrupted")
        resume(folder, workers, resume=False)
        found[workers] = bits(folder)
    assert found[1]["weights"] != found[2]["weights"]  # the sums have another order: so small a difference is seen
    return found


def resume(folder: Path, workers: int = 1, observer: Observer | None = None, **settings: Any) -> Result:
    settings = SETTINGS | {"batch_size": BATCH, "epochs": EPOCHS, "resume": True} | settings
    return run_experiment(configure(head="gumbel", **settings, workers=workers, output=folder), observer)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_restored_trainer_goes_on_with_the_same_bits(workers: int) -> None:
    """In the middle of an epoch, with noise, masks, moving averages and Adam's step."""
    kept: list[Any] = []

    def build() -> tuple[Sequential, Trainer]:
        net = network(BatchNormalization(), Dropout(0.3))
        return net, Trainer(net, GumbelSoftmaxCrossEntropy(0.7), Adam(), dataset(), batch_size=31, workers=workers)

    def keep(trainer: Trainer, step: int) -> None:
        if trainer.progress.epoch == step == 2:
            kept.extend([trainer.state(), replace(trainer.progress)])

    def train(trainer: Trainer, epochs: tuple[int, ...]) -> list[Any]:
        results = [trainer.train_epoch(epoch, lambda step, *_: keep(trainer, step)) for epoch in epochs]
        return [*((result.loss, result.accuracy) for result in results), trainer.predict().tobytes()]

    net, trainer = build()
    with trainer:
        expected = train(trainer, (1, 2, 3))[1:]
    other, trainer = build()
    with trainer:
        trainer.restore(*kept)
        assert train(trainer, (2, 3)) == expected
    for name, array in net.weights().items():
        assert other.weights()[name].tobytes() == array.tobytes()


@pytest.mark.parametrize(("how", "workers"), [(RuntimeError("its own"), 1), (signal.SIGINT, 1), (signal.SIGTERM, 2)])
def test_a_run_that_was_stopped_and_resumed_has_the_same_bits(
    how: Any, workers: int, tmp_path: Path, uninterrupted: dict[int, Any]
) -> None:
    """Stopped after the last step of an epoch, then in the middle of one, where no checkpoint is due."""
    for begun, steps in ((0, STEPS), (STEPS, 5)):
        observer = Stop(steps, how)
        with pytest.raises(Interruption if isinstance(how, int) else RuntimeError) as caught:
            resume(tmp_path, workers, observer)
        assert not isinstance(how, int) or caught.value.args == (how,)
        assert observer.notes[0].startswith(f"going on after step {begun} of 30" if begun else "no checkpoint in")
    result = resume(tmp_path, workers, observer := Stop())
    assert observer.notes[0] == "going on after step 15 of 30"
    assert bits(tmp_path) == uninterrupted[workers]
    assert [epoch.epoch for epoch in result.epochs] == [1, 2, 3]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_interrupt_does_not_wait_for_the_step(tmp_path: Path) -> None:
    with postponed() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signals == [signal.SIGTERM, signal.SIGTERM]


def test_a_finished_run_is_evaluated_again_and_may_have_more_epochs(
    tmp_path: Path, uninterrupted: dict[int, Any]
) -> None:
    resume(tmp_path, epochs=2, checkpoint_every=1)
    shorter = bits(tmp_path)
    for name in "weights.safetensors", "predictions.safetensors", "metrics.json":
        (tmp_path / name).unlink()
    observer = Stop(after=1, how=AssertionError("a step"))
    assert resume(tmp_path, observer=observer, epochs=2).final is not None
    assert observer.notes[0] == "going on after step 20 of 20"
    assert bits(tmp_path) == shorter
    with pytest.raises(ScratchnetError, match=r"settings .in brackets. differ: epochs 1 \(2\);"):
        resume(tmp_path, epochs=1)
    resume(tmp_path)
    assert bits(tmp_path) == uninterrupted[1]


def test_an_unfinished_run_is_not_lost_to_another(tmp_path: Path) -> None:
    with pytest.raises(Interruption):
        resume(tmp_path, observer=Stop(1, signal.SIGTERM))
    before = (tmp_path / NAME).read_bytes()
    with pytest.raises(ScratchnetError, match=r"has the checkpoint of an unfinished run: go on with --resume, choose "):
        resume(tmp_path, resume=False)
    for setting, difference in (
        ({"learning_rate": 0.002, "seed": 7}, r"seed 7 \(0\), learning rate 0.002 \(0.001\);"),
        ({"batch_size": 10}, r"batch size 10 \(16\);"),
        ({"temperature": "anneal"}, r"temperature anneal \(0.5\);"),
        ({"recipe": "valid-padding"}, r"recipe valid-padding \(same-padding\), temperature 1.0 \(0.5\);"),
        ({"epochs": 2}, r"epochs 2 \(3\);"),
    ):
        with pytest.raises(ScratchnetError, match=f"cannot resume the run in .* differ: {difference} give the same"):
            resume(tmp_path, **setting)
    with pytest.raises(ScratchnetError, match=r"workers 2 \(1\);"):
        resume(tmp_path, workers=2)
    assert (tmp_path / NAME).read_bytes() == before


def test_a_finished_run_is_replaced_with_its_checkpoints(tmp_path: Path) -> None:
    resume(tmp_path, epochs=1)
    assert (tmp_path / PREVIOUS).exists()
    with pytest.raises(Interruption):
        resume(tmp_path, seed=1, resume=False, observer=Stop(1, signal.SIGTERM))
    assert not (tmp_path / PREVIOUS).exists()
    resume(tmp_path, seed=1, observer=(observer := Stop()))
    assert observer.notes[0] == "going on after step 1 of 30"


def test_only_one_run_at_a_time_writes_to_a_folder(tmp_path: Path) -> None:
    for name in ".scratchnet-123-weights.safetensors", ".mine-123":
        (tmp_path / name).touch()
    refused = pytest.raises(ScratchnetError, match=f"another run is writing to {tmp_path}: wait")
    with artifacts.locked(tmp_path), refused:
        resume(tmp_path)
    (tmp_path / ".scratchnet-123-metrics.json").touch()
    resume(tmp_path, epochs=1)
    assert sorted(name for name in os.listdir(tmp_path) if name.startswith(".")) == [".lock", ".mine-123"]


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "steps", "5 steps", "5stepss", "\u0665", "", 0, True])
def test_an_interval_that_cannot_be(text: Any) -> None:
    with pytest.raises(ValueError, match=r"checkpoint_every is .* where a number of epochs such as 2, or of steps"):
        configure(checkpoint_every=text)


def test_intervals() -> None:
    found = [configure(checkpoint_every=text).checkpoint_every for text in (1, "2", "3epochs", "1epoch", "500steps")]
    assert found == [(1, "epoch"), (2, "epoch"), (3, "epoch"), (1, "epoch"), (500, "step")]


# --- processes that are killed


@pytest.mark.slow
def test_a_run_that_was_killed_again_and_again_has_the_same_bits(tmp_path: Path) -> None:
    """The parent by SIGKILL, a worker by SIGKILL, the whole group by SIGTERM, and then with the command it names."""
    chance = random.Random(5)
    for how in (kill_parent, kill_worker, terminate_group):
        process = subprocess.Popen(
            command(*ARGUMENTS),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, text=True, start_new_session=True,
        )  # fmt: skip
        before = stamp(tmp_path / "out" / NAME)
        while stamp(tmp_path / "out" / NAME) == before and process.poll() is None:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.05))
        status, message = how(process)
        _, errors = process.communicate(timeout=300)
        assert process.returncode == status, errors
        assert re.fullmatch(message, errors), errors
    to_go_on = shlex.split(errors.partition("type: ")[2])
    done = subprocess.run(to_go_on, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    subprocess.run(command(*ARGUMENTS, "--output", "uninterrupted"), cwd=tmp_path, timeout=300, check=True)
    assert bits(tmp_path / "out") == bits(tmp_path / "uninterrupted")


def stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def kill_parent(process: subprocess.Popen[str]) -> tuple[int, str]:
    process.kill()
    return -signal.SIGKILL, ""


def kill_worker(process: subprocess.Popen[str]) -> tuple[int, str]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(workers) == 2
    os.kill(int(workers[1]), signal.SIGKILL)
    return 1, r"error: worker 1 of 2 died \(signal 9\), and the run with it: [^\n]*\n"


def terminate_group(process: subprocess.Popen[str]) -> tuple[int, str]:
    os.killpg(process.pid, signal.SIGTERM)
    return 143, r"error: interrupted, with a checkpoint in out; to go on, type: [^\n]* --resume\n"
