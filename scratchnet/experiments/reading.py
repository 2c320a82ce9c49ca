"""Reads the files of a run, which may come from anywhere: every size is known to be within bounds before it is used."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from scratchnet.errors import ScratchnetError
from scratchnet.sealed import MAX_ARRAY_BYTES, read_arrays, read_text

MAX_JSON_BYTES = 4_000_000  # of a metrics.json, or a header, either of which has 300 bytes an epoch
Record = TypeVar("Record")


class Damaged(ScratchnetError):
    """A file that is not there, or not as scratchnet wrote it; `reason` says why."""

    def __init__(self, path: Path, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{path} cannot be read ({reason}): put it back intact, or remove it")


def read_json(path: Path, kind: type[Record]) -> Record:
    """The record of this kind that a JSON file holds, and nothing else; raises Damaged.

    Takes up to fifty times the memory of the file, which may have four million bytes.
    """
    with _opened(path) as (file, size):
        return _record(file.read(_within(size, MAX_JSON_BYTES, "bytes")), kind)


def read_tensors(
    path: Path, kind: type[Record], room: Callable[[Record], int] = lambda record: MAX_ARRAY_BYTES
) -> tuple[Record, dict[str, np.ndarray]]:
    """The record in the header of a safetensors file that `artifacts.tensors` wrote, and its arrays; raises Damaged.

    `room` says, knowing the record, how many bytes of arrays may be read. Takes twice the memory of the arrays, and up
    to fifty times that of the header, which may have four million bytes.
    """
    with _opened(path) as (file, _):
        text, digest = read_text(file)
        record = _record(text.encode(), kind)
        return record, read_arrays(file, digest, room(record))


def printable(value: object, longest: int) -> str:
    """The first line of a value that a stranger may have written, in ASCII: no message is to control a terminal."""
    return str(value).partition("\n")[0].encode("unicode_escape").decode()[:longest]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file and its size; whatever goes wrong with it is Damaged."""
    try:
        with path.open("rb") as file:
            yield file, os.fstat(file.fileno()).st_size
    except ScratchnetError:
        raise
    except Exception as error:  # of the system, of msgspec or of safetensors
        reason = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        raise Damaged(path, printable(reason, 200)) from error


def _within(size: int, limit: int, what: str) -> int:
    if size > limit:
        raise ValueError(f"it has {size:,} {what}, more than {limit:,}")
    return size


def _record(text: bytes, kind: type[Record]) -> Record:
    record = msgspec.json.decode(text, type=kind)
    if msgspec.to_builtins(record) != msgspec.json.decode(text):
        raise ValueError("it has more than scratchnet writes")
    return record
