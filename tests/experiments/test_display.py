"""The final figures in print: ours, and the report's where they mean the same."""

from dataclasses import replace

import pytest

from scratchnet.experiments import Result, configure
from scratchnet.experiments.display import final_block
from scratchnet.experiments.result import Final


def result_of(recipe: str, head: str, dataset: str) -> Result:
    final = Final(0.41234, 0.42, 0.43, 0.44, 0.31, 0.32, 0.33, 0.34, 0.30999)
    temperature = configure(recipe, head).temperature
    return Result(recipe, head, temperature, 0, "cpu", dataset, 64, 1e-3, 1, versions={}, final=final)


def lines_of(text: str) -> list[str]:
    """Its lines, with a single space wherever there is any."""
    return [" ".join(line.split()) for line in text.splitlines()]


def test_all_our_figures_are_shown() -> None:
    assert lines_of(final_block(result_of("same-padding", "softmax", "cifar100"), configure()))[:5] == [
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
    config = configure(recipe, head)
    assert row in lines_of(final_block(result_of(recipe, head, "cifar100"), config))
    digits = final_block(result_of(recipe, head, "digits"), config)
    assert "0.4152" not in digits
    assert row.split()[-1] not in digits
    assert "The reports' figures are of cifar100 and cannot be compared with those of digits." in digits


def test_settings_that_differ_from_the_report_are_named() -> None:
    result = result_of("same-padding", "softmax", "cifar100")
    assert "Settings as in the report." in final_block(result, configure())
    changed = final_block(result, configure(epochs=2, batch_size=32))
    assert "Unlike the report: epochs 2 (10), batch size 32 (64)." in changed
    assert "after 2 epochs" in changed
    assert "after 1 epoch " in final_block(result, replace(configure(), epochs=1))
