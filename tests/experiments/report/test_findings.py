"""The sentences follow the figures: made runs whose heads differ, do not, or are too few to say."""

from dataclasses import replace

import pytest

from scratchnet.experiments.report.findings import between_heads, between_temperatures, of_cost, state
from scratchnet.experiments.report.statistics import ARGMAX, EXPECTED, Group, difference, group
from tests.experiments.report import made


def heads(gumbel_skill: float, seeds: int = 3, recipe: str = "same-padding") -> tuple[Group, Group]:
    softmax = [made.result("softmax", seed, recipe=recipe) for seed in range(seeds)]
    gumbel = [made.result("gumbel", seed, recipe=recipe, skill=gumbel_skill) for seed in range(seeds)]
    first, second = group([*softmax, *gumbel])
    return first, second


@pytest.mark.parametrize(("skill", "direction"), [(3.0, "higher"), (1.0, "lower")])
def test_heads_that_differ(skill: float, direction: str) -> None:
    softmax, gumbel = heads(skill)
    accuracies = ([run.final.accuracy for run in group.runs] for group in (gumbel, softmax))
    points = 100 / 3 * abs(sum(next(accuracies)) - sum(next(accuracies)))
    first = between_heads(softmax, gumbel)[0]
    assert first.startswith(f"Gumbel-softmax against softmax: argmax accuracy is {points:.2f} points {direction}, 95")


def test_heads_that_do_not_differ() -> None:
    softmax, _ = heads(2.0)
    gumbel = replace(softmax, head="gumbel", temperature=0.5)
    sentences = between_heads(softmax, gumbel)
    wanted = "no difference in argmax accuracy can be told: +0.00 points, 95 % interval +0.00 to +0.00."
    assert sentences[0] == f"Gumbel-softmax against softmax: {wanted}"
    assert not any("against" in sentence and ("higher" in sentence or "lower" in sentence) for sentence in sentences)


def test_a_difference_within_its_interval_is_not_stated() -> None:
    found = difference([1.0, -1.0, 0.6], ARGMAX)
    assert found.mean > 0
    assert state(found).startswith("no difference in argmax accuracy can be told: +0.20 points, 95 % interval -2.4")


def test_one_seed_gives_no_interval() -> None:
    for sentence in between_heads(*heads(3.0, seeds=1)):
        assert "higher" not in sentence
        assert "lower" not in sentence
        assert "one seed gives no interval" in sentence or "first report" in sentence


def test_distance_from_the_published_figure() -> None:
    softmax, gumbel = heads(2.0)
    near = [replace(run.result, predictions=_right(run.predictions, 4150)) for run in softmax.runs]
    near_softmax = group([*near, *(run.result for run in gumbel.runs)])[0]
    sentences = between_heads(near_softmax, gumbel)
    wanted = "softmax, argmax accuracy: 41.50 % beside 41.52 % in the first report, -0.02 points and within 1.5 points."
    assert wanted in sentences
    assert any(s.startswith("Gumbel-softmax, argmax accuracy") and "not within 1.5 points" in s for s in sentences)


def _right(predictions, of_ten_thousand: int):
    """Predictions of which so many are right."""
    logits = 0 * predictions.logits
    count = len(logits) * of_ten_thousand // 10_000
    logits[range(len(logits)), predictions.labels] = [1.0] * count + [-1.0] * (len(logits) - count)
    return replace(predictions, logits=logits)


def test_heads_with_different_epochs_are_compared_at_the_same_one_too() -> None:
    softmax, gumbel = heads(2.0, recipe="valid-padding")
    sentences = between_heads(softmax, gumbel)
    assert "Gumbel-softmax was trained for 30 epochs, softmax for 10." in sentences[0]
    points = 100 * sum(
        gumbel.runs[seed].result.epochs[9].test_accuracy - softmax.runs[seed].final.accuracy for seed in range(3)
    ) / 3  # fmt: skip
    assert sentences[1].startswith(f"The same, both after 10 epochs: argmax accuracy is {-points:.2f} points lower")


def test_the_gap_of_the_second_report_is_taken_apart() -> None:
    """Both heads' networks are the same here, so that all of the gap is the noise."""
    softmax, gumbel = heads(2.0, recipe="valid-padding")
    gumbel = replace(gumbel, runs=tuple(
        type(run)(replace(like.result, head="gumbel", temperature=1.0, epochs=run.result.epochs))
        for run, like in zip(gumbel.runs, softmax.runs, strict=True)
    ))  # fmt: skip
    (sentence,) = (s for s in between_heads(softmax, gumbel) if s.startswith("The second report"))
    assert "a difference of -5.81 points" in sentence
    noise = 100 * sum(r.final.expected_sampled_accuracy - r.final.accuracy for r in softmax.runs) / 3
    assert f"Of our {noise:+.2f} points the noise makes {noise:+.2f}, and +0.00 remain by argmax." in sentence
    assert "no difference in argmax accuracy can be told" in sentence
    assert not any("second report left" in s for s in between_heads(*heads(2.0)))


def test_the_gap_is_the_noise_and_the_heads_together() -> None:
    softmax, gumbel = heads(2.5, recipe="valid-padding")
    (sentence,) = (s for s in between_heads(softmax, gumbel) if s.startswith("The second report"))
    noise = (gumbel.values(EXPECTED) - gumbel.values(ARGMAX)).mean()
    remaining = (gumbel.values(ARGMAX) - softmax.values(ARGMAX)).mean()
    makes = f"the noise makes {noise:+.2f}, and {remaining:+.2f} remain by argmax."
    assert sentence.endswith(f"Of our {noise + remaining:+.2f} points {makes}")


def test_temperatures_are_compared_with_the_report_s() -> None:
    gumbel = group([*made.study(), *made.temperatures(others=(0.1, "anneal"))])[1:]
    sentences = between_temperatures(gumbel[1], gumbel)
    assert [sentence.partition(":")[0] for sentence in sentences] == [
        "Temperature 0.1 against 0.5", "Temperature anneal against 0.5"
    ]  # fmt: skip
    assert "argmax accuracy is " in sentences[0]
    assert " points lower" in sentences[0]


@pytest.mark.parametrize(("ratio", "longer", "shorter"), [(2.0, 3, 0), (0.5, 0, 3), (1.05, 0, 0)])
def test_cost(ratio: float, longer: int, shorter: int) -> None:
    sentence, *shares = of_cost(made.cost(ratio))
    assert f"longer than the softmax head at {longer} of 3" in sentence
    assert f"less long at {shorter} " in sentence
    assert f"{ratio:.2f} to {ratio:.2f}" in sentence
    assert shares[1] == "same-padding: the gumbel head takes 1.0 % of a training step."
