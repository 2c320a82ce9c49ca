"""Epochs of train_cifar.py against the same epochs in PyTorch: `python -m tests.benchmarks.epoch`.

Both train one network on, epoch by epoch in turn, as later epochs are what a person waits for. An epoch is the training
on all images in a new order, the evaluation of the test images and, ours only, the writing of the run's files. It needs
CIFAR-100, at $SCRATCHNET_DATA or named with --data.
"""

import os
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from scratchnet.backend.noise import SHUFFLE, generator
from scratchnet.data import load_dataset
from scratchnet.data.load import ENVIRONMENT_VARIABLE
from scratchnet.experiments import RECIPES, Config, Observer, configure, run_experiment
from tests.benchmarks import breakdown, floor, report, torch_epoch
from tests.benchmarks.setting import Setting, chosen_recipes, options
from tests.benchmarks.timing import Contender

ROUNDS = 6
COLUMNS = "training, s", "evaluating, s", "PyTorch's, s", "evaluating, s", "ratio", "training", "evaluation"
LIMIT = 15  # per cent of an epoch that all but the training steps' arithmetic should stay under


class Stopwatch(Observer):
    """Lets an epoch begin when asked, and answers with the seconds of its start-up, training and evaluation."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe, self.start_up = pipe, 0.0

    def start(self, *_: Any) -> None:
        self._wait()

    def _wait(self) -> None:
        self.pipe.recv()
        self.began = time.perf_counter()

    def step(self, epoch: int, step: int, steps: int, *_: Any) -> None:
        if epoch == step == 1:  # until here the workers have started, and recorded their first step
            self.start_up = time.perf_counter() - self.began
            self.began += self.start_up
        if step == steps:
            self.trained = time.perf_counter()

    def epoch(self, *_: Any) -> None:
        self.pipe.send((self.trained - self.began, time.perf_counter() - self.trained, self.start_up))
        self._wait()


def serve(pipe: Connection, config: Config) -> None:
    """As the target of a contender: the experiment, epoch by epoch."""
    run_experiment(config, Stopwatch(pipe))


def parts(config: Config, setting: Setting, evaluating: float) -> dict[str, float]:
    """Seconds of an epoch that are not the training steps' arithmetic, and of reading the data set, once a run."""
    began = time.perf_counter()
    dataset = load_dataset(config.settings.data)
    read = time.perf_counter()
    generator(0, SHUFFLE, 1).permutation(len(dataset.train))
    shuffled = time.perf_counter()
    converting = [
        sum(value for (place, _), value in worker.milliseconds.items() if place == breakdown.IMAGES)
        for worker in breakdown.profiles(setting, dataset)
    ]
    return {
        "reading the data set (once a run)": read - began,
        "shuffling": shuffled - read,
        "gathering images, uint8 to float32": max(converting) / 1e3 * len(dataset.train) / setting.batch_size,
        "evaluating the test images, writing files": evaluating,
    }


def compare(config: Config, setting: Setting, rounds: int) -> str:
    """Tables of an epoch of both, and of the parts of ours."""
    dataset = load_dataset(config.settings.data)
    images, test_images = len(dataset.train), len(dataset.test)
    with (
        Contender("train_cifar.py", serve, config) as us,
        Contender("PyTorch, channels_last", torch_epoch.serve, setting, config.settings.data) as them,
    ):
        times = [(*us.ask("go"), *them.ask("go")) for _ in range(rounds)]
    seconds = np.array(times)
    training, evaluating, start_up, *theirs = seconds.T
    ratios = np.array([(training + evaluating) / sum(theirs), training / theirs[0], evaluating / theirs[1]])
    rows = [
        (f"epoch {epoch}", *map(float, row[[0, 1, 3, 4]]), *(f"{value:.3f}" for value in of_epoch))
        for epoch, (row, of_epoch) in enumerate(zip(seconds, ratios.T, strict=True), 1)
    ]
    header = f"{images:,} and {test_images:,} images", *COLUMNS
    later = slice(1 if rounds > 1 else 0, None)
    spreads = zip(("whole epochs", "training", "evaluating"), ratios[:, later], strict=True)

    counts, speed = floor.count(setting.network()), floor.product_speed(setting.workers)
    work = images * sum(row.total for row in counts) + test_images * sum(row.forward for row in counts)
    whole = float(np.median(training + evaluating))
    aside = parts(config, setting, float(np.median(evaluating)))
    aside |= {f"together (to stay under {LIMIT} %)": sum(aside.values())}
    shares = [(name, seconds, f"{100 * seconds / whole:.1f}") for name, seconds in aside.items()]
    return "\n".join(
        [
            report.table(header, rows, decimals=2),
            report.table(
                (f"epochs {later.start + 1} to {rounds}", *report.SPREAD),
                [(name, *report.spread(values)) for name, values in spreads],
            ),
            "  (evaluating: logits and metrics of the test images; ours then writes the files of the run)",
            "  " + floor.describe(work, speed, setting.workers),
            f"  ours before the first epoch: {start_up[0]:.2f} s to start the workers and record the first step",
            report.table(("beside the arithmetic of our training steps", "s", "% of our epoch"), shares, decimals=3),
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options("Epochs of train_cifar.py against the same epochs in PyTorch.", ROUNDS)
    parser.add_argument("--data", help=f"as train_cifar.py takes it (default: CIFAR-100 at ${ENVIRONMENT_VARIABLE})")
    chosen = parser.parse_args(arguments)
    if chosen.data is None and not os.environ.get(ENVIRONMENT_VARIABLE):
        parser.error(f"${ENVIRONMENT_VARIABLE} is not set: name there, or with --data, where CIFAR-100 is")
    print(report.machine())
    for recipe in chosen_recipes(chosen.recipe):
        setting = Setting(recipe, RECIPES[recipe].batch_size, chosen.workers)
        with tempfile.TemporaryDirectory() as folder:
            config = configure(
                recipe,
                device="cpu",
                data=chosen.data or "cifar100",
                epochs=chosen.rounds,
                workers=chosen.workers,
                output=Path(folder),
            )
            found = compare(config, setting, chosen.rounds)
        print(f"\n{recipe}, batch {setting.batch_size}, {chosen.workers} workers (threads); interleaved epochs; "
              "ratio: ours to theirs, of the whole epoch and of its parts")  # fmt: skip
        print(found, flush=True)


if __name__ == "__main__":
    main()
