"""A report as a list of blocks, and the two pages made of it: Markdown, and HTML that needs no other file."""

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Text:
    """`tag` is HTML's: h1, h2, h3, p or pre."""

    tag: str
    text: str


@dataclass(frozen=True)
class Points:
    texts: Sequence[str]


@dataclass(frozen=True)
class Table:
    """The first `words` columns are words, all others figures."""

    caption: str
    words: int
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A PNG file; `alternative` says what it shows to those who do not see it."""

    name: str
    alternative: str
    png: bytes


Block = Text | Points | Table | Picture
MARKS = {"h1": "# ", "h2": "## ", "h3": "### ", "p": "", "pre": "    "}


def markdown(blocks: Sequence[Block], folder: str) -> bytes:
    """GitHub's Markdown; the pictures are files in `folder`."""
    return ("\n\n".join(_markdown(block, folder) for block in blocks) + "\n").encode()


def _markdown(block: Block, folder: str) -> str:
    match block:
        case Text(tag, text):
            return MARKS[tag] + (text if tag == "pre" else _plain(text))
        case Points(texts):
            return "\n".join(f"- {_plain(text)}" for text in texts)
        case Table(caption, words, header, rows):
            rule = ["---"] * words + ["---:"] * (len(header) - words)
            lines = [map(_plain, header), rule, *(map(_plain, row) for row in rows)]
            return f"{_plain(caption)}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)
        case Picture(name, alternative, _):
            return f"![{_plain(alternative)}]({folder}/{name})"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", escape(text, quote=False))


HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>{title}</title>
<style>
body {{ margin: 0 auto; padding: 1rem; max-width: 80rem; box-sizing: border-box; overflow-wrap: break-word;
        font: 1rem/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; }}
h1, h2, h3 {{ line-height: 1.2; margin: 2em 0 .6em; }}
h1 {{ margin-top: .5em; }}
h2 {{ border-top: 1px solid #bbb; padding-top: 1em; }}
p, ul, figcaption {{ max-width: 46rem; }}
li, figcaption {{ margin: .4em 0; }}
img {{ display: block; max-width: min(100%, 32rem); height: auto; }}
figure {{ margin: 1.5em 0; }}
div, pre {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }}
th, td {{ padding: .3em .8em; text-align: right; white-space: nowrap; border-bottom: 1px solid #ddd; }}
.word {{ text-align: left; white-space: normal; min-width: 7rem; }}
</style>
</head>
<body>
"""


def html(blocks: Sequence[Block], title: str) -> bytes:
    """One page with its pictures in it; a table wider than the page scrolls in a box of its own."""
    return "\n".join([HEAD.format(title=escape(title)), *map(_html, blocks), "</body>\n</html>\n"]).encode()


def _html(block: Block) -> str:
    match block:
        case Text(tag, text):
            return f"<{tag}>{escape(text)}</{tag}>"
        case Points(texts):
            return "<ul>" + "".join(f"<li>{escape(text)}</li>\n" for text in texts) + "</ul>"
        case Table(caption, words, header, rows):
            table = _row("th", words, header) + "".join(_row("td", words, row) for row in rows)
            box = f'<div role="region" tabindex="0" aria-label="{escape(caption)}"><table>{table}</table></div>'
            return f"<figure><figcaption>{escape(caption)}</figcaption>{box}</figure>"
        case Picture(_, alternative, png):
            return f'<img alt="{escape(alternative)}" src="data:image/png;base64,{b64encode(png).decode()}"/>'


def _row(tag: str, words: int, cells: Sequence[str]) -> str:
    starts = [f'<{tag} class="word">'] * words + [f"<{tag}>"] * (len(cells) - words)
    return f"<tr>{''.join(f'{start}{escape(cell)}</{tag}>' for start, cell in zip(starts, cells, strict=True))}</tr>\n"
