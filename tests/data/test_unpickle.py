import contextlib
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

from scratchnet.data import unpickle
from scratchnet.data.unpickle import load_pickle
from scratchnet.errors import DataError
from tests.data.synthetic import PICKLES

PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 12) * 10


class Call:
    """An object whose pickle calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def load(pickled: bytes) -> Any:
    return load_pickle(pickled, ("data",), "folder: train")[0]


@pytest.mark.parametrize("writer", PICKLES)
def test_reads_arrays_and_lists(writer: str) -> None:
    pickled = PICKLES[writer]({"data": PIXELS, "other": "text", "fine_labels": [1, 200], "names": ["a", "bc"]})
    pixels, labels, names = load_pickle(pickled, ("data", "fine_labels", "names"), "train")
    np.testing.assert_array_equal(pixels, PIXELS, strict=True)
    assert labels == [1, 200]
    assert names == ["a", "bc"]


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("call", ["system", "open"])
def test_a_pickle_that_would_run_code(tmp_path: Path, protocol: int, call: str) -> None:
    evidence = tmp_path / "evidence"
    payload = Call(os.system, f"touch {evidence}") if call == "system" else Call(open, str(evidence), "w")
    pickled = pickle.dumps({"data": payload}, protocol)
    with pytest.raises(DataError, match="folder: train "):
        load(pickled)
    assert not evidence.exists()


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (Call(os.system, "true"), r"(posix|nt)\.system"),
        (Call(eval, "1 + 1"), r"__builtin__\.eval"),
        (Call(getattr, "", "join"), r"__builtin__\.getattr"),
        (np.float64, r"numpy\.float64"),
        (io.BytesIO, r"_io\.BytesIO"),
    ],
    ids=["system", "eval", "getattr", "float64", "BytesIO"],
)
def test_says_what_the_pickle_asks_for(payload: Any, name: str) -> None:
    with pytest.raises(DataError, match=rf"folder: train asks for '{name}', which CIFAR-100 does not contain"):
        load(pickle.dumps({"data": payload}, protocol=2))


@pytest.mark.parametrize(
    "array",
    [
        np.array([Call(os.system, "true")], dtype=object), np.zeros(2), np.zeros(2, np.int8), np.array(["a"]),
        np.zeros(2, [("field", np.uint8)]), np.zeros(2, "datetime64[s]"),
    ],
    ids=lambda array: str(array.dtype),
)  # fmt: skip
def test_other_types_of_array(array: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"asks for (an array of type|'(posix|nt)\.system')"):
        load(pickle.dumps({b"data": array}, protocol=2))


class ArrayOfShape:
    """An object whose pickle is that of an array of 24 bytes and any shape."""

    def __init__(self, shape: tuple[Any, ...]) -> None:
        self.shape = shape

    def __reduce__(self) -> Any:
        reconstruct = PIXELS.__reduce__()[0]
        return reconstruct, (np.ndarray, (0,), b"b"), (1, self.shape, PIXELS.dtype, False, PIXELS.tobytes())


def test_a_shape_that_fits_the_bytes() -> None:
    assert load(pickle.dumps({b"data": ArrayOfShape((3, 8))}, protocol=2)).shape == (3, 8)


@pytest.mark.parametrize("shape", [(10**6, 10**12), (-5, 5), (2, 11), (-1, -1), (1,) * 100, ("2", "12"), (2.0, 12.0)])
def test_shapes_that_do_not_fit_the_bytes(shape: tuple[Any, ...]) -> None:
    with pytest.raises(DataError, match=r"folder: train (is no pickle of CIFAR-100 or|has the pickle opcode)"):
        load(pickle.dumps({b"data": ArrayOfShape(shape)}, protocol=2))


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
        with pytest.raises(DataError, match=r"folder: train (is no pickle of CIFAR-100 or|has the pickle opcode)"):
            load(b"\x80\x02" + opcodes + b".")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10**6


@pytest.mark.parametrize(("protocol", "opcode"), [(0, 100), (1, 73), (3, 67), (4, 149), (5, 149)])
def test_other_protocols(protocol: int, opcode: int) -> None:
    with pytest.raises(DataError) as caught:
        load(pickle.dumps({b"data": PIXELS}, protocol))
    assert str(caught.value) == (
        f"folder: train has the pickle opcode {opcode}, which CIFAR-100, in pickle protocol 2, does not contain"
    )


@pytest.mark.parametrize("stand_in", unpickle._STAND_INS, ids=str)
@pytest.mark.parametrize("state", [{"attribute": 1}, (None, {"attribute": 1})], ids=["dictionary", "slots"])
def test_a_pickle_leaves_nothing_behind(stand_in: tuple[str, str], state: object) -> None:
    module, name = stand_in
    state_code = pickle.dumps(state, protocol=2)[2:-1]
    with contextlib.suppress(DataError):
        load(b"\x80\x02" + f"c{module}\n{name}\n".encode() + state_code + b"b.")
    assert not hasattr(unpickle._STAND_INS[stand_in], "attribute")


def test_only_an_array_is_given_a_state() -> None:
    with pytest.raises(DataError, match="folder: train gives a state to a value of type function"):
        load(b"\x80\x02c_codecs\nencode\n}U\x01aK\x01sb.")


def test_other_encodings() -> None:
    with pytest.raises(DataError, match="folder: train asks for the encoding 'rot13'"):
        load(b"\x80\x02}U\x04datac_codecs\nencode\nX\x01\0\0\0aX\x05\0\0\0rot13\x86Rs.")


@pytest.mark.parametrize("content", [[], {}, None, {b"data": 1}, {b"data": {}}, {b"data": None}], ids=str)
def test_other_contents(content: object) -> None:
    with pytest.raises(DataError, match="folder: train is no pickle of CIFAR-100 or is damaged"):
        load(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("writer", PICKLES)
def test_a_truncated_pickle(writer: str) -> None:
    pickled = PICKLES[writer]({"data": PIXELS})
    for length in range(len(pickled)):
        with pytest.raises(DataError, match="folder: train "):
            load(pickled[:length])


@given(writer=st.sampled_from(list(PICKLES)), position=st.integers(0, 250), value=st.binary(min_size=1, max_size=4))
def test_a_changed_pickle_raises_nothing_else(writer: str, position: int, value: bytes) -> None:
    pickled = PICKLES[writer]({"data": PIXELS})
    try:
        pixels = load(pickled[:position] + value + pickled[position + len(value) :])
    except DataError:
        return
    assert isinstance(pixels, np.ndarray | list)
