"""Reads the files of a run, which may come from anywhere: every size is known to be within bounds before it is used."""

import io
import json
import math
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from scratchnet.errors import ScratchnetError

MAX_JSON_BYTES = 4_000_000  # a run's metrics.json has 300 bytes an epoch
MAX_NPZ_BYTES = 400_000_000  # a hundred million weights; the reports' networks have less than one million
MAX_ARRAYS = 1_000
DIRECTORY_ENTRY = b"PK\x01\x02"


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises ScratchnetError where it cannot be read or is none, or has a nan or infinity.

    Takes up to fifty times the memory of the file, which may have four million bytes.
    """
    try:
        text = _read_bytes(path, MAX_JSON_BYTES).decode()
        return json.loads(text, parse_float=_finite, parse_constant=_finite)
    except (OSError, ValueError, RecursionError) as error:
        raise ScratchnetError(f"{path} is no JSON file ({brief(error)}): put it back intact, or remove it") from error


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays, by name, of numbers or text in a file that `numpy.savez` wrote; they cannot be written to.

    Takes twice the memory of the file, which may have 400 million bytes. Raises ScratchnetError where the file cannot
    be read, is damaged, or holds what `savez` does not write: compressed arrays, Python objects, a name twice.
    """
    try:
        data = _read_bytes(path, MAX_NPZ_BYTES)
        if data.count(DIRECTORY_ENTRY) > MAX_ARRAYS:
            raise ValueError(f"it has more than {MAX_ARRAYS:,} arrays")
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ValueError("its arrays are compressed")
            if sum(entry.file_size for entry in entries) > len(data):
                raise ValueError("its arrays are larger than the file")
            arrays = {entry.filename.removesuffix(".npy"): _array(archive.read(entry)) for entry in entries}
        if len(arrays) < len(entries):
            raise ValueError("it has two arrays of one name")
        return arrays
    except Exception as error:  # zipfile, and NumPy's reading of a header, may raise anything
        raise ScratchnetError(f"{path} is no npz file ({brief(error)}): put it back intact, or remove it") from error


def brief(error: Exception) -> str:
    """What went wrong, for a message."""
    return printable(f"{type(error).__name__}: {error}", 200)


def printable(value: object, longest: int) -> str:
    """The first line of a value that a stranger may have written, in ASCII: no message is to control a terminal."""
    return str(value).partition("\n")[0].encode("unicode_escape").decode()[:longest]


def _array(content: bytes) -> np.ndarray:
    """The array in the content of an npy file, as a view of it, which its header must fit to the byte."""
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("an array has a header of another version than 1.0")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.kind not in "biufU" or not dtype.itemsize:
        raise ValueError(f"an array has the type {dtype}")
    if math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise ValueError(f"an array of type {dtype} and shape {shape} does not fit its bytes")
    return np.ndarray(shape, dtype, content, file.tell(), order="F" if fortran_order else "C")


def _read_bytes(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        if (size := os.fstat(file.fileno()).st_size) > limit:
            raise ValueError(f"it has {size:,} bytes, more than {limit:,}")
        return file.read(size)


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError(f"{number} is no finite number")
    return value
