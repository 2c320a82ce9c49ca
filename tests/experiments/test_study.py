import multiprocessing
import os
import re
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scratchnet.errors import ScratchnetError
from scratchnet.experiments.config import Config, configure
from scratchnet.experiments.recipes import RECIPES
from scratchnet.experiments.result import Result
from scratchnet.experiments.run import run_experiment
from scratchnet.experiments.study import plan, run_study
from tests.experiments.conftest import Train, command

SETTINGS = {"data": "digits", "device": "cpu", "epochs": 1, "workers": 1, "batch_size": 256}


def pair(folder: Path) -> list[Config]:
    return plan(["valid-padding"], [0], folder, **SETTINGS)


def same(first: Result, second: Result) -> bool:
    assert first.predictions is not None
    assert second.predictions is not None
    return np.array_equal(first.predictions.logits, second.predictions.logits)


def test_the_plan_has_every_case_once(tmp_path: Path) -> None:
    configs = plan(["same-padding", "valid-padding"], [0, 1, 2], tmp_path, temperature_study="same-padding")
    cases = [(of.recipe, of.head, of.temperature, of.seed) for of in (config.settings for config in configs)]
    assert len(cases) == len(set(cases)) == 2 * 2 * 3 + 4 * 3
    assert {temperature for recipe, _, temperature, _ in cases if recipe == "same-padding"} == {
        None, 0.1, 0.5, 1.0, 2.0, "anneal",
    }  # fmt: skip
    assert {temperature for recipe, _, temperature, _ in cases if recipe == "valid-padding"} == {None, 1.0}
    assert {config.settings.epochs for config in configs if config.settings.recipe == "valid-padding"} == {10, 30}
    assert len({config.output for config in configs}) == len(configs)


def test_the_plan_compares_softmax_with_the_heads_that_are_given(tmp_path: Path, third_head: str) -> None:
    configs = plan(["same-padding"], [0], tmp_path, heads=[third_head, "softmax"])
    assert [config.settings.head for config in configs] == ["softmax", third_head]
    configs = plan(["same-padding"], [0], tmp_path, heads=["gumbel", third_head], temperature_study="same-padding")
    tempered = [config.settings.temperature for config in configs if config.settings.head == "gumbel"]
    assert tempered == [0.5, 0.1, 1.0, 2.0, "anneal"]
    assert [config.settings.head for config in configs if config.settings.head != "gumbel"] == ["softmax", third_head]


def test_all_heads_of_a_recipe_without_reports_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "same-padding", replace(RECIPES["same-padding"], reports={}))
    configs = plan(["same-padding"], [0], tmp_path)
    assert [(config.settings.head, config.settings.epochs) for config in configs] == [("softmax", 10), ("gumbel", 10)]


def test_a_study_gives_what_single_runs_give_and_does_no_run_twice(tmp_path: Path) -> None:
    configs = pair(tmp_path)
    results = run_study(configs, jobs=2)
    assert [result.settings.head for result in results] == ["softmax", "gumbel"]
    alone = configure("valid-padding", "gumbel", output=tmp_path / "alone", **SETTINGS)
    assert same(results[1], run_experiment(alone))
    written = [(config.output / "metrics.json").stat().st_mtime_ns for config in configs]
    (configs[1].output / "metrics.json").unlink()
    assert multiprocessing.active_children() == []
    assert same(run_study(configs, jobs=1)[1], results[1])
    assert (configs[0].output / "metrics.json").stat().st_mtime_ns == written[0]
    assert (configs[1].output / "metrics.json").stat().st_mtime_ns != written[1]


def test_a_finished_run_with_other_settings_is_not_replaced(tmp_path: Path) -> None:
    config = configure("valid-padding", output=tmp_path / "runs" / "valid-padding-softmax-seed0", **SETTINGS)
    run_experiment(config)
    with pytest.raises(ScratchnetError, match=r"differ from this study's: batch size 128 \(256\); choose"):
        run_study(plan(["valid-padding"], [0], tmp_path, **SETTINGS | {"batch_size": 128}))


def test_one_data_set_for_all(tmp_path: Path) -> None:
    run_study(configs := pair(tmp_path), jobs=1)
    path = configs[0].output / "metrics.json"
    path.write_text(path.read_text().replace('"digits"', '"cifar100"'))
    with pytest.raises(ScratchnetError, match=r"are on cifar100 \w+ and digits \w+: name one data set"):
        run_study(configs)
    text = path.read_text().replace('"cifar100"', '"digits"')
    path.write_text(re.sub('"data_digest": "[^"]*"', '"data_digest": "3f"', text))
    with pytest.raises(ScratchnetError, match=r"are on digits \w+ and digits 3f: name one data set"):
        run_study(configs)


def test_a_failing_run_stops_no_other(tmp_path: Path) -> None:
    configs = pair(tmp_path)
    configs[0].output.parent.mkdir()
    configs[0].output.write_text("a file where the folder should be")
    with pytest.raises(ScratchnetError, match="1 of 2 runs failed: valid-padding-softmax-seed0: cannot create"):
        run_study(configs, jobs=1)
    assert Result.read(configs[1].output).final is not None


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (["--seeds", 2], "--seeds has no meaning without --compare"),
        (["--heads", "gumbel"], "--heads has no meaning without --compare"),
        (["--compare", "--heads", "sigmoid"], "argument --heads: invalid choice: 'sigmoid'"),
        (["--compare", "--temperature", 1], "--temperature has no meaning with --compare"),
        (["--compare", "--head", "gumbel"], "--head has no meaning with --compare"),
        (["--recipe", "all"], "recipe is 'all'"),
        (["--compare", "--seeds", 0], "seeds is 0"),
        (["--compare", "--jobs", -1], "jobs is -1"),
    ],
)
def test_options_that_contradict(train: Train, wrong: list[object], sentence: str) -> None:
    done = train(*wrong)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        signal.SIGKILL,
    ],
)
def test_an_interrupted_study_goes_on(how: signal.Signals, tmp_path: Path) -> None:
    """SIGINT reaches all, as from a terminal; the others the parent alone, whom its workers do not outlive."""
    arguments = command(
        "--compare", "--recipe", "valid-padding", "--seeds", 1, "--epochs", 4, "--batch-size", 128, "--data", "digits",
        "--device", "cpu", "--jobs", 2, "--output", "s",
    )  # fmt: skip
    study = subprocess.Popen(
        arguments, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    folders = [tmp_path / "s" / "runs" / f"valid-padding-{head}-seed0" for head in ("softmax", "gumbel")]
    while not all((folder / "history.csv").exists() for folder in folders):
        assert study.poll() is None
        time.sleep(0.05)
    (os.killpg if how == signal.SIGINT else os.kill)(study.pid, how)
    _, errors = study.communicate(timeout=30)  # and its workers end too, as they have the same standard error
    if how != signal.SIGKILL:
        assert study.returncode == 128 + how
        assert "Traceback" not in errors
        assert errors.splitlines()[-1].startswith("error: interrupted; to go on with what s has, type: python train")
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    settings = SETTINGS | {"epochs": 4, "batch_size": 128}
    alone = run_experiment(configure("valid-padding", output=tmp_path / "alone", **settings))
    assert same(Result.read(folders[0]), alone)


def test_a_local_dask_cluster_does_the_runs(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="Dask is not installed: pip install scratchnet[cluster]")
    script = tmp_path / "study.py"  # as a user would write it: Dask's processes import the main module
    script.write_text(
        "from pathlib import Path\n"
        "from scratchnet.experiments.study import plan, run_study\n"
        "if __name__ == '__main__':\n"
        f"    configs = plan(['valid-padding'], [0], Path({str(tmp_path)!r}), **{SETTINGS!r})\n"
        "    assert [result.settings.head for result in run_study(configs, backend='dask')] == ['softmax', 'gumbel']\n"
    )
    done = subprocess.run([os.sys.executable, script], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert same(Result.read(pair(tmp_path)[1].output), run_study(pair(tmp_path / "here"), jobs=1)[1])
