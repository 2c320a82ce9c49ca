"""Prediction apart: the largest logit needs no softmax; and one draw from the softmax can be had in two ways.

By Gumbel-max, the largest of z + g: K random numbers and 2 K logarithms a row. By softmax and a cumulative sum, and the
place where that passes a random number: K exponentials and one random number a row. A running sum is one addition after
the other, which the processor cannot overlap; so also in blocks, where first the block is found by the running sum of
the blocks' sums, then the place in it. One thread, 64 rows, buffers made before. The product that makes the logits is
timed beside them.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from scratchnet.backend.noise import SAMPLING, TICK, fill_uniform, generator
from scratchnet.training.replica import quick_ufuncs
from tests.benchmarks.classes.contenders import Work
from tests.benchmarks.classes.operations import CLASSES, FEATURES, ROWS, clusters
from tests.benchmarks.report import table
from tests.benchmarks.timing import time_works

SECONDS = 40
AT_ONCE = 3_000  # classes: a round has as many steps of K classes as make these, and at least one
GUMBEL_MAX, *SUMS = "draw by Gumbel-max", "draw by cumulative sum", "draw by the same, in blocks"
NAMES = "the logits: one product", "largest logit", GUMBEL_MAX, *SUMS


class Prediction:
    """For logits (rows, classes) a class for each row: the `largest`, or a draw in one of three ways."""

    def __init__(self, logits: np.ndarray, seed: int = 0) -> None:
        rows, classes = logits.shape
        self.logits, self.seed, self.step = logits, seed, 0
        self.noise = np.empty((rows, classes + -classes % TICK), np.float32)
        self.width = clusters(classes)  # of a block; the last one has zeros at its end
        self.blocks = np.zeros((rows, -(-classes // self.width), self.width), np.float32)
        self.values = self.blocks.reshape(rows, -1)[:, :classes]
        self.sums = np.empty(logits.shape, np.float64)  # float32 would lose the small ones
        self.below = np.empty(logits.shape, bool)

    def largest(self) -> np.ndarray:
        return self.logits.argmax(axis=1)

    def by_gumbel_max(self) -> np.ndarray:
        self.step += 1
        fill_uniform(self.seed, SAMPLING, self.step, 0, self.noise)
        noise, values = self.noise[:, : self.logits.shape[1]], self.values
        np.negative(noise, noise)
        np.log1p(noise, noise)
        np.negative(noise, noise)
        np.log(noise, noise)
        np.subtract(self.logits, noise, values)
        return values.argmax(axis=1)

    def by_cumulative_sum(self) -> np.ndarray:
        self._exponentials()
        np.cumsum(self.values, axis=1, out=self.sums)
        np.less_equal(self.sums, self._chance() * self.sums[:, -1:], self.below)
        return self.below.argmin(axis=1)  # the first that is not

    def by_blocks(self) -> np.ndarray:
        self._exponentials()
        ends = np.cumsum(self.blocks.sum(axis=2), axis=1, dtype=np.float64)
        wanted = self._chance() * ends[:, -1:]
        block = np.minimum((ends <= wanted).sum(axis=1), ends.shape[1] - 1)
        rows = np.arange(len(block))
        before = np.where(block > 0, ends[rows, block - 1], 0)
        inside = before[:, None] + np.cumsum(self.blocks[rows, block], axis=1, dtype=np.float64)
        place = block * self.width + np.minimum((inside <= wanted).sum(axis=1), self.width - 1)
        return np.minimum(place, self.logits.shape[1] - 1)

    def _exponentials(self) -> None:
        np.subtract(self.logits, self.logits.max(axis=1, keepdims=True), self.values)
        np.exp(self.values, self.values)

    def _chance(self) -> np.ndarray:
        self.step += 1
        return generator(self.seed, SAMPLING, self.step).random((len(self.logits), 1))


def times(classes: Sequence[int] = CLASSES, seconds: float = SECONDS) -> dict[int, np.ndarray]:
    """By number of classes, milliseconds: a row a round and a column a way."""
    random = np.random.default_rng(0)
    works: list[Work] = []
    with threadpool_limits(1), quick_ufuncs():
        for number in classes:
            features = random.standard_normal((ROWS, FEATURES), np.float32)
            weights = random.standard_normal((FEATURES, number), np.float32) / np.float32(16)
            logits = features @ weights
            way, product = Prediction(logits), partial(np.matmul, features, weights, np.empty_like(logits))
            ways = product, way.largest, way.by_gumbel_max, way.by_cumulative_sum, way.by_blocks
            works += [repeated(each, number) for each in ways]
        found = time_works(works, seconds, time.process_time).reshape(-1, len(classes), len(NAMES))
    return {number: found[:, place] / repeats(number) for place, number in enumerate(classes)}


def repeats(classes: int) -> int:
    """How often a step of so many classes is made in a round."""
    return max(1, AT_ONCE // classes)


def repeated(work: Work, classes: int) -> Callable[[], None]:
    count = repeats(classes)

    def several() -> None:
        for _ in range(count):
            work()

    return several


def printed(found: dict[int, np.ndarray]) -> Iterator[str]:
    count = len(next(iter(found.values())))
    yield f"one prediction for each of {ROWS} rows, {count} rounds, ms: median (quartiles)"
    rows = []
    for place, name in enumerate(NAMES):
        quartiles = [np.percentile(rounds[:, place], (25, 50, 75)) for rounds in found.values()]
        rows.append((name, *(f"{b:.3g} ({a:.3g} to {c:.3g})" for a, b, c in quartiles)))
    for place in 3, 4:
        quartiles = [np.percentile(rounds[:, 2] / rounds[:, place], (25, 50, 75)) for rounds in found.values()]
        name = f"Gumbel-max by {NAMES[place].removeprefix('draw by ')}"
        rows.append((name, *(f"{b:.2f} ({a:.2f} to {c:.2f})" for a, b, c in quartiles)))
    yield table(("", *(f"K = {number:,}" for number in found)), rows)
