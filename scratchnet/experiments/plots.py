"""The figures of one experiment: its curves beside the report's, and its confusion matrix. Needs the `plot` extra."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scratchnet.data import Dataset
from scratchnet.experiments import artifacts
from scratchnet.experiments.published import Report
from scratchnet.experiments.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS, SAMPLED, TRAINING = "tab:blue", "tab:orange", "tab:gray"


def draw(folder: Path, result: Result, report: Report, confusion: np.ndarray, dataset: Dataset) -> None:
    """Write curves.png and confusion.png; ImportError where matplotlib is not installed or broken."""
    figures = curves_figure(result, report), confusion_figure(result, confusion, dataset)
    artifacts.write(folder, dict(zip(("curves.png", "confusion.png"), map(_png_bytes, figures), strict=True)))


def _png_bytes(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return file.getvalue()


def curves_figure(result: Result, report: Report) -> Figure:
    """Clean cross-entropy and accuracies on the test split; a report's curve stands where ours means the same."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10, 5), layout="constrained")
    figure.suptitle(result.title)
    loss, accuracy = figure.subplots(1, 2)
    epochs = [epoch.epoch for epoch in result.epochs]
    loss.plot(epochs, [epoch.test_loss for epoch in result.epochs], "o-", color=OURS, label="test")
    for label, color, name in (
        ("test, argmax", OURS, "test_accuracy"),
        ("test, sampled (noise on)", SAMPLED, "test_accuracy_sampled"),
        ("training", TRAINING, "train_accuracy"),
    ):
        accuracy.plot(epochs, [getattr(epoch, name) for epoch in result.epochs], "o-", color=color, label=label)
    if result.comparable:
        published = range(report.first_epoch, report.first_epoch + len(report.test_accuracy))
        if not report.noisy_loss:
            loss.plot(published, report.test_loss, ":", color=OURS, label=f"{report.source}, test")
        color, label = (SAMPLED, "test, noise on") if report.noisy_prediction else (OURS, "test, argmax")
        accuracy.plot(published, report.test_accuracy, ":", color=color, label=f"{report.source}, {label}")
        if not report.noisy_prediction:
            accuracy.plot(published, report.train_accuracy, ":", color=TRAINING, label=f"{report.source}, training")
    remark = "\n(the report's losses include the noise)" if result.comparable and report.noisy_loss else ""
    for axes, title in (loss, f"clean cross-entropy{remark}"), (accuracy, "accuracy"):
        axes.set(title=title, xlabel="epoch")
        axes.set_xlim(0.5, axes.dataLim.x1 + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return figure


def confusion_figure(result: Result, confusion: np.ndarray, dataset: Dataset) -> Figure:
    """Rows are true classes, columns predicted ones, in the order of their superclasses where there are any."""
    from matplotlib.figure import Figure

    grouped = len(dataset.superclass_names) > 0
    order = np.argsort(dataset.superclasses, kind="stable") if grouped else np.arange(dataset.num_classes)
    shares = 100 * confusion / confusion.sum(axis=1, keepdims=True).clip(1)
    figure = Figure(figsize=(9, 8), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares[np.ix_(order, order)], cmap="magma", interpolation="nearest")
    figure.colorbar(image, label="images of the true class (%)")
    axes.set(title=result.title, xlabel="predicted", ylabel="true")
    if grouped:
        _label_groups(axes, dataset.superclasses[order], dataset.superclass_names)
    else:
        axes.set_xticks(order, dataset.class_names, rotation=90)
        axes.set_yticks(order, dataset.class_names)
    return figure


def _label_groups(axes: Axes, groups: np.ndarray, names: tuple[str, ...]) -> None:
    """Name the groups of consecutive classes in their middle, and draw a line between each two."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    ends = np.append(starts[1:], len(groups))
    middles, labels = (starts + ends - 1) / 2, [names[group].replace("_", " ") for group in groups[starts]]
    axes.set_xticks(middles, labels, rotation=90, fontsize="small")
    axes.set_yticks(middles, labels, fontsize="small")
    axes.tick_params(length=0)
    for edge in starts[1:] - 0.5:
        axes.axhline(edge, color="white", linewidth=0.3)
        axes.axvline(edge, color="white", linewidth=0.3)
