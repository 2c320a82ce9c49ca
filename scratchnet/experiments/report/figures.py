"""The figures of a study, drawn for a page that may be as narrow as a phone. Needs the `plot` extra."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from scratchnet.experiments.report.statistics import ARGMAX, CROSS_ENTROPY, EXPECTED, Group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from scratchnet.experiments.head_cost import HeadTime

COLORS = {"softmax": "#0072b2", "gumbel": "#d55e00"}  # the blue and vermilion of Okabe and Ito, which all can tell
GRAY = "#555555"


def png(figure: Figure) -> bytes:
    """A PNG with a palette, a third as large as one without."""
    from PIL import Image

    file, small = io.BytesIO(), io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    Image.open(file).convert("RGB").quantize(256).save(small, format="png", optimize=True)
    return small.getvalue()


def _panels(number: int, height: float) -> tuple[Figure, np.ndarray]:
    """Panels one above another; as wide as a phone, their letters can still be read."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5, height), layout="constrained")
    panels = figure.subplots(number, 1, squeeze=False)[:, 0]
    for axes in panels:
        axes.grid(alpha=0.3)
    return figure, panels


def _legend(axes: Axes) -> None:
    """Above the panel, where it hides nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.01), borderaxespad=0, frameon=False)


def curves(*groups: Group) -> Figure:
    """Clean cross-entropy and accuracies by epoch; a report's curve stands where ours means the same."""
    from matplotlib.ticker import MaxNLocator

    figure, (loss, accuracy) = _panels(2, 8)
    for group in groups:
        color, epochs = COLORS[group.head], np.arange(1, group.epochs + 1)
        for axes, key, scale, style, evaluation in (
            (loss, "test_loss", 1, "o-", ""),
            (accuracy, "test_accuracy", 100, "o-", ", argmax"),
            (accuracy, "test_accuracy_sampled", 100, "o--", ", noise on"),
        ):
            values = scale * np.array([[getattr(epoch, key) for epoch in run.result.epochs] for run in group.runs])
            label = group.name + evaluation
            axes.plot(epochs, values.mean(axis=0), style, color=color, label=label, markersize=3)
            axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=color, alpha=0.2, linewidth=0)
        if (report := group.report) is not None:
            epochs = report.first_epoch + np.arange(len(report.test_accuracy))
            label = f"{report.source}, {group.name}"
            if not report.noisy_loss:
                loss.plot(epochs, report.test_loss, ":", color=color, label=label, linewidth=2.5)
            label += ", noise on" if report.noisy_prediction else ", argmax"
            accuracy.plot(epochs, 100 * np.array(report.test_accuracy), ":", color=color, label=label, linewidth=2.5)
    loss.set(ylabel="clean cross-entropy (nats)")
    accuracy.set(ylabel="accuracy (%)", xlabel="epoch")
    for axes in loss, accuracy:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        _legend(axes)
    return figure


def confusion(group: Group) -> Figure:
    """Rows are true labels, columns predicted ones; each row sums to 100 %."""
    _, counts = group.confusion()
    figure, (axes,) = _panels(1, 5.2)
    image = axes.imshow(100 * counts / counts.sum(axis=1, keepdims=True).clip(1), cmap="cividis", vmin=0)
    figure.colorbar(image, label="images of the row (%)", orientation="horizontal", shrink=0.6)
    axes.set(xlabel="predicted label", ylabel="true label", xticks=range(len(counts)), yticks=range(len(counts)))
    axes.tick_params(labelsize=8)
    axes.grid(False)
    return figure


def class_f1(first: Group, second: Group) -> Figure:
    """A dot for each class: its mean F1 with the first head across, with the second up."""
    figure, (axes,) = _panels(1, 4.5)
    axes.axline((0, 0), slope=1, color=GRAY, linewidth=1)
    values = [np.mean([run.f1 for run in group.runs], axis=0) for group in (first, second)]
    axes.plot(*values, "o", color=COLORS[second.head], alpha=0.7)
    axes.set(xlabel=f"F1 with {first.name}", ylabel=f"F1 with {second.name}", aspect="equal")
    return figure


def calibration(*groups: Group) -> Figure:
    """Accuracy against confidence, in bins of all seeds together; below, how many images are in them."""
    figure, (diagram, share) = _panels(2, 6.5)
    diagram.plot([0, 1], [0, 1], color=GRAY, linewidth=1, label="calibrated")
    for group in groups:
        counts, confidence, accuracy = np.swapaxes([run.reliability for run in group.runs], 0, 1)
        total = counts.sum(axis=0)
        some = total > 0
        across, up = ((counts * each).sum(axis=0)[some] / total[some] for each in (confidence, accuracy))
        diagram.plot(across, up, "o-", color=COLORS[group.head], label=group.name)
        share.plot(across, 100 * total[some] / total.sum(), "o-", color=COLORS[group.head])
    diagram.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    share.set(xlabel="confidence", ylabel="images (%)", xlim=(0, 1), ylim=(0, None))
    _legend(diagram)
    return figure


def temperatures(groups: Sequence[Group]) -> Figure:
    """A dot for each seed and a dash for their mean, by temperature."""
    figure, (accuracy, loss) = _panels(2, 6.5)
    for axes, measure, color in (
        (accuracy, ARGMAX, COLORS["gumbel"]),
        (accuracy, EXPECTED, COLORS["softmax"]),
        (loss, CROSS_ENTROPY, COLORS["gumbel"]),
    ):
        values = np.array([group.values(measure) for group in groups])
        axes.plot(values.mean(axis=1), "_", color=color, markersize=20)
        dots = axes.plot(values, "o", color=color, alpha=0.7, markersize=4)
        dots[0].set_label(measure.name)
        axes.set_xticks(range(len(groups)), [str(group.temperature) for group in groups])
    accuracy.set(ylabel="accuracy (%)")
    loss.set(ylabel="clean cross-entropy (nats)", xlabel="temperature")
    _legend(accuracy)
    return figure


def cost(times: Sequence[HeadTime]) -> Figure:
    """Medians on logarithmic scales, with bars to the quartiles."""
    figure, (axes,) = _panels(1, 4.5)
    for head, color in COLORS.items():
        classes, low, medians, high = np.array(
            [(t.classes, t.low, t.milliseconds, t.high) for t in times if t.head == head]
        ).T
        axes.errorbar(classes, medians, (medians - low, high - medians), fmt="o-", capsize=3, color=color, label=head)
    axes.set(xscale="log", yscale="log", xlabel="classes", ylabel="forward and backward (ms)")
    _legend(axes)
    return figure
