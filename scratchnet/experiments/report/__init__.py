"""The report of a study, written from the results of its runs alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from scratchnet.experiments import artifacts
from scratchnet.experiments.report.pages import Picture, html, markdown
from scratchnet.experiments.report.sections import TITLE, compose
from scratchnet.experiments.report.statistics import CALIBRATION, Group, group
from scratchnet.experiments.result import Result

if TYPE_CHECKING:
    from scratchnet.experiments.head_cost import HeadCost

FIGURES = "figures"


def write_report(folder: Path, results: Sequence[Result], cost: HeadCost | None, command: str) -> None:
    """Write report.md with figures/*.png, report.html, which needs no other file, and results.csv, a row for each run.

    `results` are of finished runs on one data set; `cost` is left out where None; `command` is what made the study.
    Without matplotlib the pages have no figures, and say so. Raises ScratchnetError where a file cannot be written.
    """
    groups = group(results)
    content = compose(groups, cost, command)
    pictures = {block.name: block.png for block in content if isinstance(block, Picture)}
    artifacts.prepare(folder / FIGURES)
    artifacts.write(folder / FIGURES, pictures)
    pages = {"report.md": markdown(content, FIGURES), "report.html": html(content, TITLE)}
    artifacts.write(folder, {**pages, "results.csv": artifacts.csv_bytes(_rows(groups))})


def _rows(groups: Sequence[Group]) -> list[list[object]]:
    """A header, and the settings and final figures of each run; seconds per epoch are a median without the first."""
    settings = "recipe", "head", "temperature", "seed", "dataset", "batch_size", "learning_rate", "device", "workers"
    table: list[dict[str, object]] = [
        {name: getattr(run.result, name) for name in settings}
        | {"device_precision": run.result.precision, "epochs": len(run.result.epochs)}
        | asdict(run.final)
        | {"cross_entropy": run.result.epochs[-1].test_loss, "calibration_error": run.values[CALIBRATION] / 100}
        | {"seconds_per_epoch": run.seconds_per_epoch, "seconds": run.seconds.sum()}
        for each in groups
        for run in each.runs
    ]
    return [list(table[0]), *(list(row.values()) for row in table)]
