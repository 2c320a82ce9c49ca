"""The figures: what is drawn, what it is called, and that a report's curve stands only where ours means the same."""

from dataclasses import replace

import numpy as np
import pytest

from scratchnet.experiments import RECIPES, Result
from scratchnet.experiments.report.figures import class_confusion, curves, of_run
from scratchnet.experiments.report.statistics import Group, Run
from scratchnet.experiments.result import Epoch
from tests.experiments.report import made

EPOCHS = [Epoch(e, 9.0, 4 / e, 0.1 * e, 3 / e, 0.09 * e, 0.05 * e) for e in (1, 2, 3)]


def result_of(recipe: str = "same-padding", head: str = "softmax", **settings: object) -> Result:
    """Of three epochs, which no report had."""
    result = made.result(head, recipe=recipe)
    result.settings = replace(result.settings, epochs=3, **settings)  # type: ignore[arg-type]
    result.epochs = list(EPOCHS)
    return result


def curves_of(*results: Result, alone: bool = True) -> tuple[dict[str, list[list[float]]], ...]:
    """By label, the x and y of the lines in both panels."""
    figure = curves(*(Group((Run(result),)) for result in results), alone=alone)
    return tuple(
        {str(line.get_label()): np.array(line.get_data()).tolist() for line in axes.lines} for axes in figure.axes
    )


def percent(*values: float) -> list[float]:
    return [100 * value for value in values]


def test_our_curves() -> None:
    loss, accuracy = curves_of(result_of(data="digits"))
    assert loss == {"softmax": [[1, 2, 3], [3, 1.5, 1]]}
    assert accuracy["softmax, argmax"] == [[1, 2, 3], percent(*(e.test_accuracy for e in EPOCHS))]
    assert accuracy["softmax, noise on"] == [[1, 2, 3], percent(*(e.test_accuracy_sampled for e in EPOCHS))]
    assert accuracy["softmax, training"] == [[1, 2, 3], percent(*(e.train_accuracy for e in EPOCHS))]
    assert len(accuracy) == 3


@pytest.mark.parametrize(
    ("recipe", "head", "in_loss", "evaluation", "first"),
    [
        ("same-padding", "softmax", True, "argmax", 1),
        ("same-padding", "gumbel", False, "argmax", 1),
        ("valid-padding", "softmax", True, "argmax", 1),
        ("valid-padding", "gumbel", False, "noise on", 21),
    ],
)
def test_curves_of_the_report(recipe: str, head: str, in_loss: bool, evaluation: str, first: int) -> None:
    report = RECIPES[recipe].reports[head]
    loss, accuracy = curves_of(result_of(recipe, head))
    name = f"{report.source}, {head}"
    assert set(loss) == ({head, name} if in_loss else {head})
    assert not in_loss or loss[name][1] == list(report.test_loss)
    epochs, values = accuracy[f"{name}, {evaluation}"]
    assert epochs == list(range(first, first + 10))
    assert values == percent(*report.test_accuracy)
    training = [label for label in accuracy if label.startswith(report.source) and label.endswith("training")]
    assert len(training) == (first == 1)  # the noise was on there too
    assert not training or accuracy[training[0]][1] == percent(*report.train_accuracy)


def test_beside_other_heads_a_report_stands_with_its_own_settings_only() -> None:
    loss, accuracy = curves_of(result_of(), result_of(head="gumbel"), alone=False)
    assert set(loss) == {"softmax", "gumbel"}
    assert set(accuracy) == {f"{head}, {what}" for head in loss for what in ("argmax", "noise on")}
    loss, accuracy = curves_of(made.result(), alone=False)
    assert set(loss) == {"softmax", "first report, softmax"}
    assert set(accuracy) == {"softmax, argmax", "softmax, noise on", "first report, softmax, argmax"}


def test_a_head_without_a_report_has_its_own_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "same-padding", replace(RECIPES["same-padding"], reports={}))
    loss, accuracy = curves_of(result_of())
    assert (set(loss), len(accuracy)) == ({"softmax"}, 3)


def test_confusion_is_grouped_by_superclass() -> None:
    result = result_of()
    run = Run(result)
    axes = class_confusion(Group((run,))).axes[0]
    order = [first + 20 * index for first in range(20) for index in range(5)]
    shares = 100 * run.confusion / run.confusion.sum(1, keepdims=True).clip(1)
    np.testing.assert_allclose(np.array(axes.images[0].get_array()), shares[order][:, order])
    assert [text.get_text() for text in axes.get_yticklabels()] == [f"group {index}" for index in range(20)]
    assert axes.get_xticks().tolist() == axes.get_yticks().tolist() == [2 + 5 * index for index in range(20)]


def test_confusion_without_superclasses_names_the_classes() -> None:
    result = made.result(classes=10)
    run = Run(result)
    axes = class_confusion(Group((run,))).axes[0]
    shares = 100 * run.confusion / run.confusion.sum(1, keepdims=True)
    np.testing.assert_allclose(np.array(axes.images[0].get_array()), shares)
    names = [f"class {index}" for index in range(9)] + [made.WICKED.replace("_", " ")]
    assert [text.get_text() for text in axes.get_xticklabels()] == names
    assert axes.get_title() == "digits: same-padding, softmax, seed 0, cpu"


def test_a_run_that_stands_alone_says_what_it_is() -> None:
    title = curves(Group((Run(result_of(head="gumbel")),)), alone=True).get_suptitle()
    assert title.startswith("cifar100: same-padding, gumbel, temperature 0.5, seed 0, cpu")
    assert title.endswith("(the report's losses include the noise)")


def test_files_are_images() -> None:
    files = of_run(Run(result_of()))
    assert sorted(files) == ["confusion.png", "curves.png"]
    assert all(content.startswith(b"\x89PNG\r\n") for content in files.values())
