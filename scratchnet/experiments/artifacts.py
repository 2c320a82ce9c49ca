"""Files that are either complete or not there: written aside, flushed to the disk, then moved into place."""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from scratchnet.errors import ScratchnetError

REMEDY = "free some space or name another folder with --output"


@contextmanager
def replacing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Yield a file that takes the place of `path` once it is complete; on any failure `path` stays as it was.

    Raises ScratchnetError where the disk is full, the folder not writable, and the like.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        with open(aside, mode, **text) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException as error:
        with suppress(OSError):
            aside.unlink()
        if isinstance(error, OSError):
            raise ScratchnetError(f"cannot write {path} ({error.strerror or error}): {REMEDY}") from error
        raise


def prepare(folder: Path) -> None:
    """Create the folder and write a trial file there; raise ScratchnetError where either fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ScratchnetError(f"cannot create the output folder {folder} ({error.strerror}): {REMEDY}") from error
    with replacing(folder / ".writable") as file:
        file.write("trial\n")
    (folder / ".writable").unlink()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write valid JSON: a nan or an infinity, which JSON does not have, raises ValueError."""
    text = json.dumps(content, indent=2, allow_nan=False)
    with replacing(path) as file:
        file.write(text + "\n")


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    with replacing(path) as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name, as `numpy.load` reads them."""
    with replacing(path, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
