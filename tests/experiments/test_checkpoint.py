"""The checkpoint's file: complete at every moment, refused when damaged or foreign, and never trusted with memory."""

import json
import os
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scratchnet import Adam, BatchNormalization, SoftmaxCrossEntropy
from scratchnet.errors import ScratchnetError
from scratchnet.experiments import configure
from scratchnet.experiments.checkpoint import (
    LONGEST_HEADER,
    MAGIC,
    NAME,
    PREVIOUS,
    Checkpoints,
    Damaged,
    read_arrays,
    read_header,
    to_bytes,
)
from scratchnet.experiments.result import Epoch, Result
from scratchnet.training import Progress, Trainer
from tests.training.problem import dataset, network

EPOCHS, HEADER = 5, len(MAGIC) + 32 + 4


class Run:
    """A run of a small network on which checkpoints are saved and loaded, without the training."""

    def __init__(self, folder: Path, trainer: Trainer) -> None:
        self.folder, self.trainer, self.notes = folder, trainer, []  # type: ignore[var-annotated]
        self.result = Result("r", "softmax", None, 0, "cpu", "corners", 32, 0.001, 1, {"numpy": "2.4", "blas": "b"})
        self.checkpoints = Checkpoints(configure(epochs=EPOCHS, output=folder))

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
    size, chance = int.from_bytes(content[HEADER - 4 : HEADER], "little"), np.random.default_rng(0)
    places = chance.integers(HEADER + size, len(content), 100).tolist()
    yield from (content[:place] for place in [*range(HEADER + size + 1), *places])
    yield content + b"\0"
    for place in [*range(HEADER + size), *places]:
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
        assert run.notes[0].startswith(f"{NAME} ")
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
    assert str(caught.value).startswith(f"cannot resume, as no checkpoint in {run.folder} is usable ({NAME} has ")
    assert str(caught.value).endswith("remove them to start from the beginning, or choose another folder with --output")
    assert run.content() == before


def test_another_version_is_told(saved: tuple[Run, Any, Any]) -> None:
    run, newest, _ = saved
    run.result.versions["numpy"] = "2.5"
    run.load()
    assert run.content() == newest
    assert run.notes[0] == "the checkpoint was made with another version of numpy: the bits may differ"


def forge(run: Run, **changes: Any) -> None:
    """A newest checkpoint with whatever header a stranger likes, and the right sums."""
    with open(run.folder / NAME, "rb") as file:
        header = read_header(file)
        payload = file.read()
    text = json.dumps(header | changes).encode()
    (run.folder / NAME).write_bytes(
        MAGIC + sha256(text).digest() + len(text).to_bytes(4, "little") + text + payload
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": None}, {"versions": 3}, {"epochs": "5"}, {"progress": []}, {"arrays": {}}, {"sha256": 1},
        *(
            {"progress": {"epoch": 3, "steps": 3, "loss": 1.0, "correct": 7, "seconds": 1.0} | change}
            for change in (
                {"epoch": 0}, {"epoch": 4}, {"epoch": 6}, {"epoch": 10**400}, {"epoch": True}, {"steps": 0},
                {"steps": 4}, {"steps": 1.0}, {"loss": float("nan")}, {"loss": 1}, {"loss": None}, {"correct": -1},
                {"correct": 10**400}, {"seconds": float("inf")}, {"seconds": -1.0}, {"seconds": "1"}, {"extra": 1},
            )
        ),
    ],
    ids=str,
)  # fmt: skip
def test_a_header_that_scratchnet_did_not_write(changes: dict[str, Any], saved: tuple[Run, Any, Any]) -> None:
    run, _, previous = saved
    forge(run, **changes)
    run.load()
    assert run.content() == previous


@pytest.mark.parametrize("text", [b"", b"[]", b"nothing", b"\xff", b"{}", b"[" * 60000, b"9" * 60000])
def test_a_header_that_is_no_object(text: bytes, run: Run) -> None:
    path = run.folder / NAME
    path.write_bytes(MAGIC + sha256(text).digest() + len(text).to_bytes(4, "little") + text)
    with open(path, "rb") as file, pytest.raises(Damaged, match="scratchnet did not write"):
        read_header(file)


@pytest.mark.parametrize("history", [[[2.0] * 7], [[1.0] * 6 + [float("nan")]], [[1.5] * 7]])
def test_a_history_that_cannot_be(history: Any, saved: tuple[Run, Any, Any]) -> None:
    run, _, previous = saved
    run.at(2, 2)
    with open(run.folder / PREVIOUS, "rb") as file:
        header = read_header(file)
    for name in "arrays", "sha256":
        del header[name]
    (run.folder / NAME).write_bytes(to_bytes(header, run.trainer.state() | {"history": np.array(history)}))
    run.load()
    assert run.content() == previous


def test_nothing_is_read_that_is_larger_than_this_network(saved: tuple[Run, Any, Any]) -> None:
    """A sparse file of a terabyte, whose header tells its size truly."""
    run, *_ = saved
    arrays = run.trainer.state() | {"history": np.empty((2, 7))}
    described = {name: [array.dtype.str, *array.shape] for name, array in arrays.items()}
    forge(run, arrays=described | {"m": ["<f4", 1 << 38]})
    os.truncate(run.folder / NAME, 1 << 40)
    (run.folder / PREVIOUS).write_bytes(MAGIC + bytes(32) + (LONGEST_HEADER + 1).to_bytes(4, "little"))
    os.truncate(run.folder / PREVIOUS, 1 << 40)
    tracemalloc.start()
    try:
        with pytest.raises(ScratchnetError, match=rf"network needs \d+; {PREVIOUS} has a header of 65537 bytes\)"):
            run.load()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * sum(array.nbytes for array in arrays.values()) + (1 << 20)


def test_arrays_of_another_network_are_refused(saved: tuple[Run, Any, Any]) -> None:
    run, *_ = saved
    like = {"parameters": np.zeros(3, np.float32)}
    with open(run.folder / NAME, "rb") as file, pytest.raises(Damaged, match="where this run's network needs 12"):
        read_arrays(file, read_header(file), like)
