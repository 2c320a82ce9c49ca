"""The figures: what is drawn, what it is called, and that a report's curve stands only where ours means the same."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scratchnet.data import Dataset, Split
from scratchnet.experiments import RECIPES, Result
from scratchnet.experiments.plots import confusion_figure, curves_figure, draw
from scratchnet.experiments.result import Epoch

EPOCHS = [Epoch(e, 9.0, 4 / e, 0.1 * e, 3 / e, 0.09 * e, 0.05 * e) for e in (1, 2, 3)]
EMPTY = Split(np.empty((0, 32, 32, 3), np.uint8), np.empty(0, np.int64))
DATASET = Dataset("cifar100", EMPTY, EMPTY, tuple("abcdef"), ("first_group", "second"), np.array([1, 0, 1, 0, 1, 0]))
CONFUSION = np.arange(36).reshape(6, 6)


def result_of(recipe: str = "same-padding", head: str = "softmax", dataset: str = "cifar100") -> Result:
    return Result(recipe, head, None, 0, "cpu", dataset, 64, 1e-3, 1, versions={}, epochs=list(EPOCHS))


def curves_of(result: Result) -> tuple[dict[str, list[list[float]]], ...]:
    """By label, the x and y of the lines in both panels."""
    figure = curves_figure(result, RECIPES[result.recipe].reports[result.head])
    return tuple(
        {str(line.get_label()): np.array(line.get_data()).tolist() for line in axes.lines} for axes in figure.axes
    )


def test_our_curves() -> None:
    loss, accuracy = curves_of(result_of(dataset="digits"))
    assert loss == {"test": [[1, 2, 3], [3, 1.5, 1]]}
    assert accuracy["test, argmax"] == [[1, 2, 3], [e.test_accuracy for e in EPOCHS]]
    assert accuracy["test, sampled (noise on)"] == [[1, 2, 3], [e.test_accuracy_sampled for e in EPOCHS]]
    assert accuracy["training"] == [[1, 2, 3], [e.train_accuracy for e in EPOCHS]]
    assert len(accuracy) == 3


@pytest.mark.parametrize(
    ("recipe", "head", "loss_labels", "accuracy_label", "first"),
    [
        ("same-padding", "softmax", {"test", "first report, test"}, "first report, test, argmax", 1),
        ("same-padding", "gumbel", {"test"}, "first report, test, argmax", 1),
        ("valid-padding", "softmax", {"test", "second report, test"}, "second report, test, argmax", 1),
        ("valid-padding", "gumbel", {"test"}, "second report, test, noise on", 21),
    ],
)
def test_curves_of_the_report(recipe: str, head: str, loss_labels: set[str], accuracy_label: str, first: int) -> None:
    loss, accuracy = curves_of(result_of(recipe, head))
    assert set(loss) == loss_labels
    epochs, values = accuracy[accuracy_label]
    assert epochs == list(range(first, first + 10))
    assert values == list(RECIPES[recipe].reports[head].test_accuracy)
    assert any("report, training" in label for label in accuracy) == (first == 1)  # the noise was on there too


def test_confusion_is_grouped_by_superclass() -> None:
    axes = confusion_figure(result_of(), CONFUSION, DATASET).axes[0]
    order = [1, 3, 5, 0, 2, 4]
    shares = 100 * CONFUSION / CONFUSION.sum(1, keepdims=True)
    np.testing.assert_allclose(np.array(axes.images[0].get_array()), shares[order][:, order])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["first group", "second"]
    assert axes.get_xticks().tolist() == axes.get_yticks().tolist() == [1, 4]


def test_confusion_without_superclasses_names_the_classes() -> None:
    digits = replace(DATASET, name="digits", superclass_names=(), superclasses=np.empty(0, np.int64))
    axes = confusion_figure(result_of(dataset="digits"), CONFUSION, digits).axes[0]
    np.testing.assert_allclose(np.array(axes.images[0].get_array()), 100 * CONFUSION / CONFUSION.sum(1, keepdims=True))
    assert [text.get_text() for text in axes.get_xticklabels()] == list("abcdef")
    assert axes.get_title() == "digits: same-padding, softmax, seed 0, cpu"


def test_files_are_images(tmp_path: Path) -> None:
    draw(tmp_path, result_of(), RECIPES["same-padding"].reports["softmax"], CONFUSION, DATASET)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["confusion.png", "curves.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG\r\n") for path in tmp_path.iterdir())
