"""Reads CIFAR-100 (Krizhevsky, 2009) from the official binary or Python version, and checks that it is complete.

A record of the binary version is a coarse label, a fine label and 32x32 pixels in red, then green, then blue, a byte
each. The Python version has the same in pickles.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scratchnet.data.archive import read_archive, read_folder
from scratchnet.data.dataset import Dataset, Split
from scratchnet.data.download import ADVICE, URL
from scratchnet.data.unpickle import load_pickle
from scratchnet.errors import DataError

BINARY_FILES = ("train.bin", "test.bin", "fine_label_names.txt", "coarse_label_names.txt")
PYTHON_FILES = ("train", "test", "meta")
VERSIONS = (BINARY_FILES, PYTHON_FILES)
FOLDERS = ("cifar-100-binary", "cifar-100-python")
TRAIN_RECORDS = 50_000
TEST_RECORDS = 10_000
CLASSES = 100
SUPERCLASSES = 20
IMAGE_BYTES = 3 * 32 * 32
RECORD_BYTES = 2 + IMAGE_BYTES


class Records(NamedTuple):
    """The images, uint8 (N, 32, 32, 3), and their fine and coarse labels, uint8 (N,), of one file."""

    where: str
    images: np.ndarray
    fine: np.ndarray
    coarse: np.ndarray


def find_cifar100(folder: Path) -> Path | None:
    """The folder or archive of CIFAR-100 that `folder` is or holds, by file names alone; None where there is none."""
    for place in (folder, *(folder / name for name in FOLDERS)):
        if any(all((place / name).is_file() for name in version) for version in VERSIONS):
            return place
    archives = (folder / f"{name}.tar.gz" for name in FOLDERS)
    return next((archive for archive in archives if archive.is_file()), None)


def read_cifar100(path: Path) -> Dataset:
    """CIFAR-100 from a folder, its parent folder or a tar archive, in the binary or the Python version.

    The images are views of the bytes as they were read. Raises DataError where there is no CIFAR-100, or where it is
    incomplete, damaged or unreadable.
    """
    try:
        if not path.exists():
            raise DataError(f"{path} does not exist; name the folder or archive of CIFAR-100, or {ADVICE}")
        place = find_cifar100(path) if path.is_dir() else path
        if place is None:
            raise DataError(f"{_incomplete(path)}; name another folder, or {ADVICE}")
        try:
            return _read(place)
        except DataError as error:
            raise DataError(f"{error}; put an intact copy of {URL} in its place") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); check the path and its permissions") from error


def binary_records(data: bytes | bytearray, where: str) -> Records:
    """The records of a file of the binary version, which is named `where` in a DataError."""
    if len(data) % RECORD_BYTES:
        raise DataError(f"{where} is truncated or corrupted: {len(data):,} bytes are no multiple of {RECORD_BYTES:,}")
    table = np.frombuffer(data, np.uint8).reshape(-1, RECORD_BYTES)
    return Records(where, _channels_last(table[:, 2:]), fine=table[:, 1], coarse=table[:, 0])


def python_records(data: bytes | bytearray, where: str) -> Records:
    """The records of a file of the Python version, which is named `where` in a DataError."""
    images, fine, coarse = load_pickle(data, ("data", "fine_labels", "coarse_labels"), where)
    if not isinstance(images, np.ndarray) or images.shape[1:] != (IMAGE_BYTES,):
        raise DataError(f"{where} is corrupted: its data are not {IMAGE_BYTES:,} bytes an image")
    return Records(where, _channels_last(images), fine=_labels(fine, where), coarse=_labels(coarse, where))


def _incomplete(place: Path) -> str:
    binary, python = ", ".join(BINARY_FILES), ", ".join(PYTHON_FILES)
    return f"{place} does not hold CIFAR-100, which is the files {binary} (binary version) or {python} (Python version)"


def _read(place: Path) -> Dataset:
    wanted = BINARY_FILES + PYTHON_FILES
    files: Mapping[str, bytes | bytearray] = (
        read_folder(place, wanted) if place.is_dir() else read_archive(place, wanted)
    )
    if files.keys() >= set(BINARY_FILES):
        train, test = (binary_records(files[name], f"{place}: {name}") for name in ("train.bin", "test.bin"))
        names, supernames = (files[name].decode("latin-1").split(None, CLASSES) for name in BINARY_FILES[2:])
    elif files.keys() >= set(PYTHON_FILES):
        train, test = (python_records(files[name], f"{place}: {name}") for name in ("train", "test"))
        names, supernames = load_pickle(files["meta"], ("fine_label_names", "coarse_label_names"), f"{place}: meta")
    else:
        raise DataError(_incomplete(place))
    _check_records(train, TRAIN_RECORDS)
    _check_records(test, TEST_RECORDS)
    superclasses = train.coarse[np.unique(train.fine, return_index=True)[1]].astype(np.int64)
    for records in (train, test):
        if (superclasses[records.fine] != records.coarse).any():
            raise DataError(f"{records.where} is corrupted: its coarse labels contradict its fine labels")
    return Dataset(
        name="cifar100",
        train=Split(train.images, train.fine.astype(np.int64)),
        test=Split(test.images, test.fine.astype(np.int64)),
        class_names=_names(names, CLASSES, place),
        superclass_names=_names(supernames, SUPERCLASSES, place),
        superclasses=superclasses,
    )


def _channels_last(images: np.ndarray) -> np.ndarray:
    return images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def _labels(labels: object, where: str) -> np.ndarray:
    """A pickled list of labels as uint8."""
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 256 for label in labels):
        raise DataError(f"{where} is corrupted: its labels are not a list of small integers")
    return np.array(labels, dtype=np.uint8)


def _names(names: object, count: int, place: Path) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{place} is corrupted: its class names are not a list of text")
    if not len(names) == len(set(names)) == count:
        raise DataError(f"{place} is corrupted: it does not name {count} different classes")
    return tuple(names)


def _check_records(records: Records, count: int) -> None:
    where, images, fine, coarse = records
    if not len(images) == len(fine) == len(coarse) == count:
        raise DataError(f"{where} is incomplete: it has {len(images):,} records, not {count:,}")
    if fine.max() >= CLASSES or coarse.max() >= SUPERCLASSES:
        raise DataError(f"{where} is corrupted: it has labels beyond {CLASSES} classes or {SUPERCLASSES} superclasses")
    if (np.bincount(fine, minlength=CLASSES) != count // CLASSES).any():
        raise DataError(f"{where} is corrupted: it does not have {count // CLASSES} records of each class")
