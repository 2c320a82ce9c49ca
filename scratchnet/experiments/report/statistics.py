"""What the runs of a study measured, grouped by all but the seed, and 95 % intervals of differences."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import inf, isnan, nan, sqrt

import numpy as np

from scratchnet.experiments.config import ANNEAL, Temperature
from scratchnet.experiments.metrics import log_softmax
from scratchnet.experiments.published import Report
from scratchnet.experiments.recipes import LEARNING_RATE, RECIPES, Recipe
from scratchnet.experiments.result import Result

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
        classes = np.arange(len(self.predictions.class_names))
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
class Group:
    """Runs that differ in nothing but their seed, in the order of their seeds."""

    recipe: Recipe
    head: str
    temperature: Temperature | None
    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        return "softmax" if self.head == "softmax" else "Gumbel-softmax"

    @property
    def epochs(self) -> int:
        return len(self.runs[0].result.epochs)

    @property
    def report(self) -> Report | None:
        """What was published, where it was of the same data set and settings."""
        result, report = self.runs[0].result, self.recipe.reports[self.head]
        ours = result.batch_size, result.learning_rate, self.epochs, self.temperature or self.recipe.temperature
        theirs = self.recipe.batch_size, LEARNING_RATE, report.epochs, self.recipe.temperature
        return report if result.comparable and ours == theirs else None

    def values(self, measure: Measure) -> np.ndarray:
        return np.array([run.values[measure] for run in self.runs])

    def confusion(self) -> tuple[list[str], np.ndarray]:
        """Names and counts of the confusion matrix over all seeds: of superclasses, or of classes where none are."""
        predictions, counts = self.runs[0].predictions, sum(run.confusion for run in self.runs)
        if not len(predictions.superclass_names):
            return readable(predictions.class_names), counts
        member = np.eye(len(predictions.superclass_names), dtype=int)[predictions.superclasses]
        return readable(predictions.superclass_names), member.T @ counts @ member


def readable(names: Iterable[str]) -> list[str]:
    return [str(name).replace("_", " ") for name in names]


def group(results: Iterable[Result]) -> list[Group]:
    """The results by recipe, head (softmax first) and temperature (rising, annealed last)."""

    def order(result: Result) -> tuple[str, bool, float]:
        temperature = result.temperature or 0
        return result.recipe, result.head != "softmax", inf if temperature == ANNEAL else float(temperature)

    ordered = sorted(results, key=lambda result: (order(result), result.seed))
    groups = [tuple(map(Run, members)) for _, members in groupby(ordered, key=order)]
    if len({tuple(run.result.seed for run in runs) for runs in groups}) != 1:
        raise ValueError("report: the runs are compared in pairs of one seed, so all groups need the same seeds")
    return [Group(RECIPES[(r := runs[0].result).recipe], r.head, r.temperature, runs) for runs in groups]


@dataclass(frozen=True)
class Difference:
    """A mean difference and its 95 % confidence interval, whose ends are nan where there is but one value."""

    measure: Measure
    mean: float
    low: float
    high: float

    @property
    def told(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0

    @property
    def interval(self) -> str:
        low, high = (f"{end:+.{self.measure.digits}f}" for end in (self.low, self.high))
        return "one seed gives no interval" if isnan(self.low) else f"{low} to {high}"

    def __str__(self) -> str:
        return f"{self.mean:+.{self.measure.digits}f} ({self.interval})"


def difference(values: Sequence[float] | np.ndarray, measure: Measure) -> Difference:
    """Student's t interval: mean +- t(0.975, n - 1) s / sqrt(n)."""
    from scipy.stats import t

    mean, n = float(np.mean(values)), len(values)
    half = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / sqrt(n)) if n > 1 else nan
    return Difference(measure, mean, mean - half, mean + half)


def over_seeds(first: Group, second: Group, measure: Measure) -> Difference:
    """Second less first, paired by seed: runs of one seed share their starting weights and order of images."""
    return difference(second.values(measure) - first.values(measure), measure)


def over_images(first: Group, second: Group, measure: Measure) -> Difference:
    """Second less first of these trained networks: paired by image, each image's values averaged over the seeds."""
    means = [np.mean([run.images[measure] for run in group.runs], axis=0) for group in (first, second)]
    return difference(means[1] - means[0], measure)
