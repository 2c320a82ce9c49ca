"""What an experiment found: the content of its metrics.json and predictions.safetensors."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from scratchnet.data import Dataset
from scratchnet.errors import ScratchnetError
from scratchnet.experiments import artifacts
from scratchnet.experiments.config import Settings
from scratchnet.experiments.reading import Damaged, printable, read_json, read_tensors

METRICS, PREDICTIONS = "metrics.json", "predictions.safetensors"
SCORES = "accuracy", "precision", "recall", "f1"
# What is known of the test split at least: accuracy and macro averages by argmax and of one noisy prediction an image,
# and the accuracy to expect of such predictions.
FIGURES = {*SCORES, *(f"{score}_sampled" for score in SCORES), "expected_sampled_accuracy"}


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
class Names:
    """What the classes and superclasses are called; there may be no superclasses."""

    classes: list[str]
    superclasses: list[str]


@dataclass(frozen=True)
class Predictions:
    """The logits (N, classes) of the test split after the last epoch, and its labels (N,).

    `superclasses` gives each class its superclass; it is empty where there are none. ValueError for arrays that do not
    fit together.
    """

    names: Names
    logits: np.ndarray
    labels: np.ndarray
    superclasses: np.ndarray

    @classmethod
    def of(cls, logits: np.ndarray, labels: np.ndarray, dataset: Dataset) -> "Predictions":
        names = Names(list(dataset.class_names), list(dataset.superclass_names))
        return cls(names, logits, labels, dataset.superclasses)

    def __post_init__(self) -> None:
        classes, groups = len(self.names.classes), len(self.names.superclasses)
        shapes = self.logits.shape, self.labels.shape, self.superclasses.shape
        if (
            shapes != ((len(self.labels), classes), (len(self.labels),), (classes if groups else 0,))
            or not np.isfinite(self.logits).all()
            or not _indices(self.labels, classes)
            or not _indices(self.superclasses, groups)
        ):
            raise ValueError("its predictions do not fit together")

    def content(self) -> bytes:
        arrays = {"logits": self.logits, "labels": self.labels, "superclasses": self.superclasses}
        return artifacts.tensors(self.names, arrays)


@dataclass
class Metrics:
    """The content of metrics.json; `final`, an open set of figures, is None until the last epoch is done."""

    settings: Settings
    versions: dict[str, str]
    epochs: list[Epoch] = field(default_factory=list)
    final: dict[str, float] | None = None

    def __post_init__(self) -> None:
        if [epoch.epoch for epoch in self.epochs] != list(range(1, len(self.epochs) + 1)):
            raise ValueError("its epochs do not follow one another")
        if self.final is not None and not (self.epochs and self.final.keys() >= FIGURES):
            raise ValueError("some of its final figures are missing")


@dataclass
class Result(Metrics):
    """One experiment; like `final`, `predictions` are None until its last epoch is done."""

    predictions: Predictions | None = None

    @property
    def metrics(self) -> Metrics:
        return Metrics(self.settings, self.versions, self.epochs, self.final)

    def files(self) -> dict[str, bytes]:
        """metrics.json and, once there are predictions, their file."""
        contents = {METRICS: artifacts.json_bytes(self.metrics)}
        return contents if self.predictions is None else contents | {PREDICTIONS: self.predictions.content()}

    @classmethod
    def read(cls, folder: Path) -> "Result":
        """The result that the files of a folder hold; raises ScratchnetError where there is none or it is damaged."""
        try:
            result = cls(**vars(read_json(folder / METRICS, Metrics)))
            if result.final is not None:
                names, arrays = read_tensors(folder / PREDICTIONS, Names)
                result.predictions = Predictions(names, **arrays)
            return result
        except (Damaged, TypeError, ValueError) as error:
            raise ScratchnetError(
                f"{folder} does not hold the files of a run ({printable(getattr(error, 'reason', error), 200)}): "
                "remove the folder, and the run can be repeated"
            ) from error

    @property
    def title(self) -> str:
        of = self.settings
        temperature = "" if of.temperature is None else f", temperature {of.temperature}"
        return f"{of.data}: {of.recipe}, {of.head}{temperature}, seed {of.seed}, {of.device}"

    @property
    def comparable(self) -> bool:
        """Whether the figures of the reports, which are all of CIFAR-100, may stand beside these."""
        return self.settings.data == "cifar100"


def _indices(array: np.ndarray, count: int) -> bool:
    return array.dtype.kind == "i" and bool(((array >= 0) & (array < count)).all())
