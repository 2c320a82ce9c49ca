"""What a data set is: splits of labelled images and the names of the classes, made from anyone's arrays."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scratchnet import arguments


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images: `images` is (N, ...) in any memory order, `labels` is integer (N,).

    Images are uint8, pixels that the trainer divides by 255, or finite float32 or float64, which it takes as they are.
    Raises ValueError for anything else.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        _check(self.images, self.labels, "split", "iu")

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Named splits, of which `test` and `validation` may be None, and the names of the classes.

    `superclasses`, int64 (classes,), maps a class to its superclass; without any, it and their names are empty.
    `digest` names the content: the SHA-256 of the images and labels of all splits, taken where none is given.
    """

    name: str
    train: Split
    test: Split | None
    class_names: tuple[str, ...]
    superclass_names: tuple[str, ...] = ()
    superclasses: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    validation: Split | None = None
    digest: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", self.digest or _digest(self))

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @classmethod
    def from_arrays(
        cls, x: Any, y: Any, *, validation: Any = 0.0, test: Any = None, name: str = "arrays",
        class_names: Sequence[str] | None = None, seed: int = 0,
    ) -> "Dataset":  # fmt: skip
        """A data set of images `x`, (N, ...) as `Split` takes them, and labels `y`, (N,), any integers or text.

        The classes are the different labels, sorted. `validation` is the fraction of the images to hold out, chosen by
        `seed`, or a pair (x, y); `test` is such a pair or None. Raises ValueError for what does not fit together,
        TypeError for what is no pair of arrays.
        """
        splits = {"train": _arrays((x, y), f"{name}, train")}
        if isinstance(validation, tuple | list):
            splits["validation"] = _arrays(validation, f"{name}, validation")
        elif fraction := arguments.fraction(validation, "validation", name):
            images, labels = splits["train"]
            order = np.random.default_rng(arguments.seed(seed, name)).permutation(len(labels))
            held, kept = map(np.sort, np.split(order, [round(fraction * len(order))]))
            splits = {"train": (images[kept], labels[kept]), "validation": (images[held], labels[held])}
        if test is not None:
            splits["test"] = _arrays(test, f"{name}, test")

        images, labels = splits["train"]
        number = {label: index for index, label in enumerate(sorted(set(labels.tolist())))}
        names = tuple(map(str, number) if class_names is None else class_names)
        if len(names) != len(number):
            raise ValueError(f"{name}: {len(names)} class names are given for {len(number)} classes; give one a class")
        numbered = {}
        for part, (x, y) in splits.items():
            where, wanted = f"{name}, {part}", (images.dtype, images.shape[1:])
            if not len(y):
                raise ValueError(f"{where}: there are no images; give some, or another fraction for validation")
            if (x.dtype, x.shape[1:]) != wanted:
                raise ValueError(f"{where}: images are {_described(x)}, in train {_described(images)}; convert one")
            if unknown := set(y.tolist()) - set(number):
                raise ValueError(f"{where}: its class {min(unknown)!r} is not in train; add it there or drop it here")
            numbered[part] = Split(x, np.array([number[label] for label in y.tolist()]))
        return cls(name, numbered["train"], numbered.get("test"), names, validation=numbered.get("validation"))


def _arrays(pair: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        images, labels = map(np.asanyarray, pair)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{where}: wanted is a pair (x, y), each of which makes one array ({error})") from error
    _check(images, labels, where, "iuU")
    return images, labels


def _check(images: Any, labels: Any, where: str, kinds: str) -> None:
    if not _is_array(images) or images.dtype not in (np.uint8, np.float32, np.float64) or images.ndim < 2:
        wanted = "uint8 (0 to 255), float32 or float64 of shape (N, ...) is wanted"
        raise ValueError(f"{where}: images are {_described(images)} where {wanted}; convert them (astype, reshape)")
    if images.dtype != np.uint8 and not np.isfinite(images).all():
        raise ValueError(f"{where}: images have values that are NaN or infinite; replace them or leave the images out")
    if not _is_array(labels) or labels.dtype.kind not in kinds or labels.shape != images.shape[:1]:
        wanted = f"{'integers or text' if 'U' in kinds else 'integers'} ({len(images)},) are wanted, one an image"
        raise ValueError(f"{where}: labels are {_described(labels)} where {wanted}; of one-hot labels give argmax(1)")


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray)


def _described(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if _is_array(value) else f"a {type(value).__name__}"


def _digest(dataset: Dataset) -> str:
    digest = hashlib.sha256()
    for name in ("train", "validation", "test"):
        if split := getattr(dataset, name):
            images = np.moveaxis(split.images, -1, 1)  # channels first, as CIFAR-100 has them on the disk
            digest.update(f"{name} {images.dtype} {images.shape}".encode())
            for start in range(0, len(images), 250):  # few enough for the processor's cache
                digest.update(np.ascontiguousarray(images[start : start + 250]).data)
            digest.update(split.labels.astype(np.int64).data)
    return digest.hexdigest()
