"""The checkpoint's file: complete at every moment, refused when damaged or foreign, and never trusted with memory."""

import os
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from scratchnet import Adam, BatchNormalization, SoftmaxCrossEntropy
from scratchnet.errors import ScratchnetError
from scratchnet.experiments import artifacts, configure
from scratchnet.experiments.checkpoint import NAME, PREVIOUS, Checkpoint, Checkpoints
from scratchnet.experiments.reading import MAX_JSON_BYTES, Damaged, read_tensors
from scratchnet.experiments.result import Epoch, Result
from scratchnet.training import Progress, Trainer
from tests.fuzz.mutations import sealed
from tests.training.problem import dataset, network

EPOCHS = 5


class Run:
    """A run of a small network on which checkpoints are saved and loaded, without the training."""

    def __init__(self, folder: Path, trainer: Trainer) -> None:
        self.folder, self.trainer, self.notes = folder, trainer, []  # type: ignore[var-annotated]
        config = configure(epochs=EPOCHS, output=folder)
        self.result = Result(replace(config.settings, data="corners"), {"numpy": "2.4", "blas": "b"})
        self.checkpoints = Checkpoints(config)

    def at(self, epoch: int, steps: int) -> "Run":
        """Give everything that a checkpoint holds a content of this moment's own."""
        source = np.random.default_rng(10 * epoch + steps)
        state = {name: source.standard_normal(array.size) for name, array in self.trainer.state().items()}
        self.trainer.restore(state, Progress(epoch, steps, float(source.uniform()) / 3, 7, 0.1 * epoch))
        self.result.epochs = [Epoch(number, *source.uniform(size=6).tolist()) for number in range(1, epoch)]
        return self

    def save(self) -> None:
        self.checkpoints.save(self.result, self.trainer)

    def load(self, folder: Path | None = None) -> None:
        self.checkpoints = Checkpoints(configure(epochs=EPOCHS, output=folder or self.folder))
        self.checkpoints.load(self.result, self.trainer, self.notes.append)

    def content(self) -> Any:
        state = {name: array.tobytes() for name, array in self.trainer.state().items()}
        return state, repr(self.trainer.progress), list(self.result.epochs)


@pytest.fixture(scope="module")
def trainer() -> Iterator[Trainer]:
    net = network(BatchNormalization())
    with Trainer(net, SoftmaxCrossEntropy(), Adam(), dataset(), batch_size=32, workers=1) as trainer:
        yield trainer


@pytest.fixture
def run(tmp_path: Path, trainer: Trainer) -> Run:
    return Run(tmp_path, trainer)


@pytest.fixture
def saved(run: Run) -> tuple[Run, Any, Any]:
    """A run with two checkpoints, and their contents: the newest, and the one before."""
    contents = []
    for epoch, steps in (2, 1), (3, 3):
        run.at(epoch, steps).save()
        contents.append(run.content())
    run.at(1, 1)
    return run, contents[1], contents[0]


def test_loading_gives_what_was_saved(saved: tuple[Run, Any, Any]) -> None:
    run, newest, _ = saved
    run.load()
    assert run.content() == newest
    assert run.notes == ["going on after step 9 of 15"]
    assert sorted(os.listdir(run.folder)) == [PREVIOUS, NAME]


def test_the_first_epoch_has_no_history(run: Run) -> None:
    run.at(1, 2).save()
    expected = run.content()
    run.at(2, 2).load()
    assert run.content() == expected
    assert run.result.epochs == []


def test_a_folder_without_checkpoint_is_no_error(run: Run) -> None:
    run.load()
    assert run.notes == [f"no checkpoint in {run.folder}: starting from the beginning"]
    assert not run.checkpoints.unfinished()


@pytest.mark.parametrize("damaged", [False, True])
def test_at_every_moment_of_saving_there_is_a_good_one(
    damaged: bool, saved: tuple[Run, Any, Any], monkeypatch: Any
) -> None:
    """The folder is copied around each system call, as a kill would leave it there."""
    run, *contents = saved
    if damaged:
        os.truncate(run.folder / NAME, 3000)
    run.load()
    next_one, moments = run.at(4, 1).content(), []

    def copy_folder() -> None:
        moments.append(shutil.copytree(run.folder, run.folder.with_name(f"{run.folder.name} {len(moments)}")))

    def around(name: str, function: Callable[..., Any]) -> None:
        def called(*arguments: Any) -> Any:
            copy_folder()
            result = function(*arguments)
            copy_folder()
            return result

        monkeypatch.setattr(os, name, called)

    with monkeypatch.context() as monkeypatch:
        for name in "fsync", "replace":
            around(name, getattr(os, name))
        run.save()
    found = []
    for moment in moments:
        run.at(1, 1).load(moment)
        found.append([contents[damaged], next_one].index(run.content()))
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0, 1)
    assert len(found) == (6 if damaged else 8)  # file, unless damaged old one aside, new one in place, folder


def damages(content: bytes) -> Iterator[bytes]:
    """Cut off at every length of the header and some others, one byte too many, and with single bits flipped."""
    size, chance = 8 + int.from_bytes(content[:8], "little"), np.random.default_rng(0)
    places = chance.integers(size, len(content), 100).tolist()
    yield from (content[:place] for place in [*range(size + 1), *places])
    yield content + b"\0"
    for place in [*range(size), *places]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(chance.integers(8))
        yield bytes(flipped)


def test_where_the_newest_is_damaged_the_one_before_serves(saved: tuple[Run, Any, Any]) -> None:
    run, _, previous = saved
    original, count = (run.folder / NAME).read_bytes(), 0
    for count, content in enumerate(damages(original)):
        (run.folder / NAME).write_bytes(content)
        run.notes.clear()
        if count % 100 == 0:
            run.at(1, 1)
        run.load()
        assert run.content() == previous
        assert run.notes[0].startswith(f"{NAME}: ")
        assert run.notes[0].endswith(": the checkpoint before it is taken")
    assert count > 1500
    run.at(4, 1).save()
    assert (run.folder / NAME).read_bytes() != original
    run.load()  # and the next one replaces the damaged one, not the good one
    assert run.trainer.progress.epoch == 4


def test_where_all_are_damaged_nothing_is_changed(saved: tuple[Run, Any, Any]) -> None:
    run, *_ = saved
    for name in NAME, PREVIOUS:
        os.truncate(run.folder / name, 3000)
    before = run.content()
    with pytest.raises(ScratchnetError) as caught:
        run.load()
    assert str(caught.value).startswith(f"cannot resume, as no checkpoint in {run.folder} is usable ({NAME}: ")
    assert str(caught.value).endswith("remove them to start from the beginning, or choose another folder with --output")
    assert run.content() == before


def test_another_version_is_told(saved: tuple[Run, Any, Any]) -> None:
    run, newest, _ = saved
    run.result.versions["numpy"] = "2.5"
    run.load()
    assert run.content() == newest
    assert run.notes[0] == "the checkpoint was made with another version of numpy: the bits may differ"


def header(path: Path) -> dict[str, Any]:
    return msgspec.to_builtins(read_tensors(path, Checkpoint)[0])


def forge(run: Run, change: dict[str, Any]) -> None:
    """A newest checkpoint with whatever header a stranger likes, and the right sums."""
    _, arrays = read_tensors(run.folder / NAME, Checkpoint)
    (run.folder / NAME).write_bytes(sealed(msgspec.json.encode(header(run.folder / NAME) | change), arrays))


EPOCH = {name: 1.0 for name in vars(Epoch(*range(7)))}
PROGRESS = {"epoch": 3, "steps": 3, "loss": 1.0, "correct": 7, "seconds": 1.0}


@pytest.mark.parametrize(
    "change",
    [
        {"metrics": None}, {"metrics": {}}, {"progress": []}, {"finished": 1}, {"more": 1},
        *(
            {"progress": PROGRESS | change}
            for change in (
                {"epoch": 0}, {"epoch": 4}, {"epoch": 6}, {"epoch": 10**400}, {"epoch": True}, {"steps": 0},
                {"steps": 4}, {"steps": 1.0}, {"loss": "1"}, {"loss": None}, {"correct": -1},
                {"correct": 10**400}, {"seconds": -1.0}, {"seconds": "1"}, {"extra": 1},
            )
        ),
    ],
    ids=str,
)  # fmt: skip
def test_a_header_that_scratchnet_did_not_write(change: dict[str, Any], saved: tuple[Run, Any, Any]) -> None:
    run, newest, previous = saved
    forge(run, {"progress": PROGRESS})  # which is possible
    run.load()
    assert (run.content()[0], run.content()[2]) == (newest[0], newest[2])
    forge(run, change)
    run.load()
    assert run.content() == previous


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "-1e999", "9" * 400])
def test_a_number_that_is_not_finite(number: str, saved: tuple[Run, Any, Any]) -> None:
    run, _, previous = saved
    checkpoint, arrays = read_tensors(run.folder / NAME, Checkpoint)
    text = artifacts.json_bytes(checkpoint).decode().replace(repr(checkpoint.progress.loss), number)
    assert number in text
    (run.folder / NAME).write_bytes(sealed(text.encode(), arrays))
    run.load()
    assert run.content() == previous


@pytest.mark.parametrize(
    "change",
    [
        {"seed": -1}, {"seed": None}, {"recipe": "r"}, {"head": "h"}, {"temperature": 1.0}, {"epochs": 0},
        {"device": 1}, {"workers": "2"}, {"data": None}, {"training_images": 1.5}, {"data_digest": []},
        {"colour": "red"},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_scratchnet_did_not_write(change: dict[str, Any], saved: tuple[Run, Any, Any]) -> None:
    run, _, previous = saved
    metrics = header(run.folder / NAME)["metrics"]
    forge(run, {"metrics": metrics | {"settings": metrics["settings"] | change}})
    run.load()
    assert run.content() == previous


@pytest.mark.parametrize("text", [b"", b"[]", b"nothing", b"\xff", b"{}", b"[" * 60000, b"9" * 60000])
def test_a_header_that_is_no_object(text: bytes, run: Run) -> None:
    path = run.folder / NAME
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(Damaged, match="put it back intact, or remove it"):
        read_tensors(path, Checkpoint)
    if text != b"\xff":  # which safetensors would not write
        path.write_bytes(sealed(text, {}))
        with pytest.raises(Damaged, match="put it back intact, or remove it"):
            read_tensors(path, Checkpoint)


@pytest.mark.parametrize("change", [{"epoch": 2}, {"epoch": 1.5}, {"train_loss": "NaN"}, {"colour": 1.0}], ids=str)
def test_a_history_that_cannot_be(change: dict[str, Any], saved: tuple[Run, Any, Any]) -> None:
    run, _, previous = saved
    metrics = header(run.folder / NAME)["metrics"]
    forge(run, {"metrics": metrics | {"epochs": [metrics["epochs"][0] | change, metrics["epochs"][1]]}})
    run.load()
    assert run.content() == previous


def test_nothing_is_read_that_is_larger_than_this_network(saved: tuple[Run, Any, Any]) -> None:
    """A sparse file of a terabyte, whose header tells its size truly."""
    run, *_ = saved
    size = sum(array.nbytes for array in run.trainer.state().values())
    content = (run.folder / NAME).read_bytes()
    length = int.from_bytes(content[:8], "little")
    (run.folder / NAME).write_bytes(content[: 8 + length])
    os.truncate(run.folder / NAME, 1 << 40)
    (run.folder / PREVIOUS).write_bytes((MAX_JSON_BYTES + 1).to_bytes(8, "little"))
    os.truncate(run.folder / PREVIOUS, 1 << 40)
    tracemalloc.start()
    try:
        with pytest.raises(ScratchnetError, match=rf"more than {size:,}; {PREVIOUS}: it is no safetensors file"):
            run.load()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * size + (1 << 20)


def test_arrays_of_another_network_are_refused(saved: tuple[Run, Any, Any]) -> None:
    run, _, previous = saved
    checkpoint, arrays = read_tensors(run.folder / NAME, Checkpoint)
    state = arrays["parameters"]
    for other in (
        {"parameters": state[:-1]}, {"parameters": state.astype(np.float64)}, {"parameters": state[None]},
        {"more": state[:1]}, {"parameters": state.view(np.int32)},
    ):  # fmt: skip
        (run.folder / NAME).write_bytes(artifacts.tensors(checkpoint, arrays | other))
        run.load()
        assert run.content() == previous


def test_a_checkpoint_of_an_earlier_version_is_refused(run: Run) -> None:
    (run.folder / NAME).write_bytes(b"scratchnet checkpoint 1\n" + bytes(1000))
    with pytest.raises(ScratchnetError) as caught:
        run.load()
    assert str(caught.value) == (
        f"cannot resume, as no checkpoint in {run.folder} is usable ({NAME}: it is no safetensors file, and this "
        "version of scratchnet reads no other): remove them to start from the beginning, or choose another folder "
        "with --output"
    )


@pytest.mark.parametrize(("setting", "value"), [("data_digest", "3f2a"), ("training_images", 91), ("data", "faces")])
def test_a_run_on_other_data_is_refused(setting: str, value: Any, saved: tuple[Run, Any, Any]) -> None:
    run, *_ = saved
    run.result.settings = replace(run.result.settings, **{setting: value})
    difference = rf"{setting.replace('_', ' ')} {value} \(.*\)"
    with pytest.raises(ScratchnetError, match=rf"settings .* differ: {difference}; give the same"):
        run.load()
