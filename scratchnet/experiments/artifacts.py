"""Files that are either complete or not there: written aside, flushed to the disk, then moved into place."""

import csv
import io
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from scratchnet.errors import ScratchnetError

REMEDY = "free some space or name another folder with --output"


def write(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files by name; none takes the place of an earlier one before all are complete and on the disk.

    Raises ScratchnetError where the disk is full, the folder not writable, and the like.
    """
    asides = {name: folder / f".{name}.{os.getpid()}" for name in contents}
    try:
        for name, aside in asides.items():
            with open(aside, "wb") as file:
                file.write(contents[name])
                file.flush()
                os.fsync(file.fileno())
        for name, aside in asides.items():
            os.replace(aside, folder / name)
    except BaseException as error:
        for aside in asides.values():
            with suppress(OSError):
                aside.unlink()
        if isinstance(error, OSError):
            raise ScratchnetError(f"cannot write {folder / name} ({error.strerror or error}): {REMEDY}") from error
        raise


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


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """Valid JSON: a nan or an infinity, which JSON does not have, raises ValueError."""
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()


def csv_bytes(rows: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays by name, as `numpy.load` reads them."""
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()
