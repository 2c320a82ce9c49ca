"""What the figures say, in sentences: a difference is stated only where its 95 % interval excludes zero."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import TYPE_CHECKING

import numpy as np

from scratchnet.experiments.report.statistics import (
    ARGMAX,
    CALIBRATION,
    CROSS_ENTROPY,
    EXPECTED,
    Difference,
    Group,
    Measure,
    difference,
    over_seeds,
)

if TYPE_CHECKING:
    from scratchnet.experiments.head_cost import HeadCost

CLOSE = 1.5  # points from a published figure
ACCURACY = Measure("expected accuracy")


def state(found: Difference) -> str:
    name, unit, digits = found.measure.name, found.measure.unit, found.measure.digits
    if isnan(found.low):
        return f"{name} differs by {found.mean:+.{digits}f} {unit}, {found.interval}"
    if found.told:
        direction = "higher" if found.mean > 0 else "lower"
        return f"{name} is {abs(found.mean):.{digits}f} {unit} {direction}, 95 % interval {found.interval}"
    return f"no difference in {name} can be told: {found.mean:+.{digits}f} {unit}, 95 % interval {found.interval}"


def between_heads(softmax: Group, gumbel: Group) -> list[str]:
    """The findings of a recipe."""
    sentences = [f"Gumbel-softmax against softmax: {state(over_seeds(softmax, gumbel, ARGMAX))}."]
    if softmax.epochs != gumbel.epochs:
        last = min(softmax.epochs, gumbel.epochs)
        curves = [[run.result.epochs[last - 1].test_accuracy for run in group.runs] for group in (softmax, gumbel)]
        early = difference(100 * np.subtract(curves[1], curves[0]), ARGMAX)
        sentences[0] += f" Gumbel-softmax was trained for {gumbel.epochs} epochs, softmax for {softmax.epochs}."
        sentences.append(f"The same, both after {last} epochs: {state(early)}.")
    for group in softmax, gumbel:
        if (report := group.report) is not None:
            measure = EXPECTED if report.noisy_prediction else ARGMAX
            ours, theirs = group.values(measure).mean(), 100 * report.accuracy
            within = "within" if abs(ours - theirs) <= CLOSE else "not within"
            sentences.append(
                f"{group.name}, {measure.name}: {ours:.2f} % beside {theirs:.2f} % in the {report.source}, "
                f"{ours - theirs:+.2f} points and {within} {CLOSE} points."
            )
    for group in softmax, gumbel:
        noise = difference(group.values(EXPECTED) - group.values(ARGMAX), ACCURACY)
        sentences.append(f"{group.name}, predicting with the noise on instead of by argmax: {state(noise)}.")
    sentences += _gap(softmax, gumbel)
    for measure in CROSS_ENTROPY, CALIBRATION:
        sentences.append(f"Gumbel-softmax against softmax: {state(over_seeds(softmax, gumbel, measure))}.")
    return sentences


def _gap(softmax: Group, gumbel: Group) -> list[str]:
    """How much of a report's difference comes from leaving the noise on for one head only, where it did."""
    if softmax.report is None or gumbel.report is None or not gumbel.report.noisy_prediction:
        return []
    unlike = difference(gumbel.values(EXPECTED) - softmax.values(ARGMAX), ACCURACY)
    argmax, expected = (over_seeds(softmax, gumbel, measure) for measure in (ARGMAX, EXPECTED))
    return [
        f"The {gumbel.report.source} left the noise on at evaluation for Gumbel-softmax alone, and found a difference "
        f"of {100 * (gumbel.report.accuracy - softmax.report.accuracy):+.2f} points from softmax. Ours evaluated in "
        f"this way: {state(unlike)}. Evaluated alike: {state(argmax)}; {state(expected)}. Of our {unlike.mean:+.2f} "
        f"points the noise makes {unlike.mean - argmax.mean:+.2f}, and {argmax.mean:+.2f} remain by argmax."
    ]


def between_temperatures(own: Group, study: Sequence[Group]) -> list[str]:
    return [
        f"Temperature {other.temperature} against {own.temperature}: {state(over_seeds(own, other, ARGMAX))}; "
        f"{state(over_seeds(own, other, CROSS_ENTROPY))}."
        for other in study
        if other is not own
    ]


def of_cost(cost: HeadCost) -> list[str]:
    """Two times differ where their quartiles do not overlap."""
    softmax, gumbel = ([time for time in cost.times if time.head == head] for head in ("softmax", "gumbel"))
    both = list(zip(softmax, gumbel, strict=True))
    longer, shorter = sum(g.low > s.high for s, g in both), sum(g.high < s.low for s, g in both)
    ratios = [g.milliseconds / s.milliseconds for s, g in both]
    return [
        f"The Gumbel-softmax head alone takes longer than the softmax head at {longer} of {len(both)} numbers of "
        f"classes, and less long at {shorter} (where the quartiles of their times do not overlap). The ratio of their "
        f"medians is {min(ratios):.2f} to {max(ratios):.2f}.",
        *(
            f"{share.recipe}: the {share.head} head takes {100 * share.share:.1f} % of a training step."
            for share in cost.shares
        ),
    ]
