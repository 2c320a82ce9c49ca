"""Whatever a file holds, its reader returns or raises its documented error, and does nothing else."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scratchnet.errors import ScratchnetError
from scratchnet.experiments.artifacts import npz_bytes, write
from scratchnet.experiments.reading import read_json, read_npz
from scratchnet.experiments.result import Result
from tests.fuzz.mutations import mutate
from tests.fuzz.readers import Reader, Room, all_readers

READERS = {reader.name: reader for reader in all_readers()}
fuzzed = settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=READERS.values(), ids=list(READERS))
def room(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Room]:
    room = Room(request.param, tmp_path)
    yield room
    room.close()


@fuzzed
@given(rng=st.randoms(use_true_random=False), changes=st.integers(1, 5), mended=st.booleans())
def test_a_changed_file(room: Room, rng: random.Random, changes: int, mended: bool) -> None:
    reader: Reader = room.reader
    content = rng.choice(reader.seeds)
    for _ in range(changes):
        content = mutate(content, reader.seeds, rng)
    room.try_out(reader.mend(content) if mended else content)


@fuzzed
@given(content=st.binary(max_size=3_000))
def test_any_bytes(room: Room, content: bytes) -> None:
    room.try_out(content)


def test_every_length(room: Room) -> None:
    seed = room.reader.seeds[-1]
    for length in range(0, len(seed), max(1, len(seed) // 100)):
        room.try_out(seed[:length])


def test_an_intact_file_is_read(room: Room) -> None:
    assert [room.try_out(seed) for seed in room.reader.seeds] == ["read"] * len(room.reader.seeds)


@pytest.mark.parametrize(
    "act",
    [
        lambda folder: (folder / "new").write_bytes(b""), lambda folder: (folder / "a").unlink(),
        lambda folder: open("/etc/hostname").close(), lambda folder: exec("1"), lambda folder: __import__("this"),
    ],
    ids=["writes", "deletes", "reads elsewhere", "executes", "imports"],
)  # fmt: skip
def test_what_a_reader_must_not_do_is_noticed(tmp_path: Path, act: object) -> None:
    room = Room(Reader("", "a", [], act, ScratchnetError), tmp_path)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="the reader did"):
        room.try_out(b"")


def test_arrays_are_read_as_numpy_reads_them(tmp_path: Path) -> None:
    arrays = {
        "conv2d/kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4), "scalar": np.array(1.5),
        "none": np.zeros((0, 2)), "fortran": np.asfortranarray(np.eye(2, 3, 1)), "text": np.array(["é", "bc"]),
        "big": np.arange(3, dtype=">i8"), "yes": np.array([True, False]),
    }  # fmt: skip
    path = tmp_path / "weights.npz"
    path.write_bytes(npz_bytes(arrays))
    read = read_npz(path)
    assert list(read) == list(arrays)
    with np.load(path) as expected:
        for name in arrays:
            np.testing.assert_array_equal(read[name], expected[name], strict=True)


def test_compressed_arrays_and_objects_are_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(1000))
    with pytest.raises(ScratchnetError, match=r"a\.npz is no npz file .*arrays are compressed.*: put it back"):
        read_npz(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", a=np.array([None]))
    with pytest.raises(ScratchnetError, match=r"b\.npz is no npz file .*an array has the type object"):
        read_npz(tmp_path / "b.npz")


@pytest.mark.parametrize("text", ["NaN", "[1, -Infinity]", "1e999", '"\\', "[" * 2000, "9" * 5000, "é"])
def test_json_that_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ScratchnetError, match=r"metrics\.json is no JSON file .*: put it back intact, or remove it"):
        read_json(path)


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": 5}, {"seed": True}, {"workers": 1.0}, {"learning_rate": 10**400}, {"temperature": "warm"},
        {"temperature": [1]}, {"versions": ["2.4"]}, {"versions": {"numpy": 2}}, {"epochs": [5]},
        {"epochs": {}, "final": 1}, {"epochs": [{"epoch": 1}]}, {"final": {}},
        {"final": None, "predictions": 1, "epochs": 0}, {"more": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_result_of_other_types(tmp_path: Path, change: dict[str, object]) -> None:
    reader = READERS["metrics.json"]
    write(tmp_path, {**reader.others, reader.file: json.dumps(json.loads(reader.seeds[0]) | change).encode()})
    with pytest.raises(ScratchnetError, match=r"does not hold the files of a run .*: remove the folder, and"):
        Result.read(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"labels": np.array([0, 2])}, {"labels": np.array([-1, 0])}, {"labels": np.array([0])},
        {"labels": np.array([0.0, 1.0])}, {"logits": np.array([[0, np.nan], [1, 0]])}, {"logits": np.zeros(2)},
        {"class_names": np.array(["a"])}, {"class_names": np.zeros(2)}, {"superclasses": np.array([0, 1])},
        {"superclass_names": np.array([], str)}, {"more": np.zeros(2)},
        {"class_names": np.full(2, 0x110000, np.uint32).view("<U1")},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_predictions_that_do_not_fit_together(tmp_path: Path, change: dict[str, np.ndarray]) -> None:
    reader = READERS["predictions.npz"]
    write(tmp_path, reader.others)
    arrays = read_npz(tmp_path / reader.file)
    write(tmp_path, {reader.file: npz_bytes(arrays | change)})
    with pytest.raises(ScratchnetError, match=r"does not hold the files of a run .*: remove the folder, and"):
        Result.read(tmp_path)


@pytest.mark.parametrize("read", [read_json, read_npz])
def test_a_file_that_is_not_there(tmp_path: Path, read: object) -> None:
    with pytest.raises(ScratchnetError, match=r"nothing is no .* file .FileNotFoundError: .*: put it back"):
        read(tmp_path / "nothing")  # type: ignore[operator]
