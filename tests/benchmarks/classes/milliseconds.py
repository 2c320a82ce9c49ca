"""Milliseconds of output layer and head, forward and backward, against the number of classes; the update apart.

64 rows of 256 features, recorded and replayed as in a training step, with new labels and noise each time. One thread's
processor time, so that a busy machine takes nothing but its cache. A round times every head and every update once at
every number of classes, each after a pass over more memory than the caches hold: so it is in training, where the rest
of the network and the optimizer come between. Slopes over all four numbers of classes, and over the last two decades,
1,000 to 100,000, where the fixed cost of calls no longer shows: chosen before anything was timed. The bar is on those.
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from math import inf
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from scratchnet.experiments.report.figures import png
from scratchnet.optimizers import SGD, Adam
from scratchnet.training.replica import quick_ufuncs
from tests.benchmarks.breakdown import column, function_name
from tests.benchmarks.classes.contenders import (
    COLORS,
    CONTENDERS,
    OutputStep,
    TouchedRows,
    Work,
    update,
)
from tests.benchmarks.classes.operations import CLASSES, FEATURES, ROWS, operations
from tests.benchmarks.classes.slopes import Slope, slope
from tests.benchmarks.report import table
from tests.benchmarks.timing import time_works

SECONDS = 120
DECADES = 1_000  # classes and more: where the slope counts
BARS = {"softmax": (0.8, 1.2), "gumbel": (0.8, 1.2), "two-level": (0.35, 0.65), "sampled": (-inf, 0.15)}
ADAM, SGD_ALL = "Adam, all rows", "SGD, all rows"
SOME_ROWS = {"two-level": "SGD, two-level's rows", "sampled": "SGD, sampled's rows"}
KINDS = "matrix products", "ufuncs", "copies"
BLOCKS = {"_products": KINDS[0], "_products_back": KINDS[0], "_add": KINDS[2], "take": KINDS[2]}  # of kernels/rows.py
ELSEWHERE = 16 << 20  # numbers, 64 MB
STEPS = 5  # with a clock around each call


class Times(NamedTuple):
    """Milliseconds, a row a round and a column a number of classes, by contender or update; and where they went.

    `kinds` has by contender, for the most classes, the milliseconds of each kind of work.
    """

    classes: tuple[int, ...]
    rounds: dict[str, np.ndarray]
    kinds: dict[str, dict[str, float]]


def times(classes: Sequence[int] = CLASSES, seconds: float = SECONDS) -> Times:
    steps = {
        (name, number): OutputStep(kind.make(number), number) for number in classes for name, kind in CONTENDERS.items()
    }
    works: dict[tuple[str, int], Work] = dict(steps)
    for number in classes:
        softmax = steps["softmax", number]
        for optimizer, name in (Adam(), ADAM), (SGD(), SGD_ALL):
            works[name, number] = update(optimizer, softmax.parameters, softmax.gradients)
        works |= {(name, number): TouchedRows(head, number) for head, name in SOME_ROWS.items()}
    elsewhere = np.zeros(ELSEWHERE, np.float32)
    lose = partial(np.add, elsewhere, np.float32(1), elsewhere)
    with threadpool_limits(1), quick_ufuncs():
        found = time_works([each for work in works.values() for each in (lose, work)], seconds, time.process_time)
        kinds = {name: _kinds(steps[name, max(classes)], lose) for name in CONTENDERS}
    columns = dict(zip(works, found[:, 1::2].T, strict=True))
    names = dict.fromkeys(name for name, _ in works)
    return Times(tuple(classes), {name: np.stack([columns[name, n] for n in classes], 1) for name in names}, kinds)


def _kinds(step: OutputStep, lose: Work) -> dict[str, float]:
    """Medians of a clock around each call, added up by what it does."""
    clock, calls = time.process_time, step.program.calls
    seconds = np.empty((STEPS, len(calls)))
    for row in seconds:
        lose()
        for index, (function, arguments) in enumerate(calls):
            began = clock()
            function(*arguments)
            row[index] = clock() - began
    total = dict.fromkeys(KINDS, 0.0)
    for (function, _), median in zip(calls, np.median(seconds, axis=0), strict=True):
        name = function_name(function)
        total[BLOCKS.get(name, column(name))] += 1e3 * float(median)
    return total


class Verdict(NamedTuple):
    """The slopes of a contender over all numbers of classes and over the last decades, and whether the bar is met."""

    all: Slope
    last: Slope
    met: bool


def verdict(found: Times, name: str) -> Verdict:
    rounds, classes = found.rounds[name], np.array(found.classes)
    last = classes >= DECADES
    whole, part = slope(classes, rounds), slope(classes[last], rounds[:, last])
    low, high = BARS[CONTENDERS[name].formula]
    return Verdict(whole, part, low < part.low and part.high < high)


def printed(found: Times) -> Iterator[str]:
    contenders = [name for name in found.rounds if name in CONTENDERS]
    count = len(found.rounds[contenders[0]])
    yield f"output layer and head, forward and backward, {ROWS} rows, {FEATURES} features, {count} rounds"
    yield table(("ms: median (quartiles)", *(f"K = {number:,}" for number in found.classes)), _rows(found, contenders))
    yield table(
        ("its weights' update apart", *(f"K = {number:,}" for number in found.classes)),
        _rows(found, [name for name in found.rounds if name not in CONTENDERS]),
    )
    rows = []
    for name in contenders:
        low, high = BARS[CONTENDERS[name].formula]
        bar = f"below {high}" if low == -inf else f"{low} to {high}"
        slopes = verdict(found, name)
        rows.append((name, str(slopes.all), str(slopes.last), bar, "met" if slopes.met else "missed"))
    header = "slopes (95 % interval)", "all K", f"K from {DECADES:,}", "bar", "verdict"
    yield table(header, rows)
    adam = np.median(found.rounds[ADAM], axis=0)
    rows = []
    for name in contenders:
        own = np.median(found.rounds[name], axis=0)
        rows.append((name, *(f"{100 * share:.0f} %" for share in adam / (own + adam))))
    yield table(("Adam's share of output layer, head and Adam", *(f"K = {n:,}" for n in found.classes)), rows)
    rows = []
    for name in contenders:
        kinds, most = found.kinds[name], max(found.classes)
        of = operations(CONTENDERS[name].formula, most)
        speed = (of.forward + of.backward) / kinds["matrix products"] / 1e6 if kinds["matrix products"] else 0
        rows.append((name, *(f"{kinds[kind]:.2f}" for kind in KINDS), f"{speed:.1f}"))
    yield table((f"where they go at K = {most:,} (ms)", *KINDS, "G multiply-adds a second"), rows)


def _rows(found: Times, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for name in names:
        low, medians, high = np.percentile(found.rounds[name], (25, 50, 75), axis=0)
        yield name, *(f"{b:.3g} ({a:.3g} to {c:.3g})" for a, b, c in zip(low, medians, high, strict=True))


def figure(found: Times) -> bytes:
    """A PNG: medians on logarithmic scales, with bars to the quartiles, and Adam's update dashed."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(4.5, 5), layout="constrained")
    axes = drawing.subplots()
    for name in (*(name for name in found.rounds if name in CONTENDERS), ADAM):
        low, medians, high = np.percentile(found.rounds[name], (25, 50, 75), axis=0)
        style = {"color": COLORS[name], "fmt": "o-"} if name in COLORS else {"color": "#555555", "fmt": "o--"}
        axes.errorbar(found.classes, medians, (medians - low, high - medians), capsize=3, label=name, **style)
    axes.set(xscale="log", yscale="log", xlabel="classes", ylabel="output layer and head, forward and backward (ms)")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.01), borderaxespad=0, frameon=False, ncols=2)
    return png(drawing)
