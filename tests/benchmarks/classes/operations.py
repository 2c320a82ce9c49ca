"""The operations of output layer and head in a training step, as formulas.

Counted are multiply-adds of matrix products, and exponentials, logarithms and random numbers: what is left (comparing,
adding, dividing) is a fixed number of operations for each logit that is there. Of `rows` images with D features each:
softmax computes K logits a row; two-level those of C clusters and of the K / C classes of the label's; sampled those of
m classes that all rows share and the label's own. Each logit costs D multiply-adds forward and 2 D backward, D for the
weights' gradient and D for the features'.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isqrt
from typing import NamedTuple

from tests.benchmarks.report import table

CLASSES = 100, 1_000, 10_000, 100_000
ROWS, FEATURES, SAMPLES = 64, 256, 64


class Operations(NamedTuple):
    """Of a step."""

    forward: float  # multiply-adds
    backward: float  # multiply-adds
    exponentials: float
    logarithms: float
    randoms: float


@dataclass(frozen=True)
class Formula:
    """What a head does for `rows` images with `features` each: `logits` a row, and as text."""

    text: tuple[str, str, str, str]  # logits a row, exponentials, logarithms, random numbers
    grows: float  # the expected slope


FORMULAS = {
    "softmax": Formula(("K", "N K", "N", "0"), 1.0),
    "gumbel": Formula(("K", "N K", "N + 2 N K", "N K"), 1.0),
    "two-level": Formula(("C + K / C", "N (C + K / C)", "2 N", "0"), 0.5),
    "sampled": Formula(("m + 1", "N (m + 1)", "N", "m"), 0.0),
}


def clusters(classes: int) -> int:
    """As near to the square root as can be: of so many classes each, or one less."""
    return isqrt(classes - 1) + 1


def operations(
    head: str, classes: int, rows: int = ROWS, features: int = FEATURES, samples: int = SAMPLES,
    groups: int | None = None,
) -> Operations:  # fmt: skip
    """Of a step of this head; `groups` are the clusters of the two-level one."""
    groups = groups or clusters(classes)
    logits = {"two-level": groups + classes / groups, "sampled": samples + 1}.get(head, classes)
    forward = rows * features * logits
    logarithms = {"gumbel": rows + 2 * rows * classes, "two-level": 2 * rows}.get(head, rows)
    randoms = {"gumbel": rows * classes, "sampled": samples}.get(head, 0)
    return Operations(forward, 2 * forward, rows * logits, logarithms, randoms)


def printed() -> Iterable[str]:
    yield (
        f"operations of output layer and head in a step of N = {ROWS} images with D = {FEATURES} features, "
        f"m = {SAMPLES} samples,\nC = sqrt(K) clusters; each logit of a row is D multiply-adds forward and 2 D backward"
    )
    rows = [(head, *formula.text, f"{formula.grows:g}") for head, formula in FORMULAS.items()]
    yield table(("", "logits a row", "exponentials", "logarithms", "random numbers", "expected slope"), rows)
    rows = []
    for classes in CLASSES:
        for head in FORMULAS:
            of = operations(head, classes)
            millions = (f"{value / 1e6:.3f}" for value in (of.forward, of.backward))
            thousands = (f"{value / 1e3:.1f}" for value in of[2:])
            rows.append((f"{classes:,} {head}", *millions, *thousands))
    names = "forward (M)", "backward (M)", "exponentials (k)", "logarithms (k)", "random numbers (k)"
    yield table(("", *names), rows)
