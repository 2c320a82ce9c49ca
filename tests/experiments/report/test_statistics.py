"""Measures and intervals against computations done another way."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ttest_rel

from scratchnet.experiments.report.statistics import (
    ARGMAX,
    CALIBRATION,
    CROSS_ENTROPY,
    EXPECTED,
    MEASURES,
    Pair,
    Run,
    difference,
    group,
    reliability,
)
from scratchnet.experiments.result import Names, Predictions
from tests.experiments.report import made


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_interval_over_seeds_is_the_paired_t_test(measure) -> None:
    softmax, gumbel = group(made.study(4))
    expected = ttest_rel(gumbel.values(measure), softmax.values(measure)).confidence_interval(0.95)
    found = Pair(softmax, gumbel).over_seeds(measure)
    np.testing.assert_allclose((found.low, found.high), expected, rtol=1e-9)
    assert found.mean == pytest.approx((gumbel.values(measure) - softmax.values(measure)).mean())


@pytest.mark.parametrize("measure", [ARGMAX, EXPECTED, CROSS_ENTROPY], ids=lambda measure: measure.name)
def test_interval_over_images_pairs_the_means_over_seeds(measure) -> None:
    groups = group(made.study())
    softmax, gumbel = (np.mean([run.images[measure] for run in each.runs], axis=0) for each in groups)
    found = Pair(*groups).over_images(measure)
    np.testing.assert_allclose((found.low, found.high), ttest_rel(gumbel, softmax).confidence_interval(0.95))


def test_what_can_be_told() -> None:
    assert difference([1.0, 1.1, 0.9], ARGMAX).excludes_zero
    assert difference([-1.0, -1.1, -0.9], ARGMAX).excludes_zero
    assert not difference([1.0, -1.1, 0.9], ARGMAX).excludes_zero
    assert not difference([0.0, 0.0, 0.0], ARGMAX).excludes_zero
    one = difference([5.0], ARGMAX)
    assert not one.excludes_zero
    assert str(one) == "+5.00 (one seed gives no interval)"


def test_measures_are_those_of_the_run() -> None:
    result = made.result()
    run = Run(result)
    assert run.values[ARGMAX] == pytest.approx(100 * result.final["accuracy"])
    assert run.values[EXPECTED] == pytest.approx(100 * result.final["expected_sampled_accuracy"])
    assert run.values[CROSS_ENTROPY] == pytest.approx(result.epochs[-1].test_loss)
    assert run.f1.mean() == pytest.approx(result.final["f1"])
    assert run.seconds_per_epoch == 15  # the median of 11 to 19; the first epoch took 10
    assert Run(replace(result, epochs=result.epochs[:1])).seconds_per_epoch == 10


def test_calibration_error_by_hand() -> None:
    """Probabilities 0.9 and 0.92 share the bin (13/15, 14/15], one of them right; 0.6 is right, 0.59 is not."""
    confidence, right = np.array([0.9, 0.92, 0.6, 0.59]), np.array([True, False, True, False])
    logits = np.log(np.stack([confidence, 1 - confidence], axis=1))
    result = made.result(classes=10)
    result.predictions = Predictions(Names(["a", "b"], []), logits, np.where(right, 0, 1), np.empty(0, int))
    # bins: (0.8667, 0.9333] two of them, gap |0.5 - 0.91|; (0.5333, 0.6] two of them, gap |0.5 - 0.595|
    assert Run(result).values[CALIBRATION] == pytest.approx(100 * (0.5 * 0.41 + 0.5 * 0.095))


def test_bins_are_closed_above() -> None:
    counts, confidence, accuracy = reliability(np.array([1 / 15, 1.0, 0.5]), np.array([True, False, True]))
    assert np.flatnonzero(counts).tolist() == [0, 7, 14]
    np.testing.assert_allclose(confidence[[0, 7, 14]], [1 / 15, 0.5, 1.0])
    assert accuracy[[0, 7, 14]].tolist() == [1, 1, 0]


def test_confusion_of_superclasses_is_summed_over_seeds_and_classes() -> None:
    names, counts = group(made.study(2))[0].confusion()
    assert names[3] == "group 3"
    expected = np.zeros((20, 20), int)
    for seed in range(2):
        predictions = made.result(seed=seed).predictions
        for label, row in zip(predictions.labels, predictions.logits, strict=True):
            expected[label % 20, np.argmax(row) % 20] += 1
    np.testing.assert_array_equal(counts, expected)


def test_groups_are_in_order() -> None:
    groups = group([*made.temperatures(2), *made.study(2, recipe="valid-padding"), *made.study(2)][::-1])
    assert [(g.settings.recipe, g.settings.head, g.settings.temperature) for g in groups] == [
        ("same-padding", "softmax", None),
        *(("same-padding", "gumbel", temperature) for temperature in (0.1, 0.5, 1.0, 2.0, "anneal")),
        ("valid-padding", "softmax", None),
        ("valid-padding", "gumbel", 1.0),
    ]
    assert all([run.result.settings.seed for run in g.runs] == [0, 1] for g in groups)


def test_runs_without_a_partner_are_refused() -> None:
    with pytest.raises(ValueError, match="same seeds"):
        group([*made.study(2), made.result(seed=2)])


def test_published_figures_stand_beside_the_same_settings_only() -> None:
    def published(result) -> bool:
        return group([result])[0].report is not None

    result = made.result("gumbel")
    assert published(result)
    assert published(made.result())
    for change in (
        {"data": "digits"}, {"batch_size": 32}, {"learning_rate": 0.01}, {"temperature": "anneal"}, {"epochs": 9}
    ):  # fmt: skip
        assert not published(replace(result, settings=replace(result.settings, **change)))


def test_a_third_head_is_compared_with_softmax(third_head: str) -> None:
    groups = group([*made.study(2), *(made.result(third_head, seed) for seed in range(2))][::-1])
    assert [each.settings.head for each in groups] == ["softmax", "gumbel", third_head]
    assert [each.name for each in groups] == ["softmax", "gumbel", "third head"]
    assert groups[2].report is None
