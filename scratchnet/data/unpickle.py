"""A restricted unpickler that admits nothing but what the files of CIFAR-100's Python version contain.

The few globals that a pickled array names are answered by stand-ins which only keep what they are given: while a pickle
is read, no code of NumPy or of the standard library runs on its behalf, and nothing is allocated that it does not hold.
"""

import pickle
import reprlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from scratchnet.errors import DataError

MAX_READS = 1_500_000  # where Python 3 pickled CIFAR-100's 50,000 images and their file names, it takes 950,480 reads
MAX_NAME_BYTES = 100


def load_pickle(data: bytes | bytearray, keys: Sequence[str], where: str) -> list[Any]:
    """The values that a pickled dictionary has for `keys`: uint8 arrays, and lists with all bytes decoded to str.

    Raises DataError for a pickle that is damaged, lacks a key, or asks for more than arrays, lists, numbers and text.
    """
    try:
        content = _Unpickler(_Input(data), encoding="bytes").load()
        values = {_text(key): value for key, value in content.items()}
        return [_plain(values[key]) for key in keys]
    except DataError as error:
        raise DataError(f"{where} {error}") from error
    except Exception as error:  # a hostile or damaged pickle may raise anything
        problem = f"{type(error).__name__}: {reprlib.repr(str(error))}"
        raise DataError(f"{where} is no pickle of CIFAR-100 or is damaged ({problem})") from error


class _Input:
    """The bytes of a pickle, in no more pieces than CIFAR-100 has: one byte can ask for an object of a hundred."""

    def __init__(self, data: bytes | bytearray) -> None:
        self.data = memoryview(data)
        self.start = 0
        self.reads = 0

    def read(self, size: int) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS:
            raise DataError(f"has more than {MAX_READS:,} parts, which CIFAR-100 does not have")
        piece = bytes(self.data[self.start : self.start + size])
        self.start += len(piece)
        return piece

    def readline(self) -> bytes:
        """A line, or so much of it that no name a pickle may ask for is that long."""
        line, newline, _ = bytes(self.data[self.start : self.start + MAX_NAME_BYTES]).partition(b"\n")
        self.start += len(line + newline)
        return line + newline


class _Array:
    """A pickled array that is not an array yet."""

    state: Any

    def to_numpy(self) -> np.ndarray:
        _, shape, _, fortran_order, data = self.state
        pixels = data if isinstance(data, bytes) else data.encode("latin-1")
        return np.frombuffer(pixels, np.uint8).reshape(shape, order="F" if fortran_order else "C")


def _encode(text: object, encoding: object) -> object:
    """`_codecs.encode(text, "latin1")`, by which Python 3 writes bytes: keeps the text."""
    if encoding != "latin1":
        raise DataError(f"asks for the encoding {_text(encoding)!r}, which CIFAR-100 does not contain")
    return text


def _dtype(code: object, *flags: object) -> None:
    """`numpy.dtype("u1", ...)`: there is but one type of array in CIFAR-100, so there is nothing to keep."""
    if _text(code) != "u1":
        raise DataError(f"asks for an array of type {_text(code)!r}, which CIFAR-100 does not contain")


def _reconstruct(subtype: object, shape: object, code: object) -> _Array:
    """`numpy.core.multiarray._reconstruct(...)`: an empty array, to be filled by its state."""
    return _Array()


_STAND_INS = {
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): _dtype,
    ("numpy", "ndarray"): None,  # a pickle only names it
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,  # as NumPy 1 writes it, and the official files
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # as NumPy 2 writes it
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


class _Dict(dict[Any, Any]):
    """A dictionary whose keys are text: the hash of deeply nested tuples overflows the interpreter's stack."""

    __slots__ = ()

    def __setitem__(self, key: object, value: object) -> None:
        if not isinstance(key, str | bytes):
            raise DataError(f"is corrupted: a key is of type {type(key).__name__}")
        super().__setitem__(key, value)


class _Unpickler(pickle._Unpickler):
    # The unpickler written in Python, not the one in C: six bytes make that one allocate gigabytes for its memo. Its
    # table of opcodes can be cut down too, here to those of protocol 2 that write dictionaries, lists and arrays.
    dispatch = _Dispatch({code: pickle._Unpickler.dispatch[code] for code in _OPCODES})

    stack: list[Any]
    append: Callable[[object], None]
    read: Callable[[int], bytes]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise DataError(f"asks for {reprlib.repr(f'{module}.{name}')}, which CIFAR-100 does not contain")
        return _STAND_INS[module, name]

    def load_empty_dictionary(self) -> None:
        self.append(_Dict())

    def load_binunicode(self) -> None:
        text = self.read(int.from_bytes(self.read(4), "little"))
        # In UTF-8, latin-1 has no byte above C3. One character beyond it, and the whole text takes four times the room.
        if not text.isascii() and np.frombuffer(text, np.uint8).max() > 0xC3:
            raise DataError("has text beyond latin-1, which CIFAR-100 does not contain")
        self.append(text.decode())

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        if not isinstance(arguments, tuple):  # of a text, each character would become an argument
            raise DataError("calls a function with arguments that are no tuple")
        self.stack[-1] = self.stack[-1](*arguments)

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, _Array):
            target.state = state
        elif target is not None:  # what stands for a type, whose byte order and fields single bytes do not have
            raise DataError(f"gives a state to a value of type {type(target).__name__}")

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.EMPTY_DICT[0]] = load_empty_dictionary
    dispatch[pickle.BINUNICODE[0]] = load_binunicode
    dispatch[pickle.REDUCE[0]] = load_reduce


def _text(value: Any) -> Any:
    """Bytes as text; text and integers as they are. DataError for anything that is long or may be nested."""
    if not isinstance(value, str | bytes | int) or (isinstance(value, str | bytes) and len(value) > MAX_NAME_BYTES):
        raise DataError(f"is corrupted: a long or nested {type(value).__name__} is where a name or a number belongs")
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _plain(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.to_numpy()
    if isinstance(value, list):
        return [_text(item) for item in value]
    raise TypeError(f"a value is of type {type(value).__name__}")
