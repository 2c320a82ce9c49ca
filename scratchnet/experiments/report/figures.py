"""The figures of runs, drawn for a page that may be as narrow as a phone. Needs the `plot` extra."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from scratchnet.experiments.report.statistics import ARGMAX, CROSS_ENTROPY, EXPECTED, Group, Pair, Run, readable
from scratchnet.heads import HEADS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILION = "#0072b2", "#d55e00"
OKABE_ITO = BLUE, VERMILION, "#009e73", "#cc79a7", "#e69f00", "#56b4e9"  # which all can tell
GRAY = "#555555"


def color_of(head: str) -> str:
    return OKABE_ITO[list(HEADS).index(head) % len(OKABE_ITO)]


def of_run(run: Run) -> dict[str, bytes]:
    """The files of a single run, as a group of one; ImportError where matplotlib is not installed or broken."""
    group = Group((run,))
    return {"curves.png": png(curves(group, alone=True)), "confusion.png": png(class_confusion(group))}


def png(figure: Figure) -> bytes:
    """A PNG with a palette, a third as large as one without."""
    from PIL import Image

    file, small = io.BytesIO(), io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    Image.open(file).convert("RGB").quantize(256).save(small, format="png", optimize=True)
    return small.getvalue()


def _panels(number: int, height: float, width: float = 4.5) -> tuple[Figure, np.ndarray]:
    """Panels one above another; as wide as a phone, their letters can still be read."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(number, 1, squeeze=False)[:, 0]
    for axes in panels:
        axes.grid(alpha=0.3)
    return figure, panels


def _legend(axes: Axes) -> None:
    """Above the panel, where it hides nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.01), borderaxespad=0, frameon=False)


def curves(*groups: Group, alone: bool = False) -> Figure:
    """Clean cross-entropy and accuracies by epoch; a report's curve stands where ours means the same.

    A run that stands `alone` has a title, its training accuracy, and the report's curves whatever its settings.
    """
    from matplotlib.ticker import MaxNLocator

    figure, (loss, accuracy) = _panels(2, 8)
    lines = [
        (loss, "test_loss", 1, "o-", ""),
        (accuracy, "test_accuracy", 100, "o-", ", argmax"),
        (accuracy, "test_accuracy_sampled", 100, "o--", ", noise on"),
        (accuracy, "train_accuracy", 100, "x-", ", training"),
    ]
    for group in groups:
        result = group.runs[0].result
        report = result.settings.report if alone and result.comparable else group.report
        for axes, name, scale, style, evaluation in lines if alone else lines[:-1]:
            color = GRAY if name == "train_accuracy" else color_of(group.settings.head)
            epochs, values = np.arange(1, group.settings.epochs + 1), scale * group.history(name)
            axes.plot(epochs, values.mean(axis=0), style, color=color, label=group.name + evaluation, markersize=3)
            axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=color, alpha=0.2, linewidth=0)
            if report and (curve := report.curve(name)):
                epochs, label = report.first_epoch + np.arange(len(curve)), f"{report.source}, {group.name}{evaluation}"
                axes.plot(epochs, scale * np.array(curve), ":", color=color, label=label, linewidth=2.5)
        if alone:
            remark = "\n(the report's losses include the noise)" if report and report.noisy_loss else ""
            figure.suptitle(result.title + remark, fontsize="small")
    loss.set(ylabel="clean cross-entropy (nats)")
    accuracy.set(ylabel="accuracy (%)", xlabel="epoch")
    for axes in loss, accuracy:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        _legend(axes)
    return figure


def confusion(group: Group) -> Figure:
    """Rows are true labels, columns predicted ones, of superclasses where there are any; each row sums to 100 %."""
    _, counts = group.confusion()
    figure, (axes,) = _panels(1, 5.2)
    _matrix(figure, axes, counts)
    axes.set(xlabel="predicted label", ylabel="true label", xticks=range(len(counts)), yticks=range(len(counts)))
    axes.tick_params(labelsize=8)
    return figure


def class_confusion(group: Group) -> Figure:
    """The same of all classes by name, or in the order of their superclasses with the names of those."""
    figure, (axes,) = _panels(1, 9, width=8)
    predictions, counts = group.runs[0].predictions, np.sum([run.confusion for run in group.runs], axis=0)
    names, middles = predictions.names.classes, np.arange(len(counts), dtype=float)
    if group.kind == "superclass":
        order = np.argsort(predictions.superclasses, kind="stable")
        counts, superclasses = counts[np.ix_(order, order)], predictions.superclasses[order]
        starts = np.flatnonzero(np.diff(superclasses, prepend=-1))
        middles = (starts + np.append(starts[1:], len(superclasses)) - 1) / 2
        names = [predictions.names.superclasses[index] for index in superclasses[starts]]
        for edge in starts[1:] - 0.5:
            axes.axhline(edge, color="white", linewidth=0.3)
            axes.axvline(edge, color="white", linewidth=0.3)
    _matrix(figure, axes, counts)
    axes.set(title=group.runs[0].result.title, xlabel="predicted", ylabel="true")
    axes.set_xticks(middles, readable(names), rotation=90, fontsize="small")
    axes.set_yticks(middles, readable(names), fontsize="small")
    return figure


def _matrix(figure: Figure, axes: Axes, counts: np.ndarray) -> None:
    shares = 100 * counts / counts.sum(axis=1, keepdims=True).clip(1)
    image = axes.imshow(shares, cmap="cividis", vmin=0, interpolation="nearest")
    figure.colorbar(image, label="images of the row (%)", orientation="horizontal", shrink=0.6)
    axes.grid(False)


def class_f1(pair: Pair) -> Figure:
    """A dot for each class: its mean F1 with the first head across, with the second up."""
    figure, (axes,) = _panels(1, 4.5)
    axes.axline((0, 0), slope=1, color=GRAY, linewidth=1)
    color = color_of(pair.second.settings.head)
    axes.plot(*(group.f1().mean(axis=0) for group in pair), "o", color=color, alpha=0.7)
    axes.set(xlabel=f"F1 with {pair.first.name}", ylabel=f"F1 with {pair.second.name}", aspect="equal")
    return figure


def calibration(*groups: Group) -> Figure:
    """Accuracy against confidence, in bins of all seeds together; below, how many images are in them."""
    figure, (diagram, share) = _panels(2, 6.5)
    diagram.plot([0, 1], [0, 1], color=GRAY, linewidth=1, label="calibrated")
    for group in groups:
        color = color_of(group.settings.head)
        counts, confidence, accuracy = np.swapaxes([run.reliability for run in group.runs], 0, 1)
        total = counts.sum(axis=0)
        some = total > 0
        across, up = ((counts * each).sum(axis=0)[some] / total[some] for each in (confidence, accuracy))
        diagram.plot(across, up, "o-", color=color, label=group.name)
        share.plot(across, 100 * total[some] / total.sum(), "o-", color=color)
    diagram.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    share.set(xlabel="confidence", ylabel="images (%)", xlim=(0, 1), ylim=(0, None))
    _legend(diagram)
    return figure


def temperatures(groups: Sequence[Group]) -> Figure:
    """A dot for each seed and a dash for their mean, by temperature."""
    figure, (accuracy, loss) = _panels(2, 6.5)
    dots = (accuracy, ARGMAX, VERMILION), (accuracy, EXPECTED, BLUE), (loss, CROSS_ENTROPY, VERMILION)
    for axes, measure, color in dots:
        values = np.array([group.values(measure) for group in groups])
        axes.plot(values.mean(axis=1), "_", color=color, markersize=20)
        seeds = axes.plot(values, "o", color=color, alpha=0.7, markersize=4)
        seeds[0].set_label(measure.name)
        axes.set_xticks(range(len(groups)), [str(group.settings.temperature) for group in groups])
    accuracy.set(ylabel="accuracy (%)")
    loss.set(ylabel="clean cross-entropy (nats)", xlabel="temperature")
    _legend(accuracy)
    return figure
