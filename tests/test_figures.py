"""The figures of the pages are those that docs/figures/draw.py draws, and every one is on a page."""

import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
COMMITTED = {path.stem: path for path in (DOCS / "figures").glob("*.svg")}
LIMIT = 60_000  # bytes
IMAGE = re.compile(r"!\[(?P<words>[^\]]+)\]\([^)\s]*figures/(?P<name>[^)\s/]+)\.svg\)")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    spec = importlib.util.spec_from_file_location("draw", DOCS / "figures" / "draw.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    folder = tmp_path_factory.mktemp("figures")
    script.draw(folder)
    return {path.stem: path for path in folder.iterdir()}


def words(path: Path) -> list[str]:
    return re.findall(r">([^<>]+)</text>", path.read_text())


def outlines(path: Path) -> tuple[list[str], list[float]]:
    """The commands of all paths, and their numbers."""
    paths = " ".join(re.findall(r' d="([^"]+)"', path.read_text()))
    return re.findall(r"[A-Za-z]", paths), [float(number) for number in re.findall(r"-?[\d.]+", paths)]


def test_every_figure_is_committed_and_every_one_committed_is_drawn(drawn: dict[str, Path]) -> None:
    assert set(drawn) == set(COMMITTED)


@pytest.mark.parametrize("name", sorted(COMMITTED))
def test_committed_is_what_is_drawn(name: str, drawn: dict[str, Path]) -> None:
    """In its words and within half a pixel: another version of matplotlib may write other bytes."""
    assert words(COMMITTED[name]) == words(drawn[name]), "run python docs/figures/draw.py"
    (commands, numbers), (commands_drawn, numbers_drawn) = outlines(COMMITTED[name]), outlines(drawn[name])
    assert commands == commands_drawn, "run python docs/figures/draw.py"
    assert numbers == pytest.approx(numbers_drawn, abs=0.5)


@pytest.mark.parametrize("name", sorted(COMMITTED))
def test_figure_is_small_and_undated(name: str) -> None:
    text = COMMITTED[name].read_text()
    assert len(text) < LIMIT
    assert "<metadata" not in text


def test_every_figure_is_on_a_page_with_words_for_it() -> None:
    shown = {image["name"] for page in DOCS.rglob("*.md") for image in IMAGE.finditer(page.read_text())}
    assert set(COMMITTED) == shown
