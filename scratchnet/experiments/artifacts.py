"""Files that are either complete or not there: written aside, flushed to the disk, then moved into place."""

import csv
import io
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import numpy as np

from scratchnet.errors import ScratchnetError
from scratchnet.sealed import sealed

ASIDE = ".scratchnet-"  # begins the names of files that are not yet in place
REMEDY = "free some space or name another folder with --output"


def write(folder: Path, contents: Mapping[str, bytes], keep: Mapping[str, str] | None = None) -> None:
    """Write files by name; none takes the place of an earlier one before all are complete and on the disk.

    `keep` gives the names that earlier files are to have from now on. Raises ScratchnetError where the disk is full,
    the folder not writable, and the like.
    """
    asides = {name: folder / f"{ASIDE}{os.getpid()}-{name}" for name in contents}
    try:
        for name, aside in asides.items():
            with open(aside, "wb") as file:
                file.write(contents[name])
                file.flush()
                os.fsync(file.fileno())
        for name, kept in (keep or {}).items():
            with suppress(FileNotFoundError):
                os.replace(folder / name, folder / kept)
        for name, aside in asides.items():
            os.replace(aside, folder / name)
        _synchronize(folder)
    except BaseException as error:
        for aside in asides.values():
            with suppress(OSError):
                aside.unlink()
        if isinstance(error, OSError):
            raise ScratchnetError(f"cannot write {folder / name} ({error.strerror or error}): {REMEDY}") from error
        raise


def _synchronize(folder: Path) -> None:
    """Have the disk know the names too, where the system can open a folder and its file system can do this."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of the folder, and remove what one that was killed had not moved into place.

    The system lets go of the lock when this process ends, however that comes; the file .lock stays. Raises
    ScratchnetError where another run has the lock.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ScratchnetError(
            f"another run is writing to {folder}: wait for its end, or choose another folder with --output"
        ) from None
    try:
        for aside in folder.glob(f"{ASIDE}*"):
            aside.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def prepare(folder: Path) -> None:
    """Create the folder and write a nameless trial file there; raise ScratchnetError where either fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"trial")
    except OSError as error:
        raise ScratchnetError(
            f"cannot create the output folder {folder} or write there ({error.strerror}): {REMEDY}"
        ) from error


def json_bytes(record: object) -> bytes:
    """A dataclass, or plain values, as JSON; ValueError for a nan or an infinity, which JSON does not have."""
    return (json.dumps(msgspec.to_builtins(record), indent=2, allow_nan=False) + "\n").encode()


def csv_bytes(rows: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def tensors(record: object, arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays by name and a record, as `reading.read_tensors` takes them."""
    return sealed(json_bytes(record).decode(), arrays)
