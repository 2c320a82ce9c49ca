import io
import os
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchnet.data import cifar100, unpickle
from scratchnet.data.cifar100 import python_names, python_records
from scratchnet.data.unpickle import read_pickle
from tests.data.synthetic import PICKLES, python3_pickle

PIXELS = np.random.default_rng(3).integers(256, size=(2, 3072), dtype=np.uint8)
CONTENT = {"data": PIXELS, "fine_labels": [1, 200], "coarse_labels": [75, 40]}  # of which two are opcodes: K and (
REFUSED = KeyError, TypeError, ValueError  # what `read_cifar100` makes a DataError of


class Call:
    """An object whose pickle calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def text_keys(content: dict[str, object]) -> bytes:
    """As Python 3 writes what it has read with the encoding latin1."""
    return pickle.dumps(content, protocol=2)


WRITERS = {**PICKLES, "text": text_keys}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("data_first", [True, False])
def test_reads_arrays_and_labels(writer: str, data_first: bool) -> None:
    content = {**CONTENT, "filenames": ["a", "bc"], "batch_label": "b"}
    content = content if data_first else dict(reversed(content.items()))
    records = python_records(WRITERS[writer](content))
    np.testing.assert_array_equal(records, np.column_stack([[75, 40], [1, 200], PIXELS]).astype(np.uint8), strict=True)


@pytest.mark.parametrize("writer", WRITERS)
def test_reads_names(writer: str) -> None:
    pickled = WRITERS[writer]({"fine_label_names": ["a", "bc"], "coarse_label_names": ["d"]})
    assert python_names(pickled) == [["a", "bc"], ["d"]]


def test_many_labels() -> None:
    labels = np.random.default_rng(5).integers(256, size=3_500).tolist()  # pickled in pieces of 1000
    for write in WRITERS.values():
        assert read_pickle(write({"fine_labels": labels})) == {b"fine_labels": labels}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("call", ["system", "open"])
def test_a_pickle_that_would_run_code(tmp_path: Path, protocol: int, call: str) -> None:
    evidence = tmp_path / "evidence"
    payload = Call(os.system, f"touch {evidence}") if call == "system" else Call(open, str(evidence), "w")
    pickled = pickle.dumps({"data": payload}, protocol)
    with pytest.raises(REFUSED):
        python_records(pickled)
    assert not evidence.exists()


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (Call(os.system, "true"), r"c(posix|nt)\\nsystem"),
        (Call(eval, "1 + 1"), r"c__builtin__\\neval"),
        (Call(getattr, "", "join"), r"c__builtin__\\ngetattr"),
        (np.float64, r"cnumpy\\nfloat64"),
        (io.BytesIO, r"c_io\\nBytesIO"),
    ],
    ids=["system", "eval", "getattr", "float64", "BytesIO"],
)
def test_says_what_the_pickle_asks_for(payload: Any, name: str) -> None:
    with pytest.raises(ValueError, match=rf"CIFAR-100 has no b'{name}.* in a pickle of protocol 2"):
        read_pickle(pickle.dumps({"data": payload}, protocol=2))


@pytest.mark.parametrize(
    "array",
    [
        np.array([Call(os.system, "true")], dtype=object), np.zeros((2, 384)), PIXELS.astype(np.int8), np.array(["a"]),
        np.zeros(2, [("field", np.uint8)]), np.zeros(2, "datetime64[s]"),
    ],
    ids=lambda array: str(array.dtype),
)  # fmt: skip
def test_other_types_of_array(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"its data are not 3,072 bytes an image|is not in list|CIFAR-100 has no"):
        python_records(python3_pickle({**CONTENT, "data": array}))


class ArrayOfShape:
    """An object whose pickle is that of an array of 6,144 bytes and any shape."""

    def __init__(self, shape: tuple[Any, ...]) -> None:
        self.shape = shape

    def __reduce__(self) -> Any:
        reconstruct = PIXELS.__reduce__()[0]
        return reconstruct, (np.ndarray, (0,), b"b"), (1, self.shape, PIXELS.dtype, False, PIXELS.tobytes())


def test_a_shape_that_fits_the_bytes() -> None:
    assert python_records(python3_pickle({**CONTENT, "data": ArrayOfShape((2, 3072))})).shape == (2, 3074)


@pytest.mark.parametrize(
    "shape",
    [(10**6, 3072), (-2, 3072), (3, 2048), (2, 1, 3072), (6144,), (-1, -1), (1,) * 100, ("2", "3072"), (2.0, 3072.0)],
)
def test_shapes_that_do_not_fit_the_bytes(shape: tuple[Any, ...]) -> None:
    with pytest.raises(REFUSED):
        python_records(python3_pickle({**CONTENT, "data": ArrayOfShape(shape)}))


@pytest.mark.parametrize(
    "opcodes",
    [
        b"Nr" + struct.pack("<I", 2**24),  # a memo of millions of entries
        b"\x96" + struct.pack("<Q", 2**27),  # a bytearray of 128 MiB
        b"\x8e" + struct.pack("<Q", 2**27),  # bytes of 128 MiB
        b"T" + struct.pack("<i", 2**27),  # a string of 128 MiB
        b"T" + struct.pack("<i", -1),  # a string of negative length
        b"\x82\x01",  # an object of the extension registry
        b"Pname\n",  # a persistent object
    ],
    ids=["memo", "bytearray", "bytes", "string", "negative", "extension", "persistent"],
)
def test_a_few_bytes_cannot_take_much_memory(opcodes: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(REFUSED):
            python_records(b"\x80\x02" + opcodes + b".")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10**6


def test_too_many_opcodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpickle, "MAX_OPCODES", 1000)
    assert read_pickle(b"\x80\x02" + b"]" * 997 + b".") == {}
    with pytest.raises(ValueError, match="CIFAR-100 has no more than 1,000 opcodes"):
        read_pickle(b"\x80\x02" + b"]" * 999 + b".")


def test_a_cifar100_has_not_too_many_opcodes() -> None:
    images = 600
    names = [f"image_{number}.png" for number in range(images)]
    content = {"filenames": names, "fine_labels": [200] * images, "coarse_labels": [19] * images}
    opcodes = sum(1 for _ in pickle_opcodes(python3_pickle(content)))
    assert opcodes * 50_000 / images < unpickle.MAX_OPCODES


def pickle_opcodes(pickled: bytes) -> Any:
    import pickletools

    return pickletools.genops(pickled)


@pytest.mark.parametrize(("protocol", "opcode"), [(0, "cnumpy"), (1, "I2"), (3, "C"), (4, r"\\x95"), (5, r"\\x95")])
def test_other_protocols(protocol: int, opcode: str) -> None:
    with pytest.raises(ValueError, match=r"CIFAR-100 has no b.* in a pickle of protocol 2"):
        python_records(pickle.dumps(CONTENT, protocol))


def test_text_beyond_latin_1() -> None:
    with pytest.raises(ValueError, match="text beyond latin-1"):
        python_names(text_keys({"fine_label_names": ["\u0151"], "coarse_label_names": []}))


@pytest.mark.parametrize("content", [[], {}, None, {b"data": 1}, {b"data": {}}, {b"data": None}], ids=str)
def test_other_contents(content: object) -> None:
    for read in python_records, python_names:
        with pytest.raises(REFUSED):
            read(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("writer", WRITERS)
def test_a_truncated_pickle(writer: str) -> None:
    pickled = WRITERS[writer](CONTENT)
    for length in (*range(400), *range(400, len(pickled), 97), *range(len(pickled) - 300, len(pickled))):
        with pytest.raises(ValueError, match=r"CIFAR-100 has no b|can't decode byte"):
            python_records(pickled[:length])


@given(writer=st.sampled_from(list(WRITERS)), position=st.integers(0, 250), value=st.binary(min_size=1, max_size=4))
def test_a_changed_pickle_raises_nothing_else(writer: str, position: int, value: bytes) -> None:
    pickled = WRITERS[writer](CONTENT)
    try:
        records = python_records(pickled[:position] + value + pickled[position + len(value) :])
    except REFUSED:
        return
    assert records.dtype == np.uint8
    assert records.shape == (2, 2 + cifar100.IMAGE_BYTES)
