"""What a run shows in the terminal: the network, a bar and a line per epoch, the final figures beside the report's."""

import sys
from pathlib import Path

from tqdm import tqdm

from scratchnet import Sequential
from scratchnet.data import Dataset
from scratchnet.experiments.config import Config
from scratchnet.experiments.result import SCORES, Epoch, Result
from scratchnet.experiments.run import Observer

ROW = "{:28}" + 4 * "{:>10}"


class Display(Observer):
    """Prints to standard output, and draws a bar on standard error while an epoch lasts."""

    def __init__(self, config: Config) -> None:
        self.folder, self.epochs = config.output, config.settings.epochs
        self.dataset = ""
        self.bar: tqdm | None = None

    def note(self, message: str) -> None:
        print(message, flush=True)

    def start(self, dataset: Dataset, network: Sequential) -> None:
        self.dataset = dataset.name
        print(f"{dataset.name}: {len(dataset.train):,} training and {len(dataset.test or ()):,} test images, "
              f"{dataset.num_classes} classes; files go to {self.folder}")  # fmt: skip
        network.summary()
        sys.stdout.flush()

    def step(self, epoch: int, step: int, steps: int, loss: float, accuracy: float) -> None:
        if self.bar is None:
            name = f"{self.dataset} epoch {epoch}/{self.epochs}"
            self.bar = tqdm(total=steps, desc=name, unit="step", leave=False)
        self.bar.set_postfix_str(f"loss {loss:.4f}, accuracy {accuracy:.4f}", refresh=False)
        self.bar.update(step - self.bar.n)
        if step == steps:
            self.bar.refresh()  # it may be too soon after the last time for the bar to do so of itself
            self.close()

    def epoch(self, epoch: Epoch) -> None:
        print(
            f"{self.dataset} epoch {epoch.epoch}/{self.epochs}: {epoch.seconds:.1f} s, "
            f"training loss {epoch.train_loss:.4f}, accuracy {epoch.train_accuracy:.4f}; "
            f"test loss {epoch.test_loss:.4f}, accuracy {epoch.test_accuracy:.4f}, "
            f"noise on {epoch.test_accuracy_sampled:.4f}",
            flush=True,
        )

    def close(self) -> None:
        """Remove the bar, so that what comes next starts on a line of its own."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def final_block(result: Result, folder: Path) -> str:
    """The final figures of a finished result, and those of the report where there is one and they are comparable."""
    settings, final, report = result.settings, result.final, result.settings.report
    assert final is not None
    rows: list[tuple[str | float, ...]] = [
        (f"after {settings.epochs} epoch{'s' * (settings.epochs > 1)}", "accuracy", "precision", "recall", "F1"),
        ("argmax", *(final[score] for score in SCORES)),
        ("noise on, sampled", *(final[f"{score}_sampled"] for score in SCORES)),
        ("noise on, expected", final["expected_sampled_accuracy"], "", "", ""),
    ]
    if report is None:
        remark = f"No report has figures of the head {settings.head} with the recipe {settings.recipe}."
    elif result.comparable:
        rows.append((f"{report.source}, {report.evaluation}", *(getattr(report, score) for score in SCORES)))
        departures = settings.departures()
        remark = f"Unlike the report: {', '.join(departures)}." if departures else "Settings as in the report."
    else:
        remark = f"The reports' figures are of cifar100 and cannot be compared with those of {settings.data}."
    lines = (ROW.format(*(f"{cell:.4f}" if isinstance(cell, float) else cell for cell in row)).rstrip() for row in rows)
    return "\n".join([result.title, *lines, remark, f"Files: {folder}"])
