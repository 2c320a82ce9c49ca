"""The final figures in print: ours, and the report's where they mean the same."""

from dataclasses import replace
from pathlib import Path

import pytest

from scratchnet.experiments import RECIPES, Result
from scratchnet.experiments.config import Settings
from scratchnet.experiments.display import final_block

FOLDER = Path("there")
FINAL = {
    "accuracy": 0.41234, "precision": 0.42, "recall": 0.43, "f1": 0.44, "accuracy_sampled": 0.31,
    "precision_sampled": 0.32, "recall_sampled": 0.33, "f1_sampled": 0.34, "expected_sampled_accuracy": 0.30999,
}  # fmt: skip


def result_of(recipe: str, head: str, data: str, **settings: int) -> Result:
    found = replace(Settings.of_report(recipe, head), device="cpu", data=data, **settings)  # type: ignore[arg-type]
    result = Result(found, versions={})
    result.final = FINAL
    return result


def lines_of(text: str) -> list[str]:
    """Its lines, with a single space wherever there is any."""
    return [" ".join(line.split()) for line in text.splitlines()]


def test_all_our_figures_are_shown() -> None:
    assert lines_of(final_block(result_of("same-padding", "softmax", "cifar100"), FOLDER))[:5] == [
        "cifar100: same-padding, softmax, seed 0, cpu",
        "after 10 epochs accuracy precision recall F1",
        "argmax 0.4123 0.4200 0.4300 0.4400",
        "noise on, sampled 0.3100 0.3200 0.3300 0.3400",
        "noise on, expected 0.3100",
    ]


@pytest.mark.parametrize(
    ("recipe", "head", "row"),
    [
        ("same-padding", "softmax", "first report, argmax 0.4152 0.4343 0.4152 0.4157"),
        ("same-padding", "gumbel", "first report, argmax 0.4152 0.4465 0.4152 0.4164"),
        ("valid-padding", "softmax", "second report, argmax 0.3605 0.3799 0.3605 0.3521"),
        ("valid-padding", "gumbel", "second report, noise on 0.3024 0.3044 0.3023 0.2981"),
    ],
)
def test_report_stands_beside_ours_on_cifar100_only(recipe: str, head: str, row: str) -> None:
    assert row in lines_of(final_block(result_of(recipe, head, "cifar100"), FOLDER))
    digits = final_block(result_of(recipe, head, "digits"), FOLDER)
    assert "0.4152" not in digits
    assert row.split()[-1] not in digits
    assert "The reports' figures are of cifar100 and cannot be compared with those of digits." in digits


def test_settings_that_differ_from_the_report_are_named() -> None:
    asked = "same-padding", "softmax", "cifar100"
    assert "Settings as in the report." in final_block(result_of(*asked), FOLDER)
    changed = final_block(result_of(*asked, epochs=2, batch_size=32), FOLDER)
    assert "Unlike the report: epochs 2 (10), batch size 32 (64)." in changed
    assert "after 2 epochs" in changed
    assert "after 1 epoch " in final_block(result_of(*asked, epochs=1), FOLDER)


def test_a_head_without_a_report_has_its_figures_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "same-padding", replace(RECIPES["same-padding"], reports={}))
    lines = lines_of(final_block(result_of("same-padding", "gumbel", "cifar100"), FOLDER))
    assert lines[1:] == [
        "after 10 epochs accuracy precision recall F1",
        "argmax 0.4123 0.4200 0.4300 0.4400",
        "noise on, sampled 0.3100 0.3200 0.3300 0.3400",
        "noise on, expected 0.3100",
        "No report has figures of the head gumbel with the recipe same-padding.",
        "Files: there",
    ]
