"""The documentation keeps what it promises: quoted code is the code, links lead somewhere, formulas survive GitHub.

The code on the pages runs as doctests (`--doctest-glob=*.md`), not here.
"""

import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DERIVATIONS = sorted(path for path in (ROOT / "docs" / "derivations").glob("*.md") if path.name != "README.md")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
QUOTE = re.compile(r"^<!-- from (?P<source>\S+) -->\n```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
DISPLAY = re.compile(r"\$\$\n(?P<formula>[^$\n]+)\n\$\$")
INLINE = re.compile(r"\$(?P<formula>[^$\n]+)\$")

# What GitHub's Markdown does to a formula before MathJax sees it.
HAZARDS = {
    r"\\[^A-Za-z]": "a backslash before punctuation is taken away",
    r"[^\w\s\\]_": "an underscore after punctuation can begin italics",
    r"\*": "an asterisk can begin italics",
    r"<\S": "a less-than sign can begin an HTML tag",
    r"\]\(": "this is a link",
    r"^([-+>#] |[-=]+$)": "this is a list, a quotation or a heading",
    r"\\operatorname": "the macro is not allowed",
}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(path: Path) -> str:
    """The page without its fenced blocks and inline code."""
    return re.sub(r"`[^`\n]+`", "code", FENCE.sub("", path.read_text()))


def headings(path: Path, level: str = "#+") -> list[str]:
    return re.findall(rf"^{level} (.+)$", FENCE.sub("", path.read_text()), re.MULTILINE)


def fragments(path: Path) -> set[str]:
    """What GitHub lets one link to: the headings in lower case, with hyphens and no punctuation."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings(path)}


@pytest.mark.parametrize("path", DERIVATIONS, ids=name)
def test_derivation_has_its_five_parts(path: Path) -> None:
    parts = ["Forward", "What is cached", "Backward", "Code", "Check"]
    assert [heading for heading in headings(path, "##") if heading in parts] == parts


@pytest.mark.parametrize("path", DERIVATIONS, ids=name)
def test_quoted_code_is_the_code(path: Path) -> None:
    text = path.read_text()
    quotes = list(QUOTE.finditer(text))
    assert quotes, "a derivation quotes the lines of the library that it derives"
    assert len(quotes) == text.count("<!-- from "), "a marker stands on the line above a ```python block"
    for quote in quotes:
        source, code = "\n" + (ROOT / quote["source"]).read_text(), quote["code"]
        found = any("\n" + textwrap.indent(code, " " * indent) in source for indent in range(0, 24, 4))
        assert found, f"{quote['source']} has no such lines:\n{code}"


@pytest.mark.parametrize("path", DERIVATIONS, ids=name)
def test_code_is_quoted_or_runs(path: Path) -> None:
    for before, first in re.findall(r"^(.*)\n```python\n(.*)$", path.read_text(), re.MULTILINE):
        assert before.startswith("<!-- from ") or first.startswith(">>> "), f"neither quoted nor a doctest: {first}"


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_lead_to_files_and_headings(path: Path) -> None:
    for target in LINK.findall(prose(path)):
        if re.match(r"[a-z]+:", target):
            continue  # another site
        file, _, fragment = target.partition("#")
        page = path.parent / file if file else path
        assert page.exists(), f"a link to {target}, which does not exist"
        assert not fragment or fragment in fragments(page), f"a link to {target}: there is no such heading"


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_formulas_survive_github(path: Path) -> None:
    for paragraph in prose(path).split("\n\n"):
        display = DISPLAY.fullmatch(paragraph.strip("\n"))
        if display:
            formulas = [display["formula"]]
        else:
            assert "$$" not in paragraph, f"$$ stands alone on its line, in a pair, between empty lines:\n{paragraph}"
            assert "$" not in INLINE.sub("", paragraph), f"a formula does not end on its line:\n{paragraph}"
            formulas = [match["formula"] for match in INLINE.finditer(paragraph)]
            for match in INLINE.finditer(paragraph):
                assert match["formula"] == match["formula"].strip(), f"{match[0]}: no space inside the dollars"
                before, after = paragraph[: match.start()], paragraph[match.end() :]
                assert not re.search(r"[\w-]\Z", before), f"{match[0]}: no letter or hyphen before a formula"
                assert not re.match(r"\w", after), f"{match[0]}: no letter after a formula"
        for formula in formulas:
            assert formula.count("{") == formula.count("}"), f"unbalanced braces: {formula}"
            assert len(re.findall(r"\\left\b", formula)) == len(re.findall(r"\\right\b", formula)), formula
            for hazard, reason in HAZARDS.items():
                assert not re.search(hazard, formula), f"{formula}: {reason}"
