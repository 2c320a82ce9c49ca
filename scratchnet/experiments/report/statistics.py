"""What the runs of a study measured, grouped by all but the seed, and 95 % intervals of differences."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import inf, isnan, nan, sqrt
from typing import NamedTuple

import numpy as np

from scratchnet.experiments.config import ANNEAL, Settings
from scratchnet.experiments.metrics import log_softmax
from scratchnet.experiments.published import Report
from scratchnet.experiments.result import Result
from scratchnet.heads import HEADS

BASELINE = "softmax"  # the head that all others are compared with
BINS = 15


@dataclass(frozen=True)
class Measure:
    """What is measured of a trained network, in which unit, and with how many digits it is shown."""

    name: str
    unit: str = "points"
    digits: int = 2


ARGMAX = Measure("argmax accuracy")
EXPECTED = Measure("expected accuracy with the noise on")
CROSS_ENTROPY = Measure("clean cross-entropy", "nats", 3)
CALIBRATION = Measure("expected calibration error")
ACCURACY = Measure("expected accuracy")
MEASURES = ARGMAX, EXPECTED, CROSS_ENTROPY, CALIBRATION


class Run:
    """A finished result, and what its logits say: `images` has the measures that are means over the test images."""

    def __init__(self, result: Result) -> None:
        from sklearn.metrics import confusion_matrix, f1_score

        assert result.final
        assert result.predictions
        self.result, self.final, self.predictions = result, result.final, result.predictions
        labels, predicted = self.predictions.labels, self.predictions.logits.argmax(axis=1)
        log_probabilities = log_softmax(self.predictions.logits)
        log_likelihood, right = log_probabilities[np.arange(len(labels)), labels], predicted == labels
        classes = np.arange(len(self.predictions.names.classes))
        self.images = {ARGMAX: 100.0 * right, EXPECTED: 100 * np.exp(log_likelihood), CROSS_ENTROPY: -log_likelihood}
        self.reliability = reliability(np.exp(log_probabilities.max(axis=1)), right)
        self.values = {measure: float(values.mean()) for measure, values in self.images.items()}
        counts, confidence, accuracy = self.reliability
        self.values[CALIBRATION] = 100 * float(np.average(np.abs(accuracy - confidence), weights=counts))
        self.confusion = confusion_matrix(labels, predicted, labels=classes)
        self.f1 = f1_score(labels, predicted, labels=classes, average=None, zero_division=0)
        self.seconds = np.array([epoch.seconds for epoch in result.epochs])
        self.seconds_per_epoch = float(np.median(self.seconds[1:] if len(self.seconds) > 1 else self.seconds))


def reliability(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count, mean confidence and accuracy in each of 15 bins ((m - 1) / 15, m / 15], means of empty bins being 0.

    The mean of their absolute difference, weighted by count, is the expected calibration error (Guo et al. 2017).
    """
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    counts, sum_confidence, sum_right = (np.bincount(bins, each, BINS) for each in (None, confidence, right))
    return counts, sum_confidence / counts.clip(1), sum_right / counts.clip(1)


@dataclass(frozen=True)
class Difference:
    """A mean difference and its 95 % confidence interval, whose ends are nan where there is but one value."""

    measure: Measure
    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return not isnan(self.low)

    @property
    def signed(self) -> str:
        return f"{self.mean:+.{self.measure.digits}f}"

    @property
    def interval(self) -> str:
        low, high = (f"{end:+.{self.measure.digits}f}" for end in (self.low, self.high))
        return f"{low} to {high}" if self.known else "one seed gives no interval"

    def __str__(self) -> str:
        return f"{self.signed} ({self.interval})"


def difference(values: Sequence[float] | np.ndarray, measure: Measure) -> Difference:
    """Student's t interval: mean +- t(0.975, n - 1) s / sqrt(n)."""
    from scipy.stats import t

    mean, n = float(np.mean(values)), len(values)
    half = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / sqrt(n)) if n > 1 else nan
    return Difference(measure, mean, mean - half, mean + half)


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seed, in the order of their seeds."""

    runs: tuple[Run, ...]

    @property
    def settings(self) -> Settings:
        """Those of the first run; all but the seed are those of all."""
        return self.runs[0].result.settings

    @property
    def name(self) -> str:
        return HEADS[self.settings.head].name

    @property
    def title(self) -> str:
        return f"{self.settings.recipe}, {self.name}"

    @property
    def slug(self) -> str:
        """For the names of files."""
        return f"{self.settings.recipe}-{self.settings.head}"

    @property
    def has_own_temperature(self) -> bool:
        """Whether its temperature is the recipe's, or it has none."""
        of = self.settings
        return of.temperature == Settings.of_report(of.recipe, of.head).temperature

    @property
    def report(self) -> Report | None:
        """What was published, where it was of the same data set and settings."""
        return self.settings.report if self.runs[0].result.comparable and not self.settings.departures() else None

    @property
    def kind(self) -> str:
        return "superclass" if self.runs[0].predictions.names.superclasses else "class"

    def values(self, measure: Measure) -> np.ndarray:
        return np.array([run.values[measure] for run in self.runs])

    def final(self, figure: str) -> np.ndarray:
        return np.array([run.final[figure] for run in self.runs])

    def history(self, figure: str) -> np.ndarray:
        """A row a run, a column an epoch."""
        return np.array([[getattr(epoch, figure) for epoch in run.result.epochs] for run in self.runs])

    def f1(self) -> np.ndarray:
        """A row a run, a column a class."""
        return np.array([run.f1 for run in self.runs])

    def confusion(self) -> tuple[list[str], np.ndarray]:
        """Names and counts of the confusion matrix over all seeds: of superclasses, or of classes where none are."""
        predictions, counts = self.runs[0].predictions, sum(run.confusion for run in self.runs)
        if self.kind == "class":
            return readable(predictions.names.classes), counts
        member = np.eye(len(predictions.names.superclasses), dtype=int)[predictions.superclasses]
        return readable(predictions.names.superclasses), member.T @ counts @ member


def group(results: Iterable[Result]) -> list[Group]:
    """The results by recipe, head (the baseline first) and temperature (rising, annealed last)."""

    def order(result: Result) -> tuple[str, bool, int, float]:
        of = result.settings
        temperature = inf if of.temperature == ANNEAL else float(of.temperature or 0)
        return of.recipe, of.head != BASELINE, list(HEADS).index(of.head), temperature

    ordered = sorted(results, key=lambda result: (order(result), result.settings.seed))
    groups = [Group(tuple(map(Run, members))) for _, members in groupby(ordered, key=order)]
    if len({tuple(run.result.settings.seed for run in each.runs) for each in groups}) != 1:
        raise ValueError("report: the runs are compared in pairs of one seed, so all groups need the same seeds")
    return groups


def readable(names: Iterable[str]) -> list[str]:
    return [str(name).replace("_", " ") for name in names]


class Pair(NamedTuple):
    """Two groups to compare, with the same seeds: differences are those of the second from the first."""

    first: Group
    second: Group

    def over_seeds(self, measure: Measure) -> Difference:
        """Paired by seed: runs of one seed share their starting weights and order of images."""
        return difference(self.second.values(measure) - self.first.values(measure), measure)

    def over_images(self, measure: Measure) -> Difference:
        """Of these trained networks: paired by image, each image's values averaged over the seeds."""
        means = [np.mean([run.images[measure] for run in group.runs], axis=0) for group in self]
        return difference(means[1] - means[0], measure)

    def early(self) -> Difference:
        """By argmax, after as many epochs as both have."""
        last = min(group.settings.epochs for group in self) - 1
        first, second = (100 * group.history("test_accuracy")[:, last] for group in self)
        return difference(second - first, ARGMAX)

    def noise_on_second(self) -> Difference:
        """Of what is to be expected with the noise on for the second group alone, from the argmax of the first."""
        return difference(self.second.values(EXPECTED) - self.first.values(ARGMAX), ACCURACY)

    def classes(self, most: int = 10) -> list[tuple[str, list[np.ndarray], float]]:
        """Those that differ most: the name, both F1 (a value a seed), and the difference of their means."""
        f1 = [group.f1() for group in self]
        away = f1[1].mean(axis=0) - f1[0].mean(axis=0)
        names = readable(self.first.runs[0].predictions.names.classes)
        chosen = np.argsort(-np.abs(away), kind="stable")[:most]
        return [(names[index], [values[:, index] for values in f1], float(away[index])) for index in chosen]
