"""Whatever a file holds, its reader returns or raises its documented error, and does nothing else."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save

from scratchnet.errors import ScratchnetError
from scratchnet.experiments.artifacts import tensors, write
from scratchnet.experiments.reading import Damaged, read_json, read_tensors
from scratchnet.experiments.result import METRICS, PREDICTIONS, Metrics, Names, Result
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


NAMES = Names(["é", "bc"], [])
ARRAYS = {
    "conv2d/kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4), "scalar": np.array(1.5),
    "none": np.zeros((0, 2)), "fortran": np.asfortranarray(np.eye(2, 3, 1)), "strided": np.arange(6)[::2],
    "yes": np.array([True, False]),
}  # fmt: skip


def test_a_record_and_arrays_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(tensors(NAMES, ARRAYS))
    record, read = read_tensors(path, Names)
    assert record == NAMES
    assert set(read) == set(ARRAYS)
    for found in (read, load_file(path)):  # by safetensors' own reader, too
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(found[name], array, strict=True)


def test_the_same_content_is_the_same_bytes() -> None:
    assert len({tensors(NAMES, ARRAYS) for _ in range(10)}) == 1


@pytest.mark.parametrize("kind", ["record", "name", "type", "shape", "value"])
def test_every_change_is_noticed(kind: str, tmp_path: Path) -> None:
    path, content = tmp_path / "a.safetensors", tensors(NAMES, ARRAYS)
    old, new = {
        "record": (b'bc\\"', b'bd\\"'), "name": (b"strided", b"stripes"), "type": (b'"I64"', b'"U64"'),
        "shape": (b"[2,3,4]", b"[3,2,4]"), "value": (np.float32(23).tobytes(), np.float32(24).tobytes()),
    }[kind]  # fmt: skip
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    with pytest.raises(Damaged, match=r"a\.safetensors cannot be read .it is damaged in its .*: put it back intact"):
        read_tensors(path, Names)


def test_other_safetensors_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(1000))
    with pytest.raises(Damaged, match=r"a cannot be read \(it is no safetensors file, and this version of scratchnet "):
        read_tensors(path, Names)
    path.write_bytes(save({"a": np.zeros(3)}))
    with pytest.raises(Damaged, match=r"a cannot be read \(.*missing required field `__metadata__`\): put it back"):
        read_tensors(path, Names)


def test_what_is_larger_than_allowed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(tensors(NAMES, {"a": np.zeros(3)}))
    read_tensors(path, Names, lambda names: 12 * len(names.classes))
    with pytest.raises(Damaged, match=r"it has 24 bytes of arrays, more than 22\)"):
        read_tensors(path, Names, lambda names: 11 * len(names.classes))
    (tmp_path / "b").write_bytes(b" " * 4_000_001)
    with pytest.raises(Damaged, match=r"it has 4,000,001 bytes, more than 4,000,000\)"):
        read_json(tmp_path / "b", Names)


@pytest.mark.parametrize("text", ["NaN", "[1, -Infinity]", "1e999", '"\\', "[" * 2000, "9" * 5000, "é"])
def test_json_that_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / METRICS
    path.write_text(text, encoding="latin-1")
    with pytest.raises(Damaged, match=r"metrics\.json cannot be read .*: put it back intact, or remove it"):
        read_json(path, Metrics)
    with pytest.raises(Damaged, match=r"metrics\.json cannot be read .*: put it back intact, or remove it"):
        read_json(path, object)


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {}}, {"settings": {"recipe": 5}}, {"settings": {"seed": True}}, {"settings": {"workers": 1.0}},
        {"settings": {"learning_rate": 10**400}}, {"settings": {"temperature": "warm"}},
        {"settings": {"temperature": [1]}}, {"settings": {"temperature": None}}, {"settings": {"recipe": "none"}},
        {"settings": {"more": 1}}, {"versions": ["2.4"]}, {"versions": {"numpy": 2}}, {"epochs": [5]},
        {"epochs": {}, "final": 1}, {"epochs": [{"epoch": 1}]}, {"epochs": []}, {"final": {}},
        {"final": {"accuracy": 1.0}}, {"final": None, "predictions": 1, "epochs": 0}, {"predictions": None},
        {"more": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_result_of_other_types(tmp_path: Path, change: dict[str, object]) -> None:
    reader = READERS[METRICS]
    content = json.loads(reader.seeds[0])
    if isinstance(settings := change.get("settings"), dict) and settings:
        change = {"settings": content["settings"] | settings}
    write(tmp_path, {**reader.others, reader.file: json.dumps(content | change).encode()})
    with pytest.raises(ScratchnetError, match=r"does not hold the files of a run .*: remove the folder, and"):
        Result.read(tmp_path)


def test_a_result_may_have_figures_of_a_later_version(tmp_path: Path) -> None:
    reader = READERS[METRICS]
    content = json.loads(reader.seeds[0])
    content["final"]["superclass_accuracy"] = 0.25
    write(tmp_path, {**reader.others, reader.file: json.dumps(content).encode()})
    result = Result.read(tmp_path)
    assert result.final is not None
    assert result.final["superclass_accuracy"] == 0.25


@pytest.mark.parametrize(
    "change",
    [
        {"labels": np.array([0, 2])}, {"labels": np.array([-1, 0])}, {"labels": np.array([0])},
        {"labels": np.array([0.0, 1.0])}, {"logits": np.array([[0, np.nan], [1, 0]])}, {"logits": np.zeros(2)},
        {"classes": ["a"]}, {"classes": [1, 2]}, {"superclasses": np.array([0, 1])}, {"superclasses": np.array([0])},
        {"groups": []}, {"more": np.zeros(2)}, {"logits": None},
        {"\x1b[2J" + 9000 * "l": np.zeros(2)},
    ],
    ids=lambda change: next(iter(change))[:12].encode("unicode_escape").decode(),
)  # fmt: skip
def test_predictions_that_do_not_fit_together(tmp_path: Path, change: dict[str, Any]) -> None:
    reader = READERS[PREDICTIONS]
    write(tmp_path, reader.others)
    names, arrays = read_tensors(tmp_path / reader.file, Names)
    record = {"classes": change.pop("classes", names.classes), "superclasses": change.pop("groups", names.superclasses)}
    kept = {name: array for name, array in (arrays | change).items() if array is not None}
    write(tmp_path, {reader.file: tensors(record, kept)})
    with pytest.raises(ScratchnetError, match=r"does not hold the files of a run .*: remove the folder, and") as caught:
        Result.read(tmp_path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("read", [read_json, read_tensors])
def test_a_file_that_is_not_there(tmp_path: Path, read: Callable[..., Any]) -> None:
    with pytest.raises(Damaged, match=r"nothing cannot be read .FileNotFoundError: .*: put it back"):
        read(tmp_path / "nothing", Names)
