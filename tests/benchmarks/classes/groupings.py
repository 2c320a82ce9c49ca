"""What clusters and samples do to the accuracy: CIFAR-100, `same-padding` as the first report trained it, ten epochs.

Softmax, two-level by superclass, the same with 20 random clusters of 5 as control, and sampled with 64 of the 100
classes: runs of a study, one worker each. A run that is done is not done again, and one that was interrupted goes on.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from scratchnet.backend.noise import INITIALIZERS, generator
from scratchnet.experiments.report.statistics import ARGMAX, BASELINE, CROSS_ENTROPY, Measure, Run, difference
from scratchnet.experiments.study import plan, run_study
from scratchnet.heads import HEADS, TwoLevelSoftmax
from tests.benchmarks.report import table

GREEDY = Measure("accuracy of the best class of the best cluster")


class RandomClusters(TwoLevelSoftmax):
    """Clusters as large as those of the superclasses, of classes drawn by the seed."""

    name = "two-level-random"

    def __init__(self, classes: int, superclasses: np.ndarray, seed: int = 0) -> None:
        super().__init__(classes, generator(seed, INITIALIZERS + 1).permutation(superclasses))
        self.seed = seed


CASES = BASELINE, "two-level", RandomClusters.name, "sampled"


def study(
    folder: Path, heads: Sequence[str], seeds: Sequence[int], data: str, epochs: int | None = None
) -> Iterator[str]:
    HEADS[RandomClusters.name] = RandomClusters  # in this process alone, so one run at a time
    settings = {"device": "cpu", "workers": 1, "data": data, "epochs": epochs}
    results = run_study(plan(["same-padding"], seeds, folder, heads, **settings), jobs=1)
    runs = {head: [Run(each) for each in results if each.settings.head == head] for head in CASES}
    yield from printed({head: ours for head, ours in runs.items() if ours})


def printed(found: dict[str, list[Run]]) -> Iterator[str]:
    """Means over the seeds, and differences by seed with their 95 % intervals."""
    yield f"CIFAR-100, same-padding, {len(found[BASELINE])} seeds; differences by seed, with 95 % intervals"
    header = "exact (%)", "less softmax's", "cross-entropy", "less softmax's", "greedy (%)", "less exact"
    yield table(("", *header), (_row(head, runs, found[BASELINE]) for head, runs in found.items()))
    if {"two-level", RandomClusters.name} <= set(found):
        own, control = (_values(found[head], ARGMAX) for head in ("two-level", RandomClusters.name))
        yield f"by superclass less by random clusters: {difference(own - control, ARGMAX)} points"


def _row(head: str, runs: Sequence[Run], baseline: Sequence[Run]) -> tuple[str, ...]:
    cells = []
    for measure in ARGMAX, CROSS_ENTROPY:
        own = _values(runs, measure)
        away = "" if runs is baseline else str(difference(own - _values(baseline, measure), measure))
        cells += [f"{own.mean():.{measure.digits}f}", away]
    if "accuracy_greedy" in runs[0].final:
        greedy = 100 * np.array([run.final["accuracy_greedy"] for run in runs])
        cells += [f"{greedy.mean():.2f}", str(difference(greedy - _values(runs, ARGMAX), GREEDY))]
    else:
        cells += ["", ""]
    return head, *cells


def _values(runs: Sequence[Run], measure: Measure) -> np.ndarray:
    return np.array([run.values[measure] for run in runs])
