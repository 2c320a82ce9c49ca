"""How milliseconds grow with the number of classes: slopes on logarithmic scales, with intervals.

A round times everything at every number of classes, one after the other, so a drift of the machine touches all of a
round alike. The slope is that of the least-squares line through the logarithms of the medians over the rounds; its
95 % interval holds the middle 95 % of the slopes of 2,000 resamples of whole rounds (the percentile bootstrap).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 2_000


class Slope(NamedTuple):
    """milliseconds ~ classes ** value, and the ends of the interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def slope(classes: Sequence[int], rounds: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Slope:
    """Of milliseconds `rounds`, a row a round and a column a number of classes."""
    chosen = np.random.default_rng(seed).integers(0, len(rounds), (resamples, len(rounds)))
    low, high = np.percentile(_slopes(classes, rounds[chosen]), (2.5, 97.5))
    return Slope(float(_slopes(classes, rounds)), float(low), float(high))


def _slopes(classes: Sequence[int], rounds: np.ndarray) -> np.ndarray:
    """Of milliseconds (..., rounds, number of classes)."""
    x, y = np.log(classes), np.log(np.median(rounds, axis=-2))
    x = x - x.mean()
    return y @ x / (x @ x)
