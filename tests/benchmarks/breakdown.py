"""Where the time of our training step goes, by layer and by kind of work.

`python -m tests.benchmarks.breakdown`. Each worker replays its recorded step call by call with a clock around each.
"""

import multiprocessing
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from math import prod
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from scratchnet.backend import BatchSlice, run
from scratchnet.data import Dataset
from scratchnet.experiments.recipes import RECIPES
from scratchnet.training.arrays import SharedArrays
from scratchnet.training.replica import Bound, LocalReplica, Peers, Replica, TrainingSpec, quick_ufuncs
from scratchnet.training.workers import Barrier
from tests.benchmarks import ours, report
from tests.benchmarks.setting import Setting, chosen_recipes, options
from tests.benchmarks.timing import Contender

WARM, STEPS = 5, 40
IMAGES, MEETING = "images: gather, uint8 to float32", "metrics, meeting of the workers"
COLUMNS = "matrix products", "ufuncs", "copies", "waiting", "together"


class Profile(NamedTuple):
    """Median milliseconds a step by (part of the step, function), and what one step takes without the clock."""

    milliseconds: dict[tuple[str, str], float]
    calls: int
    multiply_adds: int  # in matrix products
    step: float


def section(name: str) -> None:
    """In a program, does nothing but tell that the calls after it belong to this part of the step."""


class MarkedReplica(Replica):
    """A replica whose programs tell which layer a call belongs to."""

    def _bind(self, batch: BatchSlice) -> Bound:
        bound = super()._bind(batch)
        for layer, _ in bound.plan.nodes:
            layer.compute = marked(f"{layer.name} forward", layer.compute)  # type: ignore[method-assign]
            layer.compute_gradients = marked(f"{layer.name} backward", layer.compute_gradients)  # type: ignore
        bound.head.compute = marked("head", bound.head.compute)  # type: ignore[method-assign]
        self.optimizer.update = marked(type(self.optimizer).__name__, self.optimizer.update)  # type: ignore
        return bound


def marked(name: str, method: Callable[..., None]) -> Callable[..., None]:
    def compute(*arguments: Any, **options: Any) -> None:
        run(section, name)
        method(*arguments, **options)
        run(section, MEETING)

    return compute


def function_name(function: Any) -> str:
    """Of a recorded call: "matmul", "add", "add.reduce", "copyto", ..."""
    function = function.func if isinstance(function, partial) else function
    owner = getattr(function, "__self__", None)
    return f"{owner.__name__}.{function.__name__}" if isinstance(owner, np.ufunc) else function.__name__


def column(function: str) -> str:
    kinds = {"matmul": "matrix products", "wait": "waiting"} | dict.fromkeys(("copyto", "fill", "gather"), "copies")
    return kinds.get(function, "ufuncs")


def profile(replica: Replica, batch_size: int) -> Profile:
    """Of the training step of one replica; others must profile theirs at the same time."""
    for step in range(WARM):
        replica.train(0, batch_size, step)
    (program,) = replica.programs.values()
    place, calls, keys = IMAGES, [], []
    for function, arguments in program.calls:
        if function is section:
            (place,) = arguments
        else:
            calls.append((function, arguments))
            keys.append((place, function_name(function)))
    clock, whole, seconds = time.perf_counter, [], np.empty((STEPS, len(calls)))
    first, batches = replica.start, len(replica.arrays["order"]) // batch_size
    with quick_ufuncs():
        for step in range(STEPS):
            replica.start = first + step % batches * batch_size
            began = clock()
            program.replay()
            whole.append(clock() - began)
            for index, (function, arguments) in enumerate(calls):
                began = clock()
                function(*arguments)
                seconds[step, index] = clock() - began
    milliseconds: dict[tuple[str, str], float] = defaultdict(float)
    for key, value in zip(keys, np.median(seconds, axis=0), strict=True):
        milliseconds[key] += 1e3 * value
    products = (arguments for function, arguments in calls if function_name(function) == "matmul")
    work = sum(prod(np.broadcast_shapes(a.shape[:-1], (*b.shape[:-2], 1))) * prod(b.shape[-2:]) for a, b in products)
    return Profile(dict(milliseconds), len(calls), work, 1e3 * float(np.median(whole)))


def serve(
    pipe: Connection, rank: int, spec: TrainingSpec, arrays: SharedArrays, barrier: Barrier, batch_size: int
) -> None:
    """As the target of a contender: the profile of one worker."""

    def wait() -> None:
        barrier.wait(rank)

    with threadpool_limits(1):
        replica = MarkedReplica(spec, arrays, rank, Peers(wait, arrays["exchange"]))
        pipe.send(profile(replica, batch_size))


def profiles(setting: Setting, dataset: Dataset | None = None) -> list[Profile]:
    """One a worker, all at once; without a data set, of random images."""
    with ours.trainer(setting, dataset or ours.random_images(setting)) as trainer, ExitStack() as stack:
        engine = trainer.engine
        if isinstance(engine, LocalReplica):
            return [profile(MarkedReplica(engine.replica.spec, engine.arrays), trainer.batch_size)]
        barrier = Barrier(multiprocessing.get_context("spawn"), trainer.workers)
        workers = [
            stack.enter_context(
                Contender(f"worker {rank}", serve, rank, engine.spec, engine.arrays, barrier, trainer.batch_size)
            )
            for rank in range(trainer.workers)
        ]
        return [worker.answer() for worker in workers]


def describe(found: list[Profile]) -> str:
    """Tables of the mean over the workers."""
    keys = found[0].milliseconds
    mean = {key: sum(worker.milliseconds[key] for worker in found) / len(found) for key in keys}
    layers: dict[str, dict[str, float]] = {}
    functions: dict[str, float] = defaultdict(float)
    for (place, function), value in mean.items():
        row = layers.setdefault(place, dict.fromkeys(COLUMNS, 0.0))
        row[column(function)] += value
        row["together"] += value
        functions[function] += value
    total = {name: sum(row[name] for row in layers.values()) for name in COLUMNS}
    rows = [(place, *row.values()) for place, row in (layers | {"together": total}).items()]
    work = sum(worker.multiply_adds for worker in found)
    speed = work / len(found) / total["matrix products"] / 1e6
    ranking = sorted(functions.items(), key=lambda item: -item[1])
    return "\n".join(
        [
            report.table(("our step, ms of a worker", *COLUMNS), rows, decimals=2),
            f"  (a convolution does the ReLU and pooling after it; medians of {STEPS} steps, a clock around each call)",
            "  by function: " + ", ".join(f"{name} {value:.2f}" for name, value in ranking if value >= 0.005),
            f"  {found[0].calls:,} calls; without the clock around each, a step takes {found[0].step:.2f} ms",
            f"  matrix products: {work / 1e9:.3f} G multiply-adds in all workers, {speed:.0f} G a second in each",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = options("Our training step by layer and by kind of work.").parse_args(arguments)
    print(report.machine())
    for recipe in chosen_recipes(chosen.recipe):
        setting = Setting(recipe, RECIPES[recipe].batch_size, chosen.workers)
        print(f"\n{recipe}, batch {setting.batch_size}, {chosen.workers} workers")
        print(describe(profiles(setting)))


if __name__ == "__main__":
    main()
