"""What can be gained at all (Amdahl): the share of output layer and head in a training step of `same-padding`.

By count of the multiply-adds that the layers define, and as measured in a step of one worker: what output layer and
head did in it is done once more, in the same buffers, which the caches lost. A head that took no time would save this
share.
"""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from scratchnet.backend import Program
from scratchnet.heads import SoftmaxCrossEntropy
from scratchnet.optimizers import Adam
from scratchnet.training.replica import LocalReplica, quick_ufuncs
from tests.benchmarks import floor, ours
from tests.benchmarks.classes.contenders import OutputStep, update
from tests.benchmarks.classes.operations import CLASSES, FEATURES
from tests.benchmarks.report import table
from tests.benchmarks.setting import BATCHES, Setting
from tests.benchmarks.setting import CLASSES as HUNDRED
from tests.benchmarks.timing import time_works

SECONDS = 30
SETTING = Setting("same-padding", 64, 1)
LARGE = CLASSES[2:]  # between which half of a step is looked for


class Shares(NamedTuple):
    """Multiply-adds of an image in the output layer and in all others; milliseconds, a row a round.

    The columns of `steps` are a step of 100 classes, its output layer and head, and Adam on the output layer's weights;
    those of `large` output layer and head at each of LARGE, then Adam on their weights likewise.
    """

    output_layer: int
    others: int
    steps: np.ndarray
    large: np.ndarray


def shares(seconds: float = SECONDS, setting: Setting = SETTING, large: Sequence[int] = LARGE) -> Shares:
    *others, last = floor.count(setting.network())
    with threadpool_limits(1), quick_ufuncs(), ours.trainer(setting, ours.random_images(setting)) as training:
        engine, done = training.engine, [0]
        assert isinstance(engine, LocalReplica)

        def step() -> None:
            engine.train(done[0] % BATCHES * setting.batch_size, setting.batch_size, done[0])
            done[0] += 1

        step()
        bound = engine.replica.bound[setting.batch_size]
        dense, _ = bound.plan.nodes[-1]
        with Program() as program:
            dense.compute(training=True)
            bound.head.compute(training=True)
            dense.compute_gradients()
        parameters, gradients, _ = dense.flat
        adam = update(Adam(), parameters.copy(), gradients.copy())
        contenders = [OutputStep(SoftmaxCrossEntropy(), number) for number in large]
        adams = [update(Adam(), each.parameters, each.gradients) for each in contenders]
        found = time_works([step, program.replay, adam, *contenders, *adams], seconds, time.process_time)
    return Shares(last.total, sum(each.total for each in others), found[:, :3], found[:, 3:])


def half(classes: Sequence[int], milliseconds: np.ndarray, rest: float) -> float:
    """The number of classes at which milliseconds, on straight lines between logarithms, reach the rest; or inf."""
    x, y = np.log(classes), np.log(milliseconds)
    if not y[0] <= np.log(rest) <= y[-1]:
        return np.inf if np.log(rest) > y[-1] else -np.inf
    return float(np.exp(np.interp(np.log(rest), y, x)))


def printed(found: Shares, large: Sequence[int] = LARGE) -> Iterator[str]:
    whole = found.output_layer + found.others
    yield (
        f"same-padding, {HUNDRED} classes: {found.output_layer:,} of {whole:,} multiply-adds an image are the output "
        f"layer's, {100 * found.output_layer / whole:.2f} %;\nby count it has half of a step's at K = "
        f"{found.others / 3 / FEATURES:,.0f}"
    )
    step, part, adam = (np.percentile(column, (25, 50, 75)) for column in found.steps.T)
    share, with_adam = (
        100 * np.percentile(taken / found.steps[:, 0], (25, 50, 75))
        for taken in (found.steps[:, 1], found.steps[:, 1] + found.steps[:, 2])
    )
    rows = [
        (name, *(f"{value:.3g}" for value in (values[1], values[0], values[2])))
        for name, values in (
            ("a step of one worker (ms)", step),
            ("output layer and head (ms)", part),
            ("Adam on the output layer (ms)", adam),
            ("share of output layer and head (%)", share),
            ("share with its Adam (%)", with_adam),
        )
    ]
    yield table(("as measured", "median", "25 %", "75 %"), rows)
    alone, adams = np.split(np.median(found.large, axis=0), 2)
    rest = step[1] - part[1]
    yield (
        f"as measured, output layer and head take as long as all the rest at K = {half(large, alone, rest):,.0f}; with "
        f"Adam on either side at K = {half(large, alone + adams, rest - adam[1]):,.0f}"
    )
    rows = [(f"K = {number:,}", f"{a:.1f}", f"{b:.1f}") for number, a, b in zip(large, alone, adams, strict=True)]
    yield table(("output layer and head alone", "ms", "their Adam, ms"), rows)
