"""Seconds to a clean cross-entropy: 10,000 real classes, the same seconds of training for every head.

The layers of `same-padding` up to its dense layer of 256 ReLU units, on the pairs of `pairs.py`; with a batch
normalization after them and a smaller learning rate, as without these softmax and Adam kill all units (docs/cost.md).
Batch, Adam and, of a seed, the initial weights below the head and the order of the images are the same for all. Seconds
are those of one thread, of training alone: the processor's, not the wall's, so that a busy machine takes nothing from a
head. Between them all test images are scored several times, with exact log-probabilities over all classes and no noise.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from scratchnet.data import Dataset, load_dataset
from scratchnet.experiments import artifacts
from scratchnet.experiments.reading import read_json, read_tensors
from scratchnet.experiments.recipes import RECIPES
from scratchnet.experiments.report.figures import png
from scratchnet.experiments.report.statistics import ARGMAX, CROSS_ENTROPY, difference
from scratchnet.heads import GumbelSoftmaxCrossEntropy, Head, SampledSoftmax, SoftmaxCrossEntropy, TwoLevelSoftmax
from scratchnet.layers import BatchNormalization
from scratchnet.layers.module import Module
from scratchnet.optimizers import Adam
from scratchnet.training import Progress, Trainer
from tests.benchmarks.classes.groupings import RandomClusters
from tests.benchmarks.classes.operations import SAMPLES
from tests.benchmarks.classes.pairs import pairs
from tests.benchmarks.report import table

SECONDS, POINTS = 600.0, 12  # of a training, and how often it is scored in that time
LEARNING_RATE = 3e-4
CHUNK = 640  # test images scored at once
LEVELS = 8.5, 8.0, 7.5, 7.0, 6.5, 6.0  # nats, whose seconds are told
Clock = Callable[[], float]


def _layers(outputs: int, seed: int) -> list[Module]:
    *below, output = RECIPES["same-padding"].layers(outputs, seed)
    return [*below, BatchNormalization(), output]


RECIPE = replace(RECIPES["same-padding"], layers=_layers)


CASES: dict[str, Callable[[Dataset, int], Head]] = {
    "softmax": lambda dataset, seed: SoftmaxCrossEntropy(),
    "gumbel 1": lambda dataset, seed: GumbelSoftmaxCrossEntropy(1.0, seed),
    "gumbel 0.5": lambda dataset, seed: GumbelSoftmaxCrossEntropy(0.5, seed),
    "two-level": lambda dataset, seed: TwoLevelSoftmax(dataset.num_classes, dataset.superclasses),
    "two-level-random": lambda dataset, seed: RandomClusters(dataset.num_classes, dataset.superclasses, seed),
    "sampled": lambda dataset, seed: SampledSoftmax(dataset.num_classes, SAMPLES, seed=seed),
}
COLORS = dict(zip(CASES, ("#0072b2", "#d55e00", "#e69f00", "#009e73", "#56b4e9", "#cc79a7"), strict=True))


@dataclass(frozen=True)
class Point:
    """The test images after so many seconds of training; `greedy` is a two-level head's accuracy cluster first."""

    seconds: float
    steps: int
    cross_entropy: float
    accuracy: float
    greedy: float | None


@dataclass
class Training:
    """A case's settings and what came; once it is finished, all that stands in its JSON file."""

    case: str
    seed: int
    budget: float
    learning_rate: float
    data: str
    parameters: int
    points: list[Point] = field(default_factory=list)
    finished: bool = False

    @property
    def settings(self) -> dict[str, object]:
        return {name: value for name, value in asdict(self).items() if name not in ("points", "finished")}


@dataclass(frozen=True)
class Checkpoint:
    """What a training needs to go on, beside the trainer's vectors."""

    training: Training
    progress: Progress
    seconds: float


class _Due(Exception):
    """It is time for a point."""


def train(
    case: str, seed: int, dataset: Dataset, folder: Path, budget: float = SECONDS, points: int = POINTS,
    learning_rate: float = LEARNING_RATE, clock: Clock = time.process_time, note: Callable[[str], None] | None = None,
) -> Training:  # fmt: skip
    """Train a case for its seconds, or what is left of them, from the last point on; a finished one is only read."""
    name = f"{case.replace(' ', '-')}-seed{seed}"
    finished, kept = folder / f"{name}.json", folder / f"{name}.checkpoint"
    head = CASES[case](dataset, seed)
    network = RECIPE.network(head.outputs_for(dataset.num_classes))
    network.build(dataset.train.images.shape[1:], seed=seed)
    head.build_for(network.output_shape, network.dtype, network.device, seed)
    parameters = network.count_parameters() + head.count_parameters()
    training = Training(case, seed, budget, learning_rate, dataset.digest, parameters)
    if finished.exists():
        return _checked(read_json(finished, Training), training, finished)
    optimizer = Adam(learning_rate)
    with Trainer(network, head, optimizer, dataset, batch_size=RECIPE.batch_size, seed=seed, workers=1) as trainer:
        used = 0.0
        if kept.exists():
            checkpoint, state = read_tensors(kept, Checkpoint)
            training, used = _checked(checkpoint.training, training, kept), checkpoint.seconds
            trainer.restore(state, checkpoint.progress)
        while not training.finished:
            due, began = budget * (len(training.points) + 1) / points, clock() - used

            def on_step(*_: object, due: float = due, began: float = began) -> None:
                if clock() - began >= due:
                    raise _Due

            try:
                while True:
                    trainer.train_epoch(trainer.progress.epoch, on_step)
            except _Due:
                used = clock() - began
            training.points.append(Point(used, trainer.done, *score(trainer)))
            training.finished = len(training.points) == points
            (note or _say)(f"{name}: {training.points[-1]}")
            checkpoint = Checkpoint(training, trainer.progress, used)
            artifacts.write(folder, {kept.name: artifacts.tensors(checkpoint, trainer.state())})
    artifacts.write(folder, {finished.name: artifacts.json_bytes(training)})
    kept.unlink()
    return training


def _say(line: str) -> None:
    print(line, flush=True)


def _checked(found: Training, wanted: Training, path: Path) -> Training:
    if found.settings != wanted.settings:
        raise SystemExit(f"{path} is of a training with other settings ({found.settings}): choose another folder")
    return found


def score(trainer: Trainer) -> tuple[float, float, float | None]:
    """Clean cross-entropy, accuracy, and of a two-level head that of the best class of the best cluster."""
    head, labels = trainer.head, trainer.splits["test"].labels
    losses, right, greedy = [], [], []
    for start in range(0, len(labels), CHUNK):
        rows = slice(start, min(start + CHUNK, len(labels)))
        trainer.engine.predict("test", rows.start, rows.stop)
        scores = trainer.engine.arrays["scores"][rows].astype(np.float64)
        losses.append(-head.log_probabilities(scores)[np.arange(len(scores)), labels[rows]])
        right.append(scores.argmax(1) == labels[rows])
        if isinstance(head, TwoLevelSoftmax):
            greedy.append(head.greedy(scores) == labels[rows])
    means = [float(np.concatenate(each).mean()) for each in (losses, right)]
    return *means, float(np.concatenate(greedy).mean()) if greedy else None


def seconds_to(training: Training, level: float) -> float | None:
    """When the clean cross-entropy first came down to the level, on straight lines between the points."""
    before = None
    for point in training.points:
        if point.cross_entropy <= level:
            if before is None:
                return point.seconds
            share = (before.cross_entropy - level) / (before.cross_entropy - point.cross_entropy)
            return before.seconds + share * (point.seconds - before.seconds)
        before = point
    return None


def study(
    folder: Path, cases: Sequence[str], seeds: Sequence[int], data: str, budget: float, learning_rate: float,
    figure_at: Path | None,
) -> Iterator[str]:  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    dataset = pairs(load_dataset(data))
    found = {
        case: [train(case, seed, dataset, folder, budget, learning_rate=learning_rate) for seed in seeds]
        for case in cases
    }
    if figure_at:
        figure_at.write_bytes(figure(found))
    yield from printed(found)


def printed(found: dict[str, list[Training]]) -> Iterator[str]:
    budget, seeds = next(iter(found.values()))[0].budget, len(next(iter(found.values())))
    yield f"{budget:g} s of training for each head, {seeds} seeds; means, and differences by seed with 95 % intervals"
    rows = []
    for case, trainings in found.items():
        last = [training.points[-1] for training in trainings]
        steps = float(np.mean([point.steps for point in last]))
        milliseconds = 1e3 * float(np.mean([point.seconds / point.steps for point in last]))
        cells = [f"{steps:,.0f}", f"{milliseconds:.1f}"]
        for name, scale, measure in ("cross_entropy", 1, CROSS_ENTROPY), ("accuracy", 100, ARGMAX):
            values = scale * np.array([getattr(point, name) for point in last])
            cells.append(f"{values.mean():.{measure.digits}f}")
            if "softmax" in found:
                softmax = scale * np.array([getattr(each.points[-1], name) for each in found["softmax"]])
                cells.append("" if case == "softmax" else str(difference(values - softmax, measure)))
            else:
                cells.append("")
        greedily = [point.greedy for point in last if point.greedy is not None]
        cells.append(f"{100 * np.mean(greedily):.2f}" if greedily else "")
        rows.append((case, *cells))
    names = "cross-entropy", "less softmax's", "accuracy (%)", "less softmax's", "greedy (%)"
    yield table(("", "steps", "ms a step", *names), rows)
    levels: list[float] = list(LEVELS)
    if "softmax" in found:
        levels.append(float(np.mean([training.points[-1].cross_entropy for training in found["softmax"]])))
    rows = []
    for case, trainings in found.items():
        cells = []
        for level in levels:
            times = [seconds_to(training, level) for training in trainings]
            reached = [seconds for seconds in times if seconds is not None]
            share = f" ({len(reached)} of {len(times)})" if 0 < len(reached) < len(times) else ""
            cells.append(f"{np.mean(reached):.0f}{share}" if reached else "not")
        rows.append((case, *cells))
    yield table(("seconds to a clean cross-entropy of", *(f"{level:.3g}" for level in levels)), rows)


def figure(found: dict[str, list[Training]]) -> bytes:
    """A PNG: clean cross-entropy against seconds of training, a line a seed."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(4.5, 5), layout="constrained")
    axes = drawing.subplots()
    for case, trainings in found.items():
        for number, training in enumerate(trainings):
            seconds = [point.seconds for point in training.points]
            losses = [point.cross_entropy for point in training.points]
            axes.plot(seconds, losses, "o-", markersize=3, color=COLORS[case], label=None if number else case)
    axes.set(xlabel="seconds of training", ylabel="clean cross-entropy, 10,000 classes (nats)")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.01), borderaxespad=0, frameon=False, ncols=2)
    return png(drawing)
