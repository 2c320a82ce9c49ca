"""Reads CIFAR-100 (Krizhevsky, 2009) from the official binary or Python version, and checks that it is complete.

A record of the binary version is a coarse label, a fine label and 32x32 pixels in red, then green, then blue, a byte
each. The Python version has the same in pickles.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from scratchnet.data.archive import read_archive, read_folder
from scratchnet.data.dataset import Dataset, Split
from scratchnet.data.download import ADVICE, URL, is_official
from scratchnet.data.unpickle import read_pickle
from scratchnet.errors import DataError

FOLDERS = "cifar-100-binary", "cifar-100-python"
TRAIN_RECORDS, TEST_RECORDS = 50_000, 10_000
CLASSES, SUPERCLASSES = 100, 20
IMAGE_BYTES = 3 * 32 * 32


def find_cifar100(folder: Path) -> Path | None:
    """The folder or archive of CIFAR-100 that `folder` is or holds, by file names alone; None where there is none."""
    for place in (folder, *(folder / f"{name}{end}" for end in ("", ".tar.gz") for name in FOLDERS)):
        versions = BINARY_FILES, PYTHON_FILES
        if place.is_file() or any(all((place / name).is_file() for name in version) for version in versions):
            return place
    return None


def read_cifar100(path: Path) -> Dataset:
    """CIFAR-100 from a folder, its parent folder or a tar archive, in the binary or the Python version.

    Notes on stderr where these are not the official files. Raises DataError where there is no CIFAR-100, or where it is
    incomplete, damaged or unreadable.
    """
    try:
        if not path.exists():
            raise DataError(f"{path} does not exist; name the folder or archive of CIFAR-100, or {ADVICE}")
        place = (find_cifar100(path) if path.is_dir() else path) or path
        paths = [place / name for name in PARSERS if (place / name).is_file()] if place.is_dir() else [place]
        with ThreadPoolExecutor(1) as beside:  # zlib and hashlib let other threads run
            official = beside.submit(lambda: all(map(is_official, paths)))
            try:
                files = (read_folder if place.is_dir() else read_archive)(place, PARSERS)
                dataset = _dataset(place, {name: _parsed(place, name, data) for name, data in files.items()})
            except DataError as error:
                raise DataError(f"{error}; put an intact copy of {URL} in its place") from error
        if not official.result():
            problem = f"{place} is no official copy of CIFAR-100, so its content could not be verified"
            print(f"note: {problem}: it is complete and has the SHA-256 {dataset.digest}", file=sys.stderr)
        return dataset
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); check the path and its permissions") from error


def binary_records(data: bytes | bytearray) -> np.ndarray:
    """The records of a file of the binary version, uint8 (N, 3074), in place; ValueError where the last is cut off."""
    return np.frombuffer(data, np.uint8).reshape(-1, 2 + IMAGE_BYTES)


def python_records(data: bytes | bytearray) -> np.ndarray:
    """The same from a file of the Python version; KeyError, TypeError or ValueError where it holds anything else."""
    content: dict[bytes, Any] = read_pickle(data)
    array = content[b"data"]  # as NumPy pickles it: among other things its shape, before its type, its order and bytes
    shape, (fortran_order, pixels) = array[: array.index(b"u1")][-2:], array[-2:]
    if shape[1:] != [IMAGE_BYTES]:
        raise ValueError(f"its data are not {IMAGE_BYTES:,} bytes an image")
    images = np.frombuffer(pixels, np.uint8).reshape(shape, order="F" if fortran_order else "C")
    coarse, fine = (np.frombuffer(bytes(content[key]), np.uint8) for key in (b"coarse_labels", b"fine_labels"))
    return np.column_stack([coarse, fine, images])


def binary_names(data: bytes | bytearray) -> list[str]:
    """The names in a text of the binary version, no more than there may be."""
    return data.decode("latin-1").split(None, CLASSES)


def python_names(data: bytes | bytearray) -> list[list[str]]:
    """The names of the classes and superclasses in `meta` of the Python version; raises what `python_records` does."""
    content: dict[bytes, Any] = read_pickle(data)
    return [[str(name, "latin-1") for name in content[key]] for key in (b"fine_label_names", b"coarse_label_names")]


BINARY_FILES: dict[str, Any] = dict.fromkeys(["train.bin", "test.bin"], binary_records)
BINARY_FILES |= dict.fromkeys(["fine_label_names.txt", "coarse_label_names.txt"], binary_names)
PYTHON_FILES: dict[str, Any] = {"train": python_records, "test": python_records, "meta": python_names}
PARSERS = BINARY_FILES | PYTHON_FILES


def _parsed(place: Path, name: str, data: bytes | bytearray) -> Any:
    try:
        return PARSERS[name](data)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{place}: {name} is truncated, corrupted or not of CIFAR-100 ({error})") from error


def _dataset(place: Path, contents: dict[str, Any]) -> Dataset:
    if contents.keys() >= BINARY_FILES.keys():
        train, test, *names = (contents[name] for name in BINARY_FILES)
    elif contents.keys() >= PYTHON_FILES.keys():
        train, test, names = (contents[name] for name in PYTHON_FILES)
    else:
        binary, python = ", ".join(BINARY_FILES), ", ".join(PYTHON_FILES)
        raise DataError(f"{place} does not hold CIFAR-100: {binary} (binary version) or {python} (Python version)")
    superclasses = np.zeros(256, np.int64)
    superclasses[train[:, 1]] = train[:, 0]
    for name, records, count in (("training", train, TRAIN_RECORDS), ("test", test, TEST_RECORDS)):
        where, each = f"{place} is incomplete or corrupted: its {len(records):,} {name} records", count // CLASSES
        if (np.bincount(records[:, 1], minlength=CLASSES) != each).any():
            raise DataError(f"{where} are not {each} of each of {CLASSES} classes")
        if (superclasses[records[:, 1]] != records[:, 0]).any() or superclasses.max() >= SUPERCLASSES:
            raise DataError(f"{where} are not each of one of {SUPERCLASSES} superclasses, the same for all of a class")
    for found, count in zip(names, (CLASSES, SUPERCLASSES), strict=True):
        if not len(found) == len(set(found)) == count:
            raise DataError(f"{place} is corrupted: it does not name {count} different classes")
    classes, groups = map(tuple, names)
    return Dataset("cifar100", _split(train), _split(test), classes, groups, superclasses[:CLASSES])


def _split(records: np.ndarray) -> Split:
    return Split(records[:, 2:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 1].astype(np.int64))
