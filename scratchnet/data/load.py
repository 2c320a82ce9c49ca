"""Finds a data set: where the user says, in the cache, on the network, or, failing all, in scikit-learn."""

import os
import sys
import textwrap
from pathlib import Path

from scratchnet.data.cifar100 import find_cifar100, read_cifar100
from scratchnet.data.dataset import Dataset
from scratchnet.data.digits import load_digits
from scratchnet.data.download import ADVICE, download, user_cache_directory
from scratchnet.errors import DataError

ENVIRONMENT_VARIABLE = "SCRATCHNET_DATA"
ARCHIVE_NAME = "cifar-100-binary.tar.gz"
WARNING = """WARNING: THIS IS NOT CIFAR-100, WHICH COULD BE NEITHER FOUND NOR DOWNLOADED.
Reason: {}.
In its place: scikit-learn's digits, 10 classes, 8x8 pixels enlarged to 32x32x3.
No result of this run says anything about CIFAR-100. With --data cifar100 this is an error."""


def load_dataset(source: str = "auto", *, progress: bool = True) -> Dataset:
    """The data set that `source` names: "auto", "cifar100", "digits" or the path of CIFAR-100.

    A path is a folder of the official binary or Python version, its parent, or its tar archive. "cifar100" is looked
    for at $SCRATCHNET_DATA, else in the user's cache, else downloaded into it, with a progress bar if `progress`.
    "auto" does the same, but where CIFAR-100 can be neither found nor downloaded, it says so on stderr and takes the
    digits. Raises DataError where CIFAR-100 cannot be had, or is found and is incomplete or damaged.
    """
    if source == "digits":
        return load_digits()
    if source not in ("auto", "cifar100"):
        return read_cifar100(Path(source))
    if path := os.environ.get(ENVIRONMENT_VARIABLE):
        try:
            return read_cifar100(Path(path))
        except DataError as error:
            raise DataError(f"${ENVIRONMENT_VARIABLE}: {error}") from error
    try:
        place = _cached(progress)
    except DataError as error:
        if source == "cifar100":
            raise
        rule, lines = "*" * 100, WARNING.format(error).splitlines()
        text = "\n".join(textwrap.fill(line, 96, break_long_words=False, break_on_hyphens=False) for line in lines)
        print(rule, textwrap.indent(text, "* "), rule, sep="\n", file=sys.stderr, flush=True)
        return load_digits()
    return read_cifar100(place)


def _cached(progress: bool) -> Path:
    """Where CIFAR-100 is in the user's cache, into which it is downloaded if need be."""
    cache = user_cache_directory()
    try:
        place = find_cifar100(cache)
    except OSError as error:
        raise DataError(f"{cache} cannot be read ({error}); {ADVICE}") from error
    if place is None:
        place = cache / ARCHIVE_NAME
        download(place, progress=progress)
    return place
