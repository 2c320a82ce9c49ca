"""What an experiment found: the content of its metrics.json and predictions.npz."""

from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from scratchnet.data import Dataset
from scratchnet.errors import ScratchnetError
from scratchnet.experiments import artifacts
from scratchnet.experiments.config import ANNEAL, Temperature
from scratchnet.experiments.reading import brief, read_json, read_npz


@dataclass(frozen=True)
class Epoch:
    """One epoch: the seconds its training took, means over that training, and the test split after it.

    `train_loss` is the head's own loss; `test_loss` is the clean cross-entropy, which alone can be compared between
    heads and temperatures. `test_accuracy` is that of the argmax, `test_accuracy_sampled` of one noisy prediction.
    """

    epoch: int
    seconds: float
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    test_accuracy_sampled: float


@dataclass(frozen=True)
class Final:
    """Accuracy and macro averages on the test split: of the argmax, of noisy predictions, and their expectation."""

    accuracy: float
    precision: float
    recall: float
    f1: float
    accuracy_sampled: float
    precision_sampled: float
    recall_sampled: float
    f1_sampled: float
    expected_sampled_accuracy: float


@dataclass(frozen=True)
class Predictions:
    """The logits (N, classes) of the test split after the last epoch, its labels (N,), and what the classes are called.

    `superclasses` gives each class its superclass; it and `superclass_names` are empty where the data set has none.
    """

    logits: np.ndarray
    labels: np.ndarray
    class_names: np.ndarray
    superclasses: np.ndarray
    superclass_names: np.ndarray

    @classmethod
    def of(cls, logits: np.ndarray, dataset: Dataset) -> "Predictions":
        return cls(
            logits,
            dataset.test.labels,
            np.array(dataset.class_names),
            dataset.superclasses,
            np.array(dataset.superclass_names, dtype=str),
        )

    def check(self) -> None:
        """Raise ValueError where the arrays are not what `of` makes of some data set."""
        (images, classes), groups = self.logits.shape, len(self.superclass_names)
        shapes = [(images, classes), (images,), (classes,), (classes if groups else 0,), (groups,)]
        names = [*self.class_names.tolist(), *self.superclass_names.tolist()]  # raises for what is no character
        if (
            [array.shape for array in _shallow(self).values()] != shapes
            or not all(isinstance(name, str) for name in names)
            or not np.isfinite(self.logits).all()
            or not _indices(self.labels, classes)
            or not _indices(self.superclasses, groups)
        ):
            raise ValueError("its predictions do not fit together")


@dataclass
class Result:
    """One experiment; `final` and `predictions` are None until its last epoch is done."""

    recipe: str
    head: str
    temperature: Temperature | None
    seed: int
    device: str
    dataset: str
    batch_size: int
    learning_rate: float
    workers: int
    versions: dict[str, str]
    precision: str = "fp32"
    epochs: list[Epoch] = field(default_factory=list)
    final: Final | None = None
    predictions: Predictions | None = None

    def files(self) -> dict[str, bytes]:
        """metrics.json and, once there are predictions, predictions.npz."""
        content = {name: value for name, value in _shallow(self).items() if name != "predictions"}
        content |= {"epochs": [asdict(epoch) for epoch in self.epochs], "final": self.final and asdict(self.final)}
        contents = {"metrics.json": artifacts.json_bytes(content)}
        if self.predictions is not None:
            contents["predictions.npz"] = artifacts.npz_bytes(_shallow(self.predictions))
        return contents

    @classmethod
    def read(cls, folder: Path) -> "Result":
        """The result that the files of a folder hold; raises ScratchnetError where there is none or it is damaged."""
        try:
            content = read_json(folder / "metrics.json")
            content["epochs"] = [_typed(Epoch(**epoch)) for epoch in content["epochs"]]
            content["predictions"] = None
            if content["final"] is not None:
                content["final"] = _typed(Final(**content["final"]))
                content["predictions"] = Predictions(**read_npz(folder / "predictions.npz"))
                content["predictions"].check()
            result = _typed(cls(**content))
            if type(result.temperature) not in (int, float) and result.temperature not in (None, ANNEAL):
                raise TypeError("temperature is of another type")
            if not all(type(version) is str for version in result.versions.values()):
                raise TypeError("versions are of another type")
            return result
        except Exception as error:
            raise ScratchnetError(
                f"{folder} does not hold the files of a run ({brief(error)}): "
                "remove the folder, and the run can be repeated"
            ) from error

    @property
    def title(self) -> str:
        temperature = "" if self.temperature is None else f", temperature {self.temperature}"
        return f"{self.dataset}: {self.recipe}, {self.head}{temperature}, seed {self.seed}, {self.device}"

    @property
    def comparable(self) -> bool:
        """Whether the figures of the reports, which are all of CIFAR-100, may stand beside these."""
        return self.dataset == "cifar100"


def _shallow(record: Any) -> dict[str, Any]:
    return {each.name: getattr(record, each.name) for each in fields(record)}


def _indices(array: np.ndarray, count: int) -> bool:
    return array.dtype.kind == "i" and bool(((array >= 0) & (array < count)).all())


def _typed(record: Any) -> Any:
    """The record; TypeError where a text or number of it is not, and ValueError where one is not finite."""
    for each in fields(record):
        value, kinds = getattr(record, each.name), (int, float) if each.type is float else (each.type,)
        if each.type in (str, int, float) and type(value) not in kinds:
            raise TypeError(f"{each.name} is of type {type(value).__name__}")
        if each.type is float and not isfinite(value):
            raise ValueError(f"{each.name} is not finite")
    return record
