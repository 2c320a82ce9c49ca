"""What a head costs: its forward and backward pass by number of classes, and its share of a training step.

CPU only: on a GPU the head is one kernel of a graph, which a clock out here cannot see.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from time import perf_counter
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from scratchnet.backend import Memory, Program, get_device, whole
from scratchnet.data import Dataset
from scratchnet.experiments.recipes import Recipe
from scratchnet.heads import GumbelSoftmaxCrossEntropy, SoftmaxCrossEntropy
from scratchnet.optimizers import Adam
from scratchnet.training import Trainer
from scratchnet.training.replica import quick_ufuncs
from scratchnet.training.trainer import LocalReplica

CLASSES = 10, 100, 1_000, 10_000, 100_000
ROUNDS = 5  # at least, however little time there is
Work = Callable[[], None]


@dataclass(frozen=True)
class HeadTime:
    """Median and quartiles of the milliseconds that forward and backward of a head alone take, on float32 logits."""

    head: str
    classes: int
    batch_size: int
    milliseconds: float
    low: float
    high: float


@dataclass(frozen=True)
class StepShare:
    """Of the steps of one worker: medians of the head's time, of the whole step's, and of the first by the second."""

    recipe: str
    head: str
    head_milliseconds: float
    step_milliseconds: float
    share: float


@dataclass(frozen=True)
class HeadCost:
    """`dataclasses.asdict` gives what JSON can keep, and `of` reads that."""

    times: tuple[HeadTime, ...]
    shares: tuple[StepShare, ...]

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "HeadCost":
        return cls(
            tuple(HeadTime(**row) for row in content["times"]), tuple(StepShare(**row) for row in content["shares"])
        )


def measure_head_cost(
    dataset: Dataset,
    recipes: Sequence[Recipe],
    classes: Sequence[int] = CLASSES,
    batch_size: int = 64,
    seconds: float = 20,
) -> HeadCost:
    """Time both heads alone and in the recipes' steps on the data set, in about `seconds`, with one BLAS thread."""
    seconds /= len(classes) + len(recipes)
    with threadpool_limits(1), quick_ufuncs():
        times = tuple(time for number in classes for time in _times(number, batch_size, seconds))
        shares = tuple(share for recipe in recipes for share in _shares(dataset, recipe, seconds))
    return HeadCost(times, shares)


def time_rounds(works: Sequence[Work], seconds: float) -> np.ndarray:
    """Milliseconds, a row a round and a column a work; a round does all in turn, so that drift hits them alike."""
    rounds: list[list[float]] = []
    end = perf_counter() + seconds
    while len(rounds) < ROUNDS or perf_counter() < end:
        clock = [perf_counter()]
        for work in works:
            work()
            clock.append(perf_counter())
        rounds.append(clock)
    return 1e3 * np.diff(rounds)


def _times(classes: int, batch_size: int, seconds: float) -> Iterator[HeadTime]:
    heads = SoftmaxCrossEntropy(), GumbelSoftmaxCrossEntropy()
    found = time_rounds([_head_alone(head, classes, batch_size) for head in heads], seconds)
    for head, (low, median, high) in zip(heads, np.percentile(found, (25, 50, 75), axis=0).T.tolist(), strict=True):
        yield HeadTime(head.name, classes, batch_size, median, low, high)


def _head_alone(head: SoftmaxCrossEntropy, classes: int, batch_size: int) -> Work:
    """Its next step, replayed as in training, with new noise."""
    random, memory = np.random.default_rng(0), Memory(get_device("cpu"), np.float32)
    head.build((classes,))
    bound = head.bound(whole(batch_size), memory, (), input_gradient=True)
    bound.x[...] = random.standard_normal(bound.x.shape, np.float32)
    bound.labels[...] = random.integers(0, classes, batch_size)
    with Program() as program:
        memory.record.load()
        bound.compute(training=True)

    def step() -> None:
        head.clock.step += 1
        program.replay()

    return step


def _shares(dataset: Dataset, recipe: Recipe, seconds: float) -> Iterator[StepShare]:
    heads = SoftmaxCrossEntropy(), GumbelSoftmaxCrossEntropy(recipe.temperature)
    with ExitStack() as stack:
        found = time_rounds([work for head in heads for work in _step(dataset, recipe, head, stack)], seconds)
    for head, step, part in zip(heads, found.T[::2], found.T[1::2], strict=True):
        yield StepShare(recipe.name, head.name, *(float(np.median(x)) for x in (part, step, part / step)))


def _step(dataset: Dataset, recipe: Recipe, head: SoftmaxCrossEntropy, stack: ExitStack) -> tuple[Work, Work]:
    """The next training step; and what the head did in it once more, in the same buffers, which the caches lost."""
    network = recipe.network(dataset.num_classes)
    network.build(dataset.train.images.shape[1:])
    trainer = stack.enter_context(Trainer(network, head, Adam(), dataset, batch_size=recipe.batch_size, workers=1))
    engine, size, indices = trainer.engine, trainer.batch_size, count()
    assert isinstance(engine, LocalReplica)
    engine.arrays["order"][...] = np.random.default_rng(0).permutation(len(dataset.train))

    def step() -> None:
        index = next(indices)
        engine.train(index % (len(dataset.train) // size) * size, size, index)

    step()
    with Program() as program:
        engine.replica.bound[size].head.compute(training=True)
    return step, program.replay
