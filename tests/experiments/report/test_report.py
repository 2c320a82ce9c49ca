"""The files of a report: complete, readable without any other, and safe with any name of a class."""

import base64
import csv
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.image import imread

from scratchnet.experiments import Result
from scratchnet.experiments.report import write_report
from tests.experiments.report import made

SECTIONS = [
    "Findings", "The reports' figures and ours", "Learning curves", "Confusion of superclasses", "F1 of each class",
    "Calibration", "Paired test of the difference between heads", "Effect of the temperature", "Cost of the head",
    "How this was made",
]  # fmt: skip
COMMAND = "python train_cifar.py --compare --seeds 2 & <more>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole report: both recipes and all temperatures."""
    folder = tmp_path_factory.mktemp("report")
    results = [*made.study(2), *made.study(2, recipe="valid-padding"), *made.temperatures(2)]
    write_report(folder, results, COMMAND)
    return folder


def page(folder: Path) -> ElementTree.Element:
    return ElementTree.parse(folder / "report.html").getroot()


def titles(folder: Path) -> tuple[list[str], list[str]]:
    """The sections of both pages."""
    lines = (folder / "report.md").read_text().splitlines()
    in_markdown = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    return in_markdown, ["".join(element.itertext()) for element in page(folder).iter("h2")]


def test_both_pages_have_every_section(folder: Path) -> None:
    assert titles(folder) == (SECTIONS, SECTIONS)


def test_a_recipe_without_published_figures_is_not_laid_beside_a_report(tmp_path: Path) -> None:
    write_report(tmp_path, made.study(2, recipe="transformer"), COMMAND)
    sections = ["Final figures" if name == "The reports' figures and ours" else name for name in SECTIONS]
    assert titles(tmp_path) == (sections, sections)
    assert "No report has figures of these networks." in (tmp_path / "report.md").read_text()
    for form in "md", "html":
        text = (tmp_path / f"report.{form}").read_text()
        assert "the reports" not in text.lower()
        assert "A report's" not in text


def test_both_pages_have_every_figure(folder: Path) -> None:
    files = {path.name: path.read_bytes() for path in (folder / "figures").iterdir()}
    assert len(files) == 11  # curves, two confusions, F1 and calibration of each recipe; temperature
    embedded = [image.attrib for image in page(folder).iter("img")]
    sources = [base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) for image in embedded]
    assert sorted(sources) == sorted(files.values())
    markdown = (folder / "report.md").read_text()
    for name, image in zip(files, (imread(folder / "figures" / name) for name in files), strict=True):
        assert image.shape[1] == 675
        assert np.ptp(image[..., :3]) > 0.5, name  # something is drawn
        assert f"](figures/{name})" in markdown
    assert all(len(image["alt"]) > 20 for image in embedded)
    assert sum(map(len, files.values())) < 700_000


def test_the_page_needs_no_other_file(folder: Path) -> None:
    elements = list(page(folder).iter())
    assert not {"link", "script", "iframe"} & {element.tag for element in elements}
    addresses = [element.get("src") or element.get("href") or "" for element in elements]
    assert all(address.startswith("data:image/png;base64,") for address in addresses if address)
    assert "url(" not in (folder / "report.html").read_text()
    tables = [element for element in elements if element.tag == "table"]
    assert all(len(row) == len(table[0]) for table in tables for row in table)
    scrolled = [table for box in elements if box.tag == "div" for table in box]
    assert scrolled == tables  # each in a box of its own


def test_published_figures_stand_beside_ours(folder: Path) -> None:
    rows = [[cell.text for cell in row] for row in next(page(folder).iter("table"))]
    found = {(row[0], row[1]): row[2] for row in rows}
    assert found["valid-padding, gumbel, 30 epochs", "second report, noise on"] == "30.24"
    accuracies = [100 * made.result(seed=seed).final["accuracy"] for seed in range(2)]
    ours = f"{np.mean(accuracies):.2f} ± {np.std(accuracies, ddof=1):.2f}"
    assert found["same-padding, softmax, 10 epochs", "ours, argmax"] == ours


def test_results_csv_has_every_setting_and_figure(folder: Path) -> None:
    with open(folder / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    result = made.result("gumbel", 1, temperature="anneal", skill=1.8)
    (row,) = (row for row in rows if row["temperature"] == "anneal" and row["seed"] == "1")
    settings = {"recipe": "same-padding", "head": "gumbel", "dataset": "cifar100", "batch_size": "64",
                "learning_rate": "0.001", "device": "cpu", "workers": "2", "device_precision": "fp32", "epochs": "10",
                "seconds_per_epoch": "15.0", "seconds": "145.0"}  # fmt: skip
    assert settings.items() <= row.items()
    assert {name: float(row[name]) for name in result.final} == result.final
    assert float(row["cross_entropy"]) == result.epochs[-1].test_loss
    assert 0 < float(row["calibration_error"]) < 1


def test_one_seed_of_a_real_run_on_digits(tmp_path: Path, finished: tuple[Path, Any]) -> None:
    """No superclasses, nothing published, two epochs and no other temperature; both heads made of one."""
    gumbel = Result.read(finished[0])
    softmax = replace(gumbel, settings=replace(gumbel.settings, head="softmax", temperature=None))
    write_report(tmp_path, [gumbel, softmax], COMMAND)
    wanted = [title.replace("superclasses", "classes") for title in SECTIONS]
    assert titles(tmp_path) == (wanted, wanted)
    text = (tmp_path / "report.md").read_text()
    assert "one seed gives no interval" in text
    assert "temperature only" in text
    assert "python -m tests.benchmarks.classes measures it" in text
    assert "41.52" not in text
    assert "nan" not in text
    assert len(list((tmp_path / "figures").iterdir())) == 5


def test_without_matplotlib_there_are_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.setitem(sys.modules, name, None)
    write_report(tmp_path, made.study(1, classes=10, epochs=1), COMMAND)
    assert not list(page(tmp_path).iter("img"))
    assert (tmp_path / "report.md").read_text().count("pip install scratchnet\\[plot\\]") == 5
    assert len(list(page(tmp_path).iter("table"))) == 6
    _names_are_not_taken_for_markup(tmp_path)


def _names_are_not_taken_for_markup(folder: Path) -> None:
    """The class with the wicked name is one of ten, all of which the table of F1 lists."""
    assert made.WICKED.replace("_", " ") in ["".join(cell.itertext()) for cell in page(folder).iter("td")]
    assert [code.text for code in page(folder).iter("pre")] == [COMMAND]
    markdown = (folder / "report.md").read_text()
    assert r"&lt;b&gt;&amp;\| \`\*" in markdown
    assert "<b>" not in markdown


def test_a_third_head_stands_in_every_section(tmp_path: Path, third_head: str) -> None:
    write_report(tmp_path, [*made.study(2), *(made.result(third_head, seed) for seed in range(2))], COMMAND)
    names = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert names == {
        "curves-same-padding", "calibration-same-padding", "f1-same-padding-gumbel", "f1-same-padding-third",
        *(f"confusion-same-padding-{head}" for head in ("softmax", "gumbel", "third")),
    }  # fmt: skip
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# Heads compared: softmax, gumbel, third head\n")
    assert "| same-padding, third head | argmax accuracy (points) | " in text
    assert "| same-padding, third head, 10 epochs | ours, argmax | " in text
    with open(tmp_path / "results.csv", newline="") as file:
        assert [row["head"] for row in csv.DictReader(file)] == ["softmax"] * 2 + ["gumbel"] * 2 + ["third"] * 2


def test_paragraphs_of_markdown_are_one_block_each(folder: Path) -> None:
    text = (folder / "report.md").read_text()
    assert "\n\n\n" not in text
    blocks = text.rstrip("\n").split("\n\n")
    starts = [{line[:2] if line[:2] in ("- ", "| ") else line[:1] for line in block.splitlines()} for block in blocks]
    assert all(len(kinds) == 1 for kinds in starts), starts  # no table or list runs into what stands around it
