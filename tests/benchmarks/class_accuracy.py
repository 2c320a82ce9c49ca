"""What heads with clusters or samples do to the accuracy: CIFAR-100, same-padding, as the first report trained it.

    python -m tests.benchmarks.class_accuracy --output studies/heads --seeds 0 1 2

Softmax, two-level by superclass, the same with 20 random clusters of 5 as control, and sampled with 64 of the 100
classes. A run that is done is not done again, and one that was interrupted goes on.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from scratchnet.backend.noise import INITIALIZERS, generator
from scratchnet.experiments.report.statistics import ARGMAX, CROSS_ENTROPY, Run, difference
from scratchnet.experiments.result import Result
from scratchnet.experiments.study import plan, run_study
from scratchnet.heads import HEADS, TwoLevelSoftmax
from tests.benchmarks.report import machine, table


class RandomClusters(TwoLevelSoftmax):
    """Clusters as large as those of the superclasses, of classes drawn by the seed."""

    name = "two-level-random"

    def __init__(self, classes: int, superclasses: np.ndarray, seed: int = 0) -> None:
        super().__init__(classes, generator(seed, INITIALIZERS + 1).permutation(superclasses))
        self.seed = seed


NAMES = "softmax", "two-level", RandomClusters.name, "sampled"
FIGURES = "accuracy", "accuracy_greedy"


def rows(results: Sequence[Result]) -> Iterator[tuple[str, ...]]:
    """For each head, means over the seeds: accuracies (%), clean cross-entropy, and differences from softmax."""
    runs = {head: [Run(each) for each in results if each.settings.head == head] for head in NAMES}
    for head, ours in runs.items():
        if ours:
            figures = [[100 * run.final.get(name, np.nan) for run in ours] for name in FIGURES]
            loss = [run.values[CROSS_ENTROPY] for run in ours]
            yield head, *(mean_of(values) for values in (*figures, loss)), *differences(ours, runs["softmax"])


def mean_of(values: Sequence[float]) -> str:
    if np.isnan(values).any():
        return ""
    return f"{np.mean(values):.2f}" + (f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else "")


def differences(ours: Sequence[Run], theirs: Sequence[Run]) -> list[str]:
    pairs = list(zip(ours, theirs, strict=True))
    return [str(difference([a.values[m] - b.values[m] for a, b in pairs], m)) for m in (ARGMAX, CROSS_ENTROPY)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("studies/heads"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--heads", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--data", default="cifar100")
    parser.add_argument("--epochs", type=int)
    given = parser.parse_args()
    HEADS[RandomClusters.name] = RandomClusters  # in this process alone, so one run at a time
    print(machine(), flush=True)
    settings = {"device": "cpu", "workers": 1, "data": given.data, "epochs": given.epochs}
    results = run_study(plan(["same-padding"], given.seeds, given.output, given.heads, **settings), jobs=1)
    header = "head", "exact (%)", "greedy (%)", "cross-entropy", "accuracy - softmax's", "cross-entropy - softmax's"
    print(table(header, rows(results)))


if __name__ == "__main__":
    main()
