"""A restricted unpickler that admits nothing but what the files of CIFAR-100's Python version contain.

The few globals that a pickled array names are answered by stand-ins which only keep what they are given: while a pickle
is read, no code of NumPy or of the standard library runs on its behalf, and nothing is allocated that it does not hold.
"""

import io
import pickle
import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from scratchnet.errors import DataError


def load_pickle(data: bytes | bytearray, keys: Sequence[str], where: str) -> list[Any]:
    """The values that a pickled dictionary has for `keys`: uint8 arrays, and lists with all bytes decoded to str.

    Raises DataError for a pickle that is damaged, lacks a key, or asks for more than arrays, lists, numbers and text.
    """
    try:
        content = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        values = {_text(key): value for key, value in content.items()}
        return [_plain(values[key]) for key in keys]
    except DataError as error:
        raise DataError(f"{where} {error}") from error
    except Exception as error:  # a hostile or damaged pickle may raise anything
        problem = f"{type(error).__name__}: {reprlib.repr(str(error))}"
        raise DataError(f"{where} is no pickle of CIFAR-100 or is damaged ({problem})") from error


class _Encode:
    """`_codecs.encode(text, "latin1")`, by which Python 3 writes bytes: keeps the text."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> str:
        if encoding != "latin1":
            raise DataError(f"asks for the encoding {reprlib.repr(encoding)}, which CIFAR-100 does not contain")
        return text


class _Dtype:
    """`numpy.dtype("u1", ...)` and its result: the one type of array that CIFAR-100 contains."""

    __slots__ = ()

    def __call__(self, code: object, *flags: object) -> "_Dtype":
        if _text(code) != "u1":
            raise DataError(f"asks for an array of type {reprlib.repr(code)}, which CIFAR-100 does not contain")
        return self

    def __setstate__(self, state: object) -> None:
        """Byte order and fields, which single bytes do not have."""


class _Subtype:
    """`numpy.ndarray`, which a pickle only names."""

    __slots__ = ()


class _Array:
    """A pickled array that is not an array yet."""

    __slots__ = ("state",)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def to_numpy(self) -> np.ndarray:
        _, shape, _, fortran_order, data = self.state
        pixels = data if isinstance(data, bytes) else data.encode("latin-1")
        return np.frombuffer(pixels, np.uint8).reshape(shape, order="F" if fortran_order else "C")


class _Reconstruct:
    """`numpy.core.multiarray._reconstruct(subtype, shape, code)`: an empty array, to be filled by its state."""

    __slots__ = ()

    def __call__(self, subtype: object, shape: object, code: object) -> _Array:
        return _Array()


# Instances without attributes: a pickle can set attributes on whatever it is given, were there any.
_STAND_INS = {
    ("_codecs", "encode"): _Encode(),
    ("numpy", "dtype"): _Dtype(),
    ("numpy", "ndarray"): _Subtype(),
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct(),  # as NumPy 1 writes it, and the official files
    ("numpy._core.multiarray", "_reconstruct"): _Reconstruct(),  # as NumPy 2 writes it
}

_OPCODES = (
    pickle.PROTO + pickle.STOP + pickle.MARK + pickle.GLOBAL + pickle.REDUCE + pickle.BUILD
    + pickle.BINPUT + pickle.LONG_BINPUT + pickle.BINGET + pickle.LONG_BINGET
    + pickle.EMPTY_DICT + pickle.SETITEM + pickle.SETITEMS + pickle.EMPTY_LIST + pickle.APPEND + pickle.APPENDS
    + pickle.EMPTY_TUPLE + pickle.TUPLE + pickle.TUPLE1 + pickle.TUPLE2 + pickle.TUPLE3
    + pickle.BINSTRING + pickle.SHORT_BINSTRING + pickle.BINUNICODE
    + pickle.BININT + pickle.BININT1 + pickle.BININT2 + pickle.NONE + pickle.NEWTRUE + pickle.NEWFALSE
)  # fmt: skip


class _Dispatch(dict[int, Any]):
    def __missing__(self, opcode: int) -> Any:
        raise DataError(f"has the pickle opcode {opcode}, which CIFAR-100, in pickle protocol 2, does not contain")


class _Unpickler(pickle._Unpickler):
    # The unpickler written in Python, not the one in C: six bytes make that one allocate gigabytes for its memo. Its
    # table of opcodes can be cut down too, here to those of protocol 2 that write dictionaries, lists and arrays.
    dispatch = _Dispatch({code: pickle._Unpickler.dispatch[code] for code in _OPCODES})

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise DataError(f"asks for {reprlib.repr(f'{module}.{name}')}, which CIFAR-100 does not contain")
        return _STAND_INS[module, name]


def _text(value: Any) -> Any:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _plain(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.to_numpy()
    if isinstance(value, list):
        return [_text(item) for item in value]
    raise TypeError(f"a value is of type {type(value).__name__}")
