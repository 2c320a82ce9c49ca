"""The sentences follow the figures: made runs whose heads differ, do not, or are too few to say."""

from collections.abc import Sequence
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from scratchnet.experiments import Result
from scratchnet.experiments.report import Study, page
from scratchnet.experiments.report.statistics import ARGMAX, EXPECTED
from tests.experiments.report import made


def heads(gumbel_skill: float, seeds: int = 3, recipe: str = "same-padding") -> list[Result]:
    """The results of softmax, then those of gumbel."""
    softmax = [made.result("softmax", seed, recipe=recipe) for seed in range(seeds)]
    return softmax + [made.result("gumbel", seed, recipe=recipe, skill=gumbel_skill) for seed in range(seeds)]


def findings(results: Sequence[Result]) -> list[str]:
    """The first section's points, as a reader of the page has them."""
    section = ElementTree.fromstring(page("html", Study(results), "command", {})).find("body")
    assert section is not None
    sections = [index for index, element in enumerate(section) if element.tag == "h2"]
    points = [point for element in section[sections[0] : sections[1]] for point in element.iter("li")]
    return [" ".join("".join(point.itertext()).split()) for point in points]


@pytest.mark.parametrize(("skill", "direction"), [(3.0, "higher"), (1.0, "lower")])
def test_heads_that_differ(skill: float, direction: str) -> None:
    results = heads(skill)
    accuracy = [result.final["accuracy"] for result in results]
    points = 100 / 3 * abs(sum(accuracy[3:]) - sum(accuracy[:3]))
    wanted = f"gumbel against softmax: argmax accuracy is {points:.2f} points {direction}, 95"
    assert findings(results)[0].startswith(wanted)


def test_heads_that_do_not_differ() -> None:
    softmax = heads(2.0)[:3]
    settings = [made.result("gumbel", seed).settings for seed in range(3)]
    gumbel = [replace(result, settings=of) for result, of in zip(softmax, settings, strict=True)]
    sentences = findings([*softmax, *gumbel])
    wanted = "no difference in argmax accuracy can be told: +0.00 points, 95 % interval +0.00 to +0.00."
    assert sentences[0] == f"gumbel against softmax: {wanted}"
    assert not any("against" in sentence and ("higher" in sentence or "lower" in sentence) for sentence in sentences)


def test_a_difference_within_its_interval_is_not_stated() -> None:
    """Runs whose accuracies are 1.0 and 0.6 points above, and 1.0 below, those of softmax."""
    results = []
    for seed, right in enumerate((10, -10, 6)):
        result = made.result("softmax", seed)
        for head, hits in (("softmax", 400), ("gumbel", 400 + right)):
            settings = made.result(head, seed).settings
            results.append(replace(result, settings=settings, predictions=_right(result.predictions, 10 * hits)))
    found = Study(results).pairs[0].over_seeds(ARGMAX)
    assert found.mean > 0
    wanted = "gumbel against softmax: no difference in argmax accuracy can be told: +0.20 points, 95 % interval -2.4"
    assert findings(results)[0].startswith(wanted)


def test_one_seed_gives_no_interval() -> None:
    sentences = findings(heads(3.0, seeds=1))
    assert len(sentences) == 7
    for sentence in sentences:
        assert "higher" not in sentence
        assert "lower" not in sentence
        assert "one seed gives no interval" in sentence or "first report" in sentence


def test_distance_from_the_published_figure() -> None:
    results = heads(2.0)
    near = [replace(result, predictions=_right(result.predictions, 4150)) for result in results[:3]]
    sentences = findings([*near, *results[3:]])
    wanted = "softmax, argmax accuracy: 41.50 % beside 41.52 % in the first report, -0.02 points and within 1.5 points."
    assert wanted in sentences
    assert any(s.startswith("gumbel, argmax accuracy") and "not within 1.5 points" in s for s in sentences)


@pytest.mark.parametrize(("hits", "within"), [(4010, True), (3990, False), (4300, True), (4310, False)])
def test_what_counts_as_near(hits: int, within: bool) -> None:
    results = [replace(result, predictions=_right(result.predictions, hits)) for result in heads(2.0)]
    assert ("and within 1.5 points." in findings(results)[1]) == within


def _right(predictions, of_ten_thousand: int):
    """Predictions of which so many are right."""
    logits = 0 * predictions.logits
    count = len(logits) * of_ten_thousand // 10_000
    logits[range(len(logits)), predictions.labels] = [1.0] * count + [-1.0] * (len(logits) - count)
    return replace(predictions, logits=logits)


def test_heads_with_different_epochs_are_compared_at_the_same_one_too() -> None:
    results = heads(2.0, recipe="valid-padding")
    sentences = findings(results)
    assert sentences[0].endswith(" gumbel was trained for 30 epochs, softmax for 10.")
    points = 100 * sum(
        results[3 + seed].epochs[9].test_accuracy - results[seed].final["accuracy"] for seed in range(3)
    ) / 3  # fmt: skip
    assert sentences[1].startswith(f"The same, both after 10 epochs: argmax accuracy is {-points:.2f} points lower")


def test_the_gap_of_the_second_report_is_taken_apart() -> None:
    """Both heads' networks are the same here, so that all of the gap is the noise."""
    softmax, gumbel = heads(2.0, recipe="valid-padding")[:3], heads(2.0, recipe="valid-padding")[3:]
    gumbel = [
        replace(like, settings=result.settings, epochs=result.epochs)
        for result, like in zip(gumbel, softmax, strict=True)
    ]
    (sentence,) = (s for s in findings([*softmax, *gumbel]) if s.startswith("The second report"))
    assert "a difference of -5.81 points" in sentence
    noise = 100 * sum(each.final["expected_sampled_accuracy"] - each.final["accuracy"] for each in softmax) / 3
    assert f"Of our {noise:+.2f} points the noise makes {noise:+.2f}, and +0.00 remain by argmax." in sentence
    assert "no difference in argmax accuracy can be told" in sentence
    assert not any("second report left" in s for s in findings(heads(2.0)))


def test_the_gap_is_the_noise_and_the_heads_together() -> None:
    results = heads(2.5, recipe="valid-padding")
    (sentence,) = (s for s in findings(results) if s.startswith("The second report"))
    softmax, gumbel = Study(results).pairs[0]
    noise = (gumbel.values(EXPECTED) - gumbel.values(ARGMAX)).mean()
    remaining = (gumbel.values(ARGMAX) - softmax.values(ARGMAX)).mean()
    makes = f"the noise makes {noise:+.2f}, and {remaining:+.2f} remain by argmax."
    assert sentence.endswith(f"Of our {noise + remaining:+.2f} points {makes}")


def test_temperatures_are_compared_with_the_report_s() -> None:
    sentences = findings([*made.study(), *made.temperatures(others=(0.1, "anneal"))])[-2:]
    assert [sentence.partition(":")[0] for sentence in sentences] == [
        "Temperature 0.1 against 0.5", "Temperature anneal against 0.5"
    ]  # fmt: skip
    assert "argmax accuracy is " in sentences[0]
    assert " points lower" in sentences[0]


def test_a_third_head_without_a_report_is_compared_with_softmax(third_head: str) -> None:
    results = [*heads(2.0), *(made.result(third_head, seed, skill=3.0) for seed in range(3))]
    sentences = findings(results)
    against = [sentence for sentence in sentences if sentence.startswith("third head against softmax: ")]
    assert len(against) == 3
    assert "argmax accuracy is " in against[0]
    assert " points higher" in against[0]
    assert sum(sentence.startswith("gumbel against softmax: ") for sentence in sentences) == 3
    assert sum("predicting with the noise on" in sentence for sentence in sentences) == 3
    assert [s.partition(",")[0] for s in sentences if "in the first report" in s] == ["softmax", "gumbel"]
