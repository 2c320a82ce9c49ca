"""The report of a study, written from the results of its runs alone; what it says stands in report.j2."""

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from itertools import groupby
from pathlib import Path

import jinja2
import numpy as np

from scratchnet.experiments import artifacts
from scratchnet.experiments.report import figures, statistics
from scratchnet.experiments.report.statistics import CALIBRATION, Group, Pair, group
from scratchnet.experiments.result import Result

FIGURES = "figures"


class Study:
    """Groups of runs as a report needs them.

    `heads` are those that have their recipe's own temperature, or none; `recipes` has them by recipe, the baseline
    first, and `pairs` the baseline with each other one; `temperatures` are a head's groups at several of them.
    """

    def __init__(self, results: Sequence[Result]) -> None:
        self.groups = group(results)
        self.heads = [each for each in self.groups if each.has_own_temperature]
        self.recipes = {name: list(heads) for name, heads in groupby(self.heads, lambda each: each.settings.recipe)}
        self.pairs = [Pair(baseline, other) for baseline, *others in self.recipes.values() for other in others]
        by_head = groupby(self.groups, lambda each: each.title)
        self.temperatures = [several for _, groups in by_head if len(several := list(groups)) > 1]

    def draw(self) -> dict[str, bytes]:
        """PNG files by name, without the suffix; ImportError where matplotlib is not installed or broken."""
        drawn = {}
        for recipe, heads in self.recipes.items():
            drawn[f"curves-{recipe}"] = figures.curves(*heads)
            drawn[f"calibration-{recipe}"] = figures.calibration(*heads)
        for each in self.heads:
            drawn[f"confusion-{each.slug}"] = figures.confusion(each)
        for pair in self.pairs:
            drawn[f"f1-{pair.second.slug}"] = figures.class_f1(pair)
        for several in self.temperatures:
            drawn[f"temperature-{several[0].slug}"] = figures.temperatures(several)
        return {name: figures.png(figure) for name, figure in drawn.items()}


def write_report(folder: Path, results: Sequence[Result], command: str) -> None:
    """Write report.md with figures/*.png, report.html, which needs no other file, and results.csv, a row for each run.

    `results` are of finished runs on one data set; `command` is what made the study. Without matplotlib the pages have
    no figures, and say so. Raises ScratchnetError where a file cannot be written.
    """
    study, missing = Study(results), ""
    try:
        pictures = study.draw()
    except ImportError as error:
        pictures, missing = {}, str(error)
    artifacts.prepare(folder / FIGURES)
    artifacts.write(folder / FIGURES, {f"{name}.png": picture for name, picture in pictures.items()})
    pages = {f"report.{form}": page(form, study, command, pictures, missing).encode() for form in ("md", "html")}
    artifacts.write(folder, {**pages, "results.csv": artifacts.csv_bytes(_rows(study.groups))})


def page(form: str, study: Study, command: str, pictures: Mapping[str, bytes], missing: str = "") -> str:
    """The report in a form, "md" or "html"; without a picture, `missing` says why."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=form == "html", extensions=["jinja2.ext.do"],
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"plain": _plain, "base64": lambda content: b64encode(content).decode(), "spread": _spread}
    text = environment.get_template("report.j2").render(
        form=f"{form}.j2", study=study, command=command, pictures=pictures, missing=missing, **vars(statistics)
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _plain(text: object) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", escape(" ".join(str(text).split()), quote=False))


def _spread(values: Sequence[float] | np.ndarray, digits: int = 2) -> str:
    """The mean and, of more than one value, the standard deviation."""
    deviation = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{deviation}"


def _rows(groups: Sequence[Group]) -> list[list[object]]:
    """A header, and the settings and final figures of each run; seconds per epoch are a median without the first."""
    table = []
    for run in (run for each in groups for run in each.runs):
        settings = asdict(run.result.settings)
        table.append(
            {"dataset": settings.pop("data"), "device_precision": settings.pop("precision")}
            | {**settings, **run.final}
            | {"cross_entropy": run.result.epochs[-1].test_loss, "calibration_error": run.values[CALIBRATION] / 100}
            | {"seconds_per_epoch": run.seconds_per_epoch, "seconds": run.seconds.sum()}
        )
    return [list(table[0]), *(list(row.values()) for row in table)]
