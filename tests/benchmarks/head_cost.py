"""What a head costs: its forward and backward pass by number of classes, and its share of a training step.

    python -m tests.benchmarks.head_cost --figure docs/figures/cost.png

CPU only: on a GPU the head is one kernel of a graph, which a clock out here cannot see.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from scratchnet.backend import Memory, Program, get_device, whole
from scratchnet.data import Dataset, load_dataset
from scratchnet.experiments.recipes import RECIPES, Recipe
from scratchnet.experiments.report.figures import color_of, png
from scratchnet.heads import GumbelSoftmaxCrossEntropy, Head, SoftmaxCrossEntropy
from scratchnet.optimizers import Adam
from scratchnet.training import Trainer
from scratchnet.training.replica import LocalReplica, quick_ufuncs
from tests.benchmarks.report import machine, table
from tests.benchmarks.setting import chosen_recipes, options
from tests.benchmarks.timing import time_works

CLASSES = 10, 100, 1_000, 10_000, 100_000
Work = Callable[[], None]


@dataclass(frozen=True)
class HeadTime:
    """Median and quartiles of the milliseconds that forward and backward of a head alone take, on float32 logits."""

    head: str
    classes: int
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


def head_times(classes: Sequence[int] = CLASSES, batch_size: int = 64, seconds: float = 12) -> list[HeadTime]:
    """Time both heads of the reports alone, in about `seconds`, with one BLAS thread; each round has both."""
    found = []
    with threadpool_limits(1), quick_ufuncs():
        for number in classes:
            heads = SoftmaxCrossEntropy(), GumbelSoftmaxCrossEntropy()
            rounds = time_works([_head_alone(head, number, batch_size) for head in heads], seconds / len(classes))
            quartiles = np.percentile(rounds, (25, 50, 75), axis=0).T.tolist()
            for head, (low, median, high) in zip(heads, quartiles, strict=True):
                found.append(HeadTime(head.name, number, median, low, high))
    return found


def step_shares(dataset: Dataset, recipe: Recipe, seconds: float = 4) -> list[StepShare]:
    """Time both heads of the reports in the recipe's steps on the data set, in about `seconds`."""
    heads = SoftmaxCrossEntropy(), GumbelSoftmaxCrossEntropy(recipe.temperature)
    with threadpool_limits(1), quick_ufuncs(), ExitStack() as stack:
        works = [work for head in heads for work in _step(dataset, recipe, head, stack)]
        rounds = time_works(works, seconds)
    return [
        StepShare(recipe.name, head.name, *(float(np.median(x)) for x in (part, step, part / step)))
        for head, step, part in zip(heads, rounds.T[::2], rounds.T[1::2], strict=True)
    ]


def _head_alone(head: Head, classes: int, batch_size: int) -> Work:
    """Its next step, replayed as in training, with new noise."""
    random, memory = np.random.default_rng(0), Memory(get_device("cpu"), np.float32)
    head.build((classes,))
    bound = head.bound(whole(batch_size), memory, (), input_gradient=True)
    bound.x[...] = random.standard_normal(bound.x.shape, np.float32)
    bound.labels[...] = random.integers(0, classes, batch_size)
    with Program() as program:
        memory.record.load()
        bound.compute(training=True)
        bound.compute_gradients()

    def step() -> None:
        head.clock.step += 1
        program.replay()

    return step


def _step(dataset: Dataset, recipe: Recipe, head: Head, stack: ExitStack) -> tuple[Work, Work]:
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


def figure(times: Sequence[HeadTime]) -> bytes:
    """A PNG: medians on logarithmic scales, with bars to the quartiles."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = drawing.subplots()
    for head in dict.fromkeys(time.head for time in times):
        rows = [(time.classes, time.low, time.milliseconds, time.high) for time in times if time.head == head]
        classes, low, medians, high = np.array(rows).T
        bars, color = (medians - low, high - medians), color_of(head)
        axes.errorbar(classes, medians, bars, fmt="o-", capsize=3, color=color, label=head)
    axes.set(xscale="log", yscale="log", xlabel="classes", ylabel="forward and backward (ms)")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.01), borderaxespad=0, frameon=False)
    return png(drawing)


def printed(times: Sequence[HeadTime], shares: Sequence[StepShare]) -> Iterator[str]:
    """Tables, and how often one head takes longer than softmax: where the quartiles of their times do not overlap."""
    rows = [
        (f"{time.classes:,} {time.head}", *(f"{value:.3g}" for value in (time.milliseconds, time.low, time.high)))
        for time in times
    ]
    yield table(("head alone, 64 images (ms)", "median", "25 %", "75 %"), rows)
    softmax = {time.classes: time for time in times if time.head == "softmax"}
    for head in dict.fromkeys(time.head for time in times if time.head != "softmax"):
        pairs = [(softmax[time.classes], time) for time in times if time.head == head]
        longer, shorter = sum(b.low > a.high for a, b in pairs), sum(b.high < a.low for a, b in pairs)
        ratios = [b.milliseconds / a.milliseconds for a, b in pairs]
        yield (
            f"{head} takes longer than softmax at {longer} of {len(pairs)} numbers of classes, and less long at "
            f"{shorter} (where the quartiles do not overlap); the ratio of the medians is {min(ratios):.2f} to "
            f"{max(ratios):.2f}"
        )
    rows = [
        (f"{s.recipe} {s.head}", *(f"{x:.3g}" for x in (s.head_milliseconds, s.step_milliseconds, 100 * s.share)))
        for s in shares
    ]
    yield table(("in a step of one worker (medians)", "head (ms)", "step (ms)", "share (%)"), rows)


def main() -> None:
    parser = options("Time the heads alone, and their share of a training step.")
    parser.add_argument("--data", default="auto", help="as in train_cifar.py (default: auto)")
    parser.add_argument("--figure", type=Path, help="draw the times of the heads alone into this PNG file")
    arguments = parser.parse_args()
    print(machine(), flush=True)
    dataset, times = load_dataset(arguments.data), head_times()
    shares = [share for name in chosen_recipes(arguments.recipe) for share in step_shares(dataset, RECIPES[name])]
    print(*printed(times, shares), sep="\n\n")
    if arguments.figure:
        arguments.figure.write_bytes(figure(times))


if __name__ == "__main__":
    main()
