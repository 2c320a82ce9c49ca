"""Arrays in a file that holds no code: the format of safetensors, with a text in its metadata, and digests of both."""

import os
from collections.abc import Mapping
from hashlib import sha256
from typing import BinaryIO, TypedDict

import msgspec
import numpy as np
import safetensors.numpy

MAX_HEADER_BYTES = 4_000_000
MAX_ARRAY_BYTES = 400_000_000  # a hundred million weights; the reports' networks have less than one million
Header = TypedDict("Header", {"__metadata__": dict[str, str]})  # what matters here of a safetensors file's


def sealed(text: str, arrays: Mapping[str, np.ndarray]) -> bytes:
    """The file's content; the text and both digests are one entry, as safetensors writes several in any order."""
    arrays = {name: np.array(array, order="C") for name, array in arrays.items()}
    seal = f"{sha256(text.encode()).hexdigest()} {digest_of_arrays(arrays)} {text}"
    return safetensors.numpy.save(arrays, {"scratchnet": seal})


def digest_of_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """The SHA-256 of their contents, names, types and shapes."""
    found = sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype} {array.shape}".encode())
        found.update(array.data)
    return found.hexdigest()


def read_text(file: BinaryIO) -> tuple[str, str]:
    """The text, and the digest that the arrays are to have; ValueError or another error where there is none."""
    length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER_BYTES:
        raise ValueError("it is no safetensors file, and this version of scratchnet reads no other")
    seal = msgspec.json.decode(file.read(length), type=Header)["__metadata__"]["scratchnet"]
    digest, digest_of_all, text = seal.split(" ", 2)
    if sha256(text.encode()).hexdigest() != digest:
        raise ValueError("it is damaged in its header")
    return text, digest_of_all


def read_arrays(file: BinaryIO, digest: str, most: int = MAX_ARRAY_BYTES) -> dict[str, np.ndarray]:
    """The arrays behind the text, of at most so many bytes and of this digest; ValueError or another error if not."""
    size = os.fstat(file.fileno()).st_size
    if size - file.tell() > most:
        raise ValueError(f"it has {size - file.tell():,} bytes of arrays, more than {most:,}")
    file.seek(0)
    arrays = safetensors.numpy.load(file.read(size))
    if digest_of_arrays(arrays) != digest:
        raise ValueError("it is damaged in its arrays")
    return arrays
