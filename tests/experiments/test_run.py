"""One experiment, in this process: its result, its files, and what is left when it fails."""

import csv
import errno
import json
import os
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from scratchnet.backend import get_device
from scratchnet.data import Dataset, load_dataset
from scratchnet.errors import DataError, DeviceError, ScratchnetError, TrainingError
from scratchnet.experiments import Config, Observer, configure, run, run_experiment
from scratchnet.experiments.display import final_block
from scratchnet.experiments.metrics import evaluate
from scratchnet.experiments.result import Epoch, Result
from scratchnet.heads import HEADS
from scratchnet.layers import Sequential
from tests.experiments.report import made

DIGITS: dict[str, Any] = {"data": "digits", "device": "cpu", "workers": 1, "epochs": 1}
EVERY_EPOCH = [".lock", "checkpoint.scratchnet", "confusion.csv", "history.csv", "metrics.json", "weights.safetensors"]
AT_THE_END = ["confusion.png", "curves.png", "predictions.safetensors"]
FILES = sorted([*EVERY_EPOCH, *AT_THE_END, "checkpoint.previous.scratchnet"])
OF_DIGITS = made.result(classes=10).files()["metrics.json"]


class Recorder(Observer):
    """Remembers what it is told, and spoils the network after epoch `spoil`."""

    def __init__(self, spoil: int | None = None) -> None:
        self.spoil = spoil
        self.notes: list[str] = []
        self.steps: list[tuple[int, int, int]] = []
        self.epochs: list[Epoch] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def start(self, dataset: Dataset, network: Sequential) -> None:
        self.dataset, self.network = dataset, network

    def step(self, epoch: int, step: int, steps: int, loss: float, accuracy: float) -> None:
        self.steps.append((epoch, step, steps))

    def epoch(self, epoch: Epoch) -> None:
        self.epochs.append(epoch)
        if epoch.epoch == self.spoil:
            self.network.parameters.fill(np.nan)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return configure(**DIGITS | {"epochs": 2}, output=tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def result(config: Config, recorder: Recorder) -> run.Result:
    return run_experiment(config, recorder)


def test_observer_is_told_of_every_step_and_epoch(result: run.Result, recorder: Recorder) -> None:
    steps = -(-len(recorder.dataset.train) // 64)
    assert recorder.steps == [(epoch, step, steps) for epoch in (1, 2) for step in range(1, steps + 1)]
    assert recorder.epochs == result.epochs
    assert recorder.notes == []


def test_metrics_json_holds_the_result(config: Config, result: run.Result) -> None:
    content = asdict(result)
    del content["predictions"]
    assert json.loads((config.output / "metrics.json").read_text()) == content
    assert sorted(os.listdir(config.output)) == FILES


def test_result_is_complete_and_plausible(result: run.Result) -> None:
    assert [epoch.epoch for epoch in result.epochs] == [1, 2]
    last, final = result.epochs[-1], result.final
    assert final is not None
    assert all(0 <= value <= 1 for value in final.values())
    assert (final["accuracy"], final["accuracy_sampled"]) == (last.test_accuracy, last.test_accuracy_sampled)
    assert final["accuracy"] > 0.8 > 0.2 > result.epochs[0].seconds / 100
    assert final["expected_sampled_accuracy"] < final["accuracy"]
    assert {"python", "scratchnet", "numpy", "blas", "scikit-learn", "platform"} == set(result.versions)


def test_history_csv_has_a_row_for_each_epoch(config: Config, result: run.Result) -> None:
    with open(config.output / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row.pop("dataset") for row in rows] == ["digits", "digits"]
    assert [{name: float(value) for name, value in row.items()} for row in rows] == [
        asdict(epoch) for epoch in result.epochs
    ]


def test_weights_and_confusion_are_those_of_the_last_epoch(config: Config, result: run.Result) -> None:
    data = load_dataset("digits").test
    network = Sequential.load(config.output / "weights.safetensors")
    logits = network.forward((data.images / 255).astype(np.float32))
    evaluation = evaluate(logits, data.labels, np.zeros_like(logits))
    assert evaluation.loss == pytest.approx(result.epochs[-1].test_loss, rel=1e-4)
    confusion = np.loadtxt(config.output / "confusion.csv", delimiter=",", dtype=int)
    assert confusion.shape == (10, 10)
    assert np.abs(confusion - evaluation.confusion).sum() <= 2  # an image at a tie may fall either way
    assert np.trace(confusion) / confusion.sum() == pytest.approx(result.epochs[-1].test_accuracy)


def test_same_seed_same_result(config: Config, result: run.Result, tmp_path: Path) -> None:
    again = run_experiment(configure(**DIGITS | {"epochs": 2}, output=tmp_path))
    assert [asdict(epoch) | {"seconds": 0} for epoch in again.epochs] == [
        asdict(epoch) | {"seconds": 0} for epoch in result.epochs
    ]
    assert again.final == result.final


def test_loss_that_is_not_finite_stops_the_run_and_keeps_finished_epochs(tmp_path: Path) -> None:
    recorder = Recorder(spoil=1)
    config = configure(head="gumbel", **DIGITS | {"epochs": 3}, output=tmp_path)
    with pytest.raises(TrainingError, match=r"\bstep 2[34]\b"):
        run_experiment(config, recorder)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["epochs"] == [asdict(recorder.epochs[0])]
    assert metrics["final"] is None
    assert all(np.isfinite(array).all() for array in load_file(tmp_path / "weights.safetensors").values())


def test_failed_run_keeps_an_earlier_run_in_the_same_folder(tmp_path: Path) -> None:
    run_experiment(configure(**DIGITS, output=tmp_path))
    (tmp_path / "notes.txt").write_text("mine")
    before = snapshot(tmp_path)
    with pytest.raises(TrainingError, match="step"):
        run_experiment(configure(**DIGITS, learning_rate=1e30, output=tmp_path))
    assert snapshot(tmp_path) == before


def test_full_disk_after_the_first_epoch_keeps_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synchronize = os.fsync

    class FullAfterFirstEpoch(Recorder):
        def epoch(self, epoch: Epoch) -> None:
            self.before = snapshot(tmp_path)
            monkeypatch.setattr(os, "fsync", self.full)

        def full(self, descriptor: int) -> None:
            synchronize(descriptor)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    observer = FullAfterFirstEpoch()
    with pytest.raises(ScratchnetError, match=r"cannot write .*checkpoint\.scratchnet \(No space left on device\): "):
        run_experiment(configure(**DIGITS | {"epochs": 2}, output=tmp_path), observer)
    assert snapshot(tmp_path) == observer.before
    assert sorted(observer.before) == EVERY_EPOCH[1:]


@pytest.mark.parametrize("written", [3, 4, 5])  # a checkpoint and its folder come first
def test_disk_that_is_full_after_some_files_does_not_mix_two_epochs(
    written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synchronize = os.fsync

    class FullInTheSecondEpoch(Recorder):
        def epoch(self, epoch: Epoch) -> None:
            self.before, self.room = snapshot(tmp_path), written
            monkeypatch.setattr(os, "fsync", self.nearly_full)

        def nearly_full(self, descriptor: int) -> None:
            if self.room == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.room -= 1
            synchronize(descriptor)

    observer = FullInTheSecondEpoch()
    with pytest.raises(ScratchnetError, match="No space left on device"):
        run_experiment(configure(**DIGITS | {"epochs": 2}, output=tmp_path), observer)
    after = snapshot(tmp_path)
    assert after.pop("checkpoint.previous.scratchnet") == observer.before.pop("checkpoint.scratchnet")
    assert after.pop("checkpoint.scratchnet")
    assert after == observer.before


def test_run_on_other_data_does_not_replace_a_run(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_bytes(made.result().files()["metrics.json"])
    recorder, before = Recorder(), snapshot(tmp_path)
    with pytest.raises(ScratchnetError) as caught:
        run_experiment(configure(**DIGITS, output=tmp_path), recorder)
    assert str(caught.value) == (
        f"{tmp_path} has the files of a run on cifar100, which this one on digits would replace: "
        "choose another folder with --output"
    )
    assert recorder.steps == []
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("content", [None, b"", b"\xff", b"[]", b"{}", b"3", OF_DIGITS])
def test_only_the_files_of_a_run_on_other_data_are_protected(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "metrics.json").write_bytes(content)
    run._check_earlier_run(tmp_path, "digits")


def test_nothing_is_created_for_data_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        run_experiment(configure(data=str(tmp_path / "nowhere"), device="cpu", output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_data_without_a_test_split_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    untested: Any = replace(load_dataset("digits"), test=None)  # type: ignore[arg-type]
    monkeypatch.setattr(run, "load_dataset", lambda *arguments, **options: untested)
    with pytest.raises(DataError, match=r"digits has no test split, .* is evaluated: name other data with --data"):
        run_experiment(configure(**DIGITS, output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@dataclass(frozen=True, eq=False)
class Known(Dataset):
    """A data set that knows its content."""

    digest: str = ""


def test_a_run_names_the_data_it_saw_and_goes_on_with_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def known(digest: str) -> None:
        dataset = Known(**vars(load_dataset("digits")) | {"digest": digest})
        monkeypatch.setattr(run, "load_dataset", lambda *arguments, **options: dataset)

    known("3f2a")
    result = run_experiment(configure(**DIGITS, output=tmp_path))
    assert result.settings.data_digest == "3f2a"
    assert result.settings.training_images == 1442
    assert Result.read(tmp_path).settings == result.settings
    known("77b0")
    with pytest.raises(ScratchnetError, match=r"whose settings .* differ: data digest 77b0 \(3f2a\); give the same"):
        run_experiment(configure(**DIGITS | {"epochs": 2}, output=tmp_path, resume=True))


def test_a_head_without_a_report_can_be_trained(tmp_path: Path, third_head: str) -> None:
    result = run_experiment(configure(head=third_head, **DIGITS, output=tmp_path))
    assert sorted(os.listdir(tmp_path)) == sorted([*EVERY_EPOCH, *AT_THE_END])
    assert Result.read(tmp_path).settings == result.settings
    assert "No report has figures of the head third" in final_block(result, tmp_path)


def test_a_head_says_how_many_outputs_the_network_has(
    tmp_path: Path, third_head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        pass

    class Looks(Observer):
        def start(self, dataset: Dataset, network: Any) -> None:
            raise Stop(network.output_shape)

    for says, has in ((12, (12,)), (None, (256,))):  # None: the head has the last layer itself
        monkeypatch.setattr(HEADS[third_head], "outputs_for", lambda head, classes, says=says: says)
        with pytest.raises(Stop) as stopped:
            run_experiment(configure(head=third_head, **DIGITS, output=tmp_path), Looks())
        assert stopped.value.args == (has,)


def test_folder_is_checked_before_training(tmp_path: Path) -> None:
    recorder = Recorder()
    (tmp_path / "file").touch()
    with pytest.raises(ScratchnetError, match="cannot create the output folder"):
        run_experiment(configure(**DIGITS, output=tmp_path / "file"), recorder)
    assert recorder.steps == []


def test_sampled_predictions_depend_on_seed_and_epoch() -> None:
    logits, labels = np.zeros((1000, 10), np.float32), np.zeros(1000, int)

    def accuracy(seed: int, epoch: int) -> float:
        return run._evaluate(logits, labels, seed, epoch).figures["accuracy_sampled"]

    assert accuracy(0, 1) == accuracy(0, 1)
    assert len({accuracy(0, 1), accuracy(0, 2), accuracy(1, 1), accuracy(1, 2)}) > 2


def test_device_auto_takes_the_cpu_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_gpu(name: str, precision: str | None = None) -> Any:
        if name == "gpu":
            raise DeviceError("this machine shows none")
        return get_device(name)

    monkeypatch.setattr(run, "get_device", no_gpu)
    recorder = Recorder()
    assert run._choose_device("auto", recorder).name == "cpu"
    assert recorder.notes == ["device auto takes the CPU: this machine shows none"]
    with pytest.raises(DeviceError):
        run._choose_device("gpu", recorder)


def test_the_precision_is_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_gpu(name: str, precision: str | None = None) -> Any:
        return SimpleNamespace(precision=precision or "tf32") if name == "gpu" else get_device(name)

    monkeypatch.setattr(run, "get_device", with_gpu)
    for chosen in (None, "fp32"):
        for name in ("auto", "gpu"):
            assert run._choose_device(name, Recorder(), chosen).precision == (chosen or "tf32")
    assert run._choose_device("cpu", Recorder()).precision == "fp32"


@pytest.mark.parametrize("broken", [False, True])
def test_without_matplotlib_a_note_names_the_extra(
    broken: bool, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    if broken:
        packages = tmp_path_factory.mktemp("packages")
        (packages / "matplotlib.py").write_text("raise ImportError('libpng is not there')\n")
        monkeypatch.syspath_prepend(packages)
    else:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
    recorder = Recorder()
    assert run_experiment(configure(**DIGITS, output=tmp_path), recorder).final is not None
    assert len(recorder.notes) == 1
    assert "pip install scratchnet[plot]" in recorder.notes[0]
    assert sorted(os.listdir(tmp_path)) == sorted([*EVERY_EPOCH, "predictions.safetensors"])


@pytest.mark.slow
def test_one_epoch_of_the_first_report_on_cifar100(tmp_path: Path) -> None:
    if "SCRATCHNET_DATA" not in os.environ:
        pytest.skip("SCRATCHNET_DATA does not say where CIFAR-100 is")
    result = run_experiment(configure(data="cifar100", device="cpu", epochs=1, output=tmp_path))
    assert result.settings.data == "cifar100"
    assert 0.20 < result.epochs[0].test_accuracy < 0.32  # the report: 0.2280
    assert 3.0 < result.epochs[0].test_loss < 3.4  # the report: 3.1932
    assert np.loadtxt(tmp_path / "confusion.csv", delimiter=",").shape == (100, 100)


@pytest.mark.gpu
def test_device_auto_takes_the_gpu_with_one_worker(tmp_path: Path) -> None:
    on_gpu = run_experiment(configure(**DIGITS | {"device": "auto", "workers": 2}, output=tmp_path / "gpu"))
    on_cpu = run_experiment(configure(**DIGITS, output=tmp_path / "cpu"))
    assert (on_gpu.settings.device, on_gpu.settings.workers) == ("gpu", 1)
    assert set(on_gpu.versions) == {*on_cpu.versions, "cupy"}
    assert on_gpu.epochs[0].train_loss == pytest.approx(on_cpu.epochs[0].train_loss, rel=0.02)
