"""What a data set is: two splits of labelled images and the names of the classes."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images: `images` is uint8 (N, H, W, C) in any memory order, `labels` is int64 (N,).

    Raises ValueError for anything else.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(f"split: images are {_described(images)} where uint8 (N, H, W, C) is wanted")
        if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
            raise ValueError(
                f"split: labels are {_described(labels)} where integers ({len(images)},) are wanted, one an image"
            )

    def __len__(self) -> int:
        return len(self.labels)


def _described(array: Any) -> str:
    return f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named training and test split; `superclasses`, int64 (classes,), maps a class to its superclass.

    Where the classes have no superclasses, `superclass_names` and `superclasses` are empty.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    superclass_names: tuple[str, ...]
    superclasses: np.ndarray
    validation: Split | None = None

    @property
    def num_classes(self) -> int:
        return len(self.class_names)
