"""What a data set is: two splits of labelled images and the names of the classes."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images: `images` is uint8 (N, 32, 32, 3) in any memory order, `labels` is int64 (N,)."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


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

    @property
    def num_classes(self) -> int:
        return len(self.class_names)
