"""The readers of files that may come from anywhere, each with small valid files to start from."""

import codecs
import gzip
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np

from scratchnet import BatchNormalization, Conv2D, Dense, Flatten, Residual, Sequential
from scratchnet.data import cifar100
from scratchnet.data.archive import read_archive
from scratchnet.errors import DataError, ScratchnetError
from scratchnet.experiments import artifacts
from scratchnet.experiments.checkpoint import NAME, Checkpoints
from scratchnet.experiments.config import configure
from scratchnet.experiments.result import FIGURES, METRICS, PREDICTIONS, Epoch, Names, Predictions, Result
from scratchnet.layers.saved import to_bytes
from scratchnet.training import Progress
from tests.data.synthetic import PICKLES, binary_file, tar_bytes
from tests.fuzz.mutations import mend_gzip, mend_tar, mend_tensors

WEIGHTS = "weights.safetensors"
IMAGES, CLASSES = 4, 2  # of the CIFAR-100 that is read here
LONGEST_MESSAGE = 2_000
CODECS = (
    "cp437", "latin-1", "unicode_escape", "utf-8", "utf-8-sig", "utf-16-be", "utf-16-le", "utf-32-be", "utf-32-le"
)  # fmt: skip
HARMLESS = {"compile", "os.listdir", "os.scandir"}  # NumPy reads a header with ast.literal_eval: compiled, never run
FAMILIES = (
    "open", "compile", "exec", "import", "marshal", "pickle", "os.", "subprocess.", "socket.", "shutil.", "ctypes.",
    "tempfile.", "urllib.", "ftplib.", "http.", "sqlite3.", "mmap.", "code.", "function.", "pty.",
)  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """`read` takes the folder where the fuzzed content is in `file`, and raises nothing but `documented`."""

    name: str
    file: str
    seeds: list[bytes]
    read: Callable[[Path], object]
    documented: type[Exception] | tuple[type[Exception], ...]
    mend: Callable[[bytes], bytes] = bytes
    others: dict[str, bytes] = field(default_factory=dict)  # what else the folder must have


class Room:
    """A folder with a reader's files, from which nothing but that reader's reading is let out."""

    def __init__(self, reader: Reader, folder: Path) -> None:
        self.reader, self.folder = reader, folder
        artifacts.write(folder, {**reader.others, reader.file: b""})
        self.file = os.open(folder / reader.file, os.O_WRONLY)
        self.before = sorted(os.listdir(folder))

    def try_out(self, content: bytes) -> str:
        """Read a content; the name of the documented exception, or "read". Whatever else happens is an error."""
        os.ftruncate(self.file, 0)
        os.pwrite(self.file, content, 0)
        try:
            with watched(self.folder):
                self.reader.read(self.folder)
        except self.reader.documented as error:
            message = str(error)
            assert message.isprintable(), "a message with control characters"
            assert len(message) < LONGEST_MESSAGE, "an endless message"
            return type(error).__name__
        return "read"

    def close(self) -> None:
        os.close(self.file)
        assert sorted(os.listdir(self.folder)) == self.before, "there are other files than before"


_watch: dict[str, Any] = {"folder": None}


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    folder = _watch["folder"]
    if folder is None or not event.startswith(FAMILIES):
        return
    if event == "open":
        path, _, flags = arguments
        if str(path).startswith(folder) and not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
            return
    elif event in HARMLESS:
        return
    _watch["seen"].append(f"{event}{arguments!r:.200}")


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Fail where code is run or imported, or anything but a file of the folder opened, and that for reading alone."""
    if "hooked" not in _watch:  # such a hook stays as long as the process
        sys.addaudithook(_audit)
        _watch["hooked"] = True
    _watch.update(folder=str(folder), seen=[])
    try:
        yield
    finally:
        _watch["folder"] = None
        assert not _watch["seen"], f"the reader did {_watch['seen']}"


def all_readers() -> list[Reader]:
    """The readers, each tried on its samples first; what Python imports when it first needs it is imported then."""
    for codec in CODECS:
        codecs.lookup(codec)
    files = {"train.bin": b"0123456789" * 60, "test.bin": b"ab"}
    tars = [tar_bytes(files, mode="w"), tar_bytes({150 * "x": b"", **files}, mode="w")]
    archive = partial(_read_archive, files)
    other = Sequential([Residual(Conv2D(1, 1)), BatchNormalization(), Flatten(), Dense(2)])
    other.build((2, 2, 1), dtype="float64")
    weights = [to_bytes(_network()), to_bytes(other)]
    result = _result().files()
    read_checkpoint, checkpoint = _checkpoint()
    of_weights = partial(_read_weights, _network())
    readers = [
        Reader("tar", "a.tar", tars, archive, DataError, mend_tar),
        Reader("tar.gz", "a.tar", [gzip.compress(tar) for tar in tars], archive, DataError, mend_gzip),
        Reader("pickle", "train", _pickles(), _read_pickle, (KeyError, TypeError, ValueError)),
        Reader("CIFAR-100", "cifar.tar", _cifar100(), _read_cifar100, DataError, mend_tar),
        Reader(WEIGHTS, WEIGHTS, weights, of_weights, ScratchnetError, mend_tensors),
        Reader(PREDICTIONS, PREDICTIONS, [result[PREDICTIONS]], _read_result, ScratchnetError, mend_tensors, result),
        Reader(METRICS, METRICS, [result[METRICS]], _read_result, ScratchnetError, others=result),
        Reader("checkpoint", NAME, [checkpoint], read_checkpoint, ScratchnetError, mend_tensors),
    ]
    for reader in readers:
        with tempfile.TemporaryDirectory() as folder:
            for seed in reader.seeds:
                artifacts.write(Path(folder), {**reader.others, reader.file: seed})
                reader.read(Path(folder))
    return readers


def _read_archive(files: dict[str, bytes], folder: Path) -> None:
    assert set(read_archive(folder / "a.tar", files)) <= set(files)


def _pickles() -> list[bytes]:
    labels = {"fine_labels": [1, 255], "coarse_labels": [0, 7]}
    content = {"data": np.arange(24, dtype=np.uint8).reshape(2, 12) * 10, **labels, "filenames": ["a", "bc"]}
    return [write(content) for write in PICKLES.values()]


def _read_pickle(folder: Path) -> None:
    with patch.object(cifar100, "IMAGE_BYTES", 12):
        records = cifar100.python_records((folder / "train").read_bytes())
    assert records.dtype == np.uint8
    assert records.shape[1:] == (14,)


def _cifar100() -> list[bytes]:
    pixels = np.arange(IMAGES * 3072, dtype=np.int64).astype(np.uint8).reshape(IMAGES, 3072)
    labels = np.array([0, 1, 1, 0], np.uint8)
    records = binary_file(pixels, labels, labels)
    texts = {"fine_label_names.txt": b"a\nb\n", "coarse_label_names.txt": b"c\nd\n"}
    samples = [tar_bytes({"train.bin": records, "test.bin": records} | texts, mode="w")]
    content = {"data": pixels, "fine_labels": labels.tolist(), "coarse_labels": labels.tolist()}
    meta = {"fine_label_names": ["a", "b"], "coarse_label_names": ["c", "d"]}
    for write in (PICKLES["python2"], PICKLES["numpy2"]):
        samples.append(tar_bytes({"train": write(content), "test": write(content), "meta": write(meta)}, mode="w"))
    return samples


def _read_cifar100(folder: Path) -> None:
    with patch.multiple(cifar100, TRAIN_RECORDS=IMAGES, TEST_RECORDS=IMAGES, CLASSES=CLASSES, SUPERCLASSES=CLASSES):
        dataset = cifar100.read_cifar100(folder / "cifar.tar")
    assert dataset.train.images.shape == dataset.test.images.shape == (IMAGES, 32, 32, 3)
    assert dataset.num_classes == CLASSES


def _network() -> Sequential:
    network = Sequential([Dense(2)])
    network.build((3,))
    return network


def _read_weights(network: Sequential, folder: Path) -> None:
    weights = Sequential.load(folder / WEIGHTS).weights()
    assert sum(array.nbytes for array in weights.values()) <= (folder / WEIGHTS).stat().st_size
    try:
        with np.errstate(all="ignore"):
            network.set_weights(weights)
    except ValueError:  # is documented: they are of another network
        assert _shapes(weights) != _shapes(network.weights())


def _shapes(weights: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in weights.items()}


def _result() -> Result:
    settings = configure("same-padding", "gumbel", seed=3, epochs=3, workers=1).settings
    names = Names(["a", "b"], ["c"])
    predictions = Predictions(names, np.eye(2, dtype=np.float32), np.arange(2), np.zeros(2, int))
    epochs, final = [Epoch(1, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5)], dict.fromkeys(sorted(FIGURES), 0.5)
    return Result(replace(settings, data="digits"), {"numpy": "2.4"}, epochs, final, predictions)


def _read_result(folder: Path) -> None:
    """Read a result, and use it as a report does: what is read must not fail later."""
    result = Result.read(folder)
    assert result.files()[METRICS]
    assert f"{result.title} {result.comparable}"
    assert all(f"{epoch.test_accuracy:.4f}" for epoch in result.epochs)
    if result.final is not None and result.predictions is not None:
        assert f"{result.final['expected_sampled_accuracy']:.4f}"
        names = [result.predictions.names.classes[label] for label in result.predictions.labels]
        assert len(names) == len(result.predictions.logits)


def _checkpoint() -> tuple[Callable[[Path], None], bytes]:
    """The reader of a checkpoint, and what it reads: a trainer that has only what a checkpoint needs of one."""
    state = {"parameters": np.arange(3, dtype=np.float32), "first": np.ones(3, np.float32)}
    trainer: Any = SimpleNamespace(
        progress=Progress(2, 3, 1.5, 2, 0.5), steps=4, batch_size=2, dataset=SimpleNamespace(train=range(8)),
        state=lambda: state, restore=lambda arrays, progress: None,
    )  # fmt: skip

    def checkpoints(folder: Path) -> Checkpoints:
        return Checkpoints(configure("same-padding", "gumbel", seed=3, epochs=3, output=folder))

    def read(folder: Path) -> None:
        found, result = checkpoints(folder), replace(_result(), final=None)
        trainer.progress = Progress()
        found.unfinished()
        found.load(result, trainer, lambda note: None)

    with tempfile.TemporaryDirectory() as folder:
        checkpoints(Path(folder)).save(replace(_result(), final=None), trainer)
        return read, (Path(folder) / NAME).read_bytes()
