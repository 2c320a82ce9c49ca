"""Draws the figures of the pages: `python docs/figures/draw.py [folder]`, by default into the folder of this file.

One unit of a drawing is a pixel at the width of 700 that a page shows; y points down. The same version of matplotlib
draws the same bytes. The PNG files beside this one are of the study, and written with its report.
"""

import pathlib
import re
import sys
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Polygon, Rectangle
from matplotlib.path import Path

WIDTH = 700
STYLE: Any = {"svg.hashsalt": "scratchnet", "svg.fonttype": "none", "font.family": "sans-serif", "path.simplify": False}
INK, GREY, LINE = "#222222", "#777777", "#bbbbbb"
COLOURS = "#1f6fb4", "#d9731a", "#2e8b57", "#9250a5"  # blue, orange, green, purple
LIGHT = "#d6e6f5", "#fbe3cc", "#d9efe0", "#eadcf0"
PALE = "#f2f2f2"


class Drawing:
    """A white page of the given height; all places in pixels."""

    def __init__(self, height: int) -> None:
        self.figure = Figure(figsize=(WIDTH / 96, height / 96), dpi=96, facecolor="white")
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, WIDTH), ylim=(height, 0))
        self.axes.axis("off")

    def text(self, x: float, y: float, words: str, size: float = 13, colour: str = INK, **kind: Any) -> None:
        kind = {"ha": "center", "va": "center"} | kind
        self.axes.text(x, y, words, fontsize=0.75 * size, color=colour, **kind)

    def box(
        self, x: float, y: float, width: float, height: float, words: str = "", fill: str = "white",
        edge: str = INK, thickness: float = 1, size: float = 13, dashed: bool = False,
    ) -> None:  # fmt: skip
        style = "--" if dashed else "-"
        self.axes.add_patch(Rectangle((x, y), width, height, fc=fill, ec=edge, lw=0.75 * thickness, ls=style))
        if words:
            self.text(x + width / 2, y + height / 2, words, size)

    def grid(self, x: float, y: float, rows: int, columns: int, cell: float) -> None:
        ends = [((x, y + i * cell), (x + columns * cell, y + i * cell)) for i in range(rows + 1)]
        ends += [((x + j * cell, y), (x + j * cell, y + rows * cell)) for j in range(columns + 1)]
        self.strokes(ends, LINE)

    def strokes(self, ends: Any, colour: str, thickness: float = 1, **kind: Any) -> None:
        """Many short lines, each from one place to another, as one shape."""
        points = np.reshape(ends, (-1, 2))
        path = Path(points, [Path.MOVETO, Path.LINETO] * (len(points) // 2))
        self.axes.add_patch(PathPatch(path, fc="none", ec=colour, lw=0.75 * thickness, **kind))

    def line(self, *points: tuple[float, float], colour: str = INK, dashed: bool = False, thickness: float = 1) -> None:
        x, y = zip(*points, strict=True)
        self.axes.plot(x, y, color=colour, lw=0.75 * thickness, ls="--" if dashed else "-")

    def arrow(self, start: tuple[float, float], end: tuple[float, float], colour: str = INK) -> None:
        style = {"arrowstyle": "-|>", "color": colour, "lw": 0.9, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9}
        self.axes.annotate("", xy=end, xytext=start, arrowprops=style)

    def bracket(self, left: float, right: float, y: float, words: str, below: bool = True) -> None:
        way = 1 if below else -1
        self.line((left, y), (left, y + 5 * way), (right, y + 5 * way), (right, y), colour=GREY)
        self.text((left + right) / 2, y + 15 * way, words, 12)


def windows() -> Drawing:
    """Overlapping windows of a convolution, and what dx gathers from them."""
    page = Drawing(290)
    corners = [(0, 0), (0, 1), (1, 0), (1, 1)]
    cell, top = 38, 40
    page.text(125, 20, "x: four windows, stride 2")
    page.box(30 + 2 * cell, top + 2 * cell, cell, cell, fill=PALE, edge="none")
    page.grid(30, top, 5, 5, cell)
    for (row, column), colour in zip(corners, COLOURS, strict=True):
        inset = 3 + 2 * (row != column)
        page.box(
            30 + 2 * cell * column + inset, top + 2 * cell * row + inset, 3 * cell - 2 * inset, 3 * cell - 2 * inset,
            fill="none", edge=colour, thickness=2.2,
        )  # fmt: skip
    page.text(30 + 2.5 * cell, top + 2.5 * cell, "2, 2", 12)
    page.arrow((230, 135), (262, 135))
    page.text(305, 79, "y")
    for (row, column), colour in zip(corners, LIGHT, strict=True):
        page.box(267 + column * cell, 97 + row * cell, cell, cell, f"{row}, {column}", colour, size=12)
    page.line((370, 12), (370, 238), colour=LINE)
    page.text(535, 20, "dx[2, 2] takes from the dy of all four")
    cell, left, top = 44, 513, 114
    page.box(left, top, cell, cell, "2, 2", PALE, size=12)
    for (row, column), colour, light in zip(corners, COLOURS, LIGHT, strict=True):
        x, y = 405 + 216 * column, 48 + 132 * row
        page.box(x, y, cell, cell, f"{row}, {column}", light, size=12)
        start = x + (0 if column else cell), y + (0.25 * cell if row else 0.75 * cell)
        end = left + (cell + 2 if column else -2), top + (0.8 * cell if row else 0.2 * cell)
        page.arrow(start, end, colour)
        weight = f"w[{2 - 2 * row}, {2 - 2 * column}]"
        page.text((start[0] + end[0]) / 2, y + (0.75 * cell if row else 0.25 * cell), weight, 12)
    page.text(350, 266, "dx[2, 2] = dy[0, 0] w[2, 2] + dy[0, 1] w[2, 0] + dy[1, 0] w[0, 2] + dy[1, 1] w[0, 0]")
    return page


def winograd() -> Drawing:
    """Pieces of 6x6 that step by 4, and the strips."""
    page = Drawing(336)
    cell, left, top = 18, 30, 48
    page.text(left + 7 * cell, 16, "input with its margin, 14 x 14", 13)
    page.text(left + 7 * cell, 34, "pieces of 6 x 6, stepping by 4", 12, GREY)

    for first, last, colour in ((0, 4, LIGHT[0]), (4, 6, "#c2d3c9"), (6, 10, LIGHT[2])):
        page.box(left, top + first * cell, 14 * cell, (last - first) * cell, fill=colour, edge="none")
    page.grid(left, top, 14, 14, cell)
    page.box(left + cell, top + cell, 12 * cell, 12 * cell, fill="none", edge=GREY, dashed=True)
    for place, colour in ((0, COLOURS[0]), (1, COLOURS[1])):
        x, side = left + 4 * place * cell + 2, 6 * cell - 4
        page.box(x, top + 2, side, side, fill="none", edge=colour, thickness=2.4)
    page.box(left + 2, top + 4 * cell + 4, 6 * cell - 4, 6 * cell - 6, fill="none", edge=COLOURS[2], thickness=2.4)
    page.bracket(left + 4 * cell, left + 6 * cell, top + 14 * cell + 4, "2 columns shared")
    page.text(left + 14 * cell + 8, top + 2 * cell, "strip 0", 12, ha="left")
    page.text(left + 14 * cell + 8, top + 5 * cell, "2 rows shared", 12, ha="left")
    page.text(left + 14 * cell + 8, top + 8 * cell, "strip 1", 12, ha="left")
    page.arrow((376, top + 7 * cell), (412, top + 7 * cell))
    page.text(394, top + 7 * cell + 14, "36 products", 11)
    page.text(394, top + 7 * cell + 28, "a strip", 11)
    left, top = 444, top + cell
    page.text(left + 6 * cell, 34, "output, 12 x 12: tiles of 4 x 4")
    for strip, colour in enumerate((LIGHT[0], LIGHT[2])):
        page.box(left, top + 4 * strip * cell, 12 * cell, 4 * cell, fill=colour, edge="none")
    page.grid(left, top, 12, 12, cell)
    for row, column in np.ndindex(3, 3):
        page.box(left + 4 * cell * column, top + 4 * cell * row, 4 * cell, 4 * cell, fill="none", edge=GREY)
    for (row, column), colour in zip(((0, 0), (0, 1), (1, 0)), COLOURS, strict=False):
        x, y, side = left + 4 * cell * column + 2, top + 4 * cell * row + 2, 4 * cell - 4
        page.box(x, y, side, side, fill="none", edge=colour, thickness=2.4)
    return page


def simplex() -> Drawing:
    """Samples of Gumbel-softmax on the simplex of three classes; the same noise at each temperature."""
    page = Drawing(266)
    chances = np.array([0.5, 0.3, 0.2])
    u = np.random.Generator(np.random.Philox(1)).random((300, 3))
    noisy = np.log(chances) - np.log(-np.log(u))
    wins = np.bincount(noisy.argmax(axis=1), minlength=3)
    for number, temperature in enumerate((2.0, 0.5, 0.1)):
        corners = np.array([[18, 222], [208, 222], [113, 57]]) + np.array([233 * number, 0])
        page.axes.add_patch(Polygon(corners, fc=PALE, ec=GREY, lw=0.75))
        a = noisy / temperature
        y = np.exp(a - a.max(axis=1, keepdims=True))
        x = y / y.sum(axis=1, keepdims=True) @ corners
        dots = np.stack([x, x + np.array([0.3, 0])], axis=1)
        page.strokes(dots, COLOURS[0], 3, alpha=0.6, capstyle="round", snap=False)
        cross = chances @ corners
        for arm in (np.array([6, 6]), np.array([6, -6])):
            page.line(tuple(cross - arm), tuple(cross + arm), colour=COLOURS[1], thickness=2)
        page.text(113 + 233 * number, 18, f"temperature {temperature:g}")
        for (left, top), win, lift in zip(corners, wins, (18, 18, -14), strict=True):
            page.text(left, top + lift, str(win), 12)
    return page


def step() -> Drawing:
    """One step from build to replay."""
    page = Drawing(336)
    stages = [
        ("build", "shapes, parameters", "once a network"),
        ("bind", "a plan: nodes, buffers,\nkernels, fusion", "once a number of rows"),
        ("record", "a step runs, and each\ncall is noted", "once a batch size"),
        ("replay", "the noted calls\nrun again", "every later step"),
    ]
    for number, (name, words, when) in enumerate(stages):
        x = 14 + 174 * number
        page.box(x, 10, 150, 88, fill=LIGHT[0] if number == 3 else PALE)
        page.text(x + 75, 27, name, 14, weight="bold")
        page.text(x + 75, 56, words, 12, linespacing=1.3)
        page.text(x + 75, 85, when, 11, GREY)
        if number:
            page.arrow((x - 22, 54), (x - 2, 54))
    calls = ["step record", "gather", "forward", "noise", "head", "backward", "update"]
    page.text(14, 140, "replay on a CPU: the list of calls, in its order", 13, ha="left")
    for number, name in enumerate(calls):
        prepared = name in ("step record", "noise")
        page.box(14 + 97 * number, 154, 84, 30, name, LIGHT[1] if prepared else "white", size=12)
        if number:
            page.arrow((98 + 97 * (number - 1), 169), (111 + 97 * (number - 1), 169))
    page.text(14, 222, "replay on a GPU: the preparation, then one graph", 13, ha="left")
    page.box(14, 238, 104, 54, "step record", LIGHT[1], size=12)
    page.arrow((118, 265), (134, 265))
    page.box(136, 238, 550, 54, fill=LIGHT[0])
    for number, name in enumerate(calls[1:]):
        page.box(143 + 90.5 * number, 250, 83, 30, name, size=12)
        if number:
            page.arrow((226 + 90.5 * (number - 1), 265), (233.5 + 90.5 * (number - 1), 265))
    page.text(411, 308, "one launch", 12, GREY)
    page.text(66, 308, "one copy", 12, GREY)
    page.box(560, 132, 16, 16, fill=LIGHT[1])
    page.text(584, 140, "by prepare", 12, ha="left")
    return page


def buffers() -> Drawing:
    """Who owns which buffer."""
    page = Drawing(400)
    names = ["convolution", "dense", "head"]
    for number, name in enumerate(names):
        x = 24 + 238 * number
        page.box(x, 14, 176, 158, fill="white", edge=COLOURS[number], thickness=1.6)
        page.text(x + 88, 32, name, 14, weight="bold")
        page.box(x + 14, 56, 62, 34, "x", LIGHT[number])
        page.box(x + 14, 118, 62, 34, "dx", LIGHT[number])
        if number < 2:
            page.text(x + 128, 73, "y", 13)
            page.text(x + 128, 135, "dy", 13)
            page.arrow((x + 76, 73), (x + 118, 73), GREY)
            page.arrow((x + 118, 135), (x + 76, 135), GREY)
            page.arrow((x + 138, 73), (x + 250, 73), COLOURS[number])
            page.arrow((x + 250, 135), (x + 141, 135), COLOURS[number + 1])
            page.text(x + 207, 60, "writes", 11, GREY)
            page.text(x + 207, 122, "reads", 11, GREY)
        else:
            page.text(x + 126, 73, "the logits", 12, GREY)
    page.text(350, 192, "y and dy are the successor's x and dx: nothing is copied between layers", 12, GREY)
    page.text(14, 226, "flat vectors", 13, ha="left", weight="bold")
    for row, name in enumerate(["parameters", "gradients", "moments m", "moments v"]):
        y = 242 + 30 * row
        page.text(104, y + 11, name, 12, ha="right")
        words = ("kernel", "bias", "kernel", "bias") if row < 2 else ("",) * 4
        parts = (0, 84, 0), (84, 42, 0), (126, 120, 1), (246, 42, 1)
        for (left, width, owner), word in zip(parts, words, strict=True):
            page.box(112 + left, y, width, 22, word, LIGHT[owner], size=11)
    page.bracket(112, 238, 364, "the convolution's")
    page.bracket(240, 400, 364, "the dense layer's")
    page.text(440, 226, "scratch, a stack", 13, ha="left", weight="bold")
    for row, name in enumerate(["free", "taken last, freed first", "taken first"]):
        page.box(440, 242 + 37 * row, 246, 37, name, LIGHT[3] if row else "white", size=12)
    page.text(563, 371, "free again when its user returns", 12)
    return page


def memory_order() -> Drawing:
    """(N, H, W, C) lying as (H, W, N, C)."""
    page = Drawing(300)
    page.text(14, 20, "two images, 2 x 2 pixels a to d, 3 channels", 13, ha="left")
    for image in range(2):
        for pixel, letter in enumerate("abcd"):
            row, column = divmod(pixel, 2)
            page.box(190 + 170 * image + 44 * column, 36 + 32 * row, 44, 32, letter, LIGHT[image])
        page.text(182 + 170 * image, 68, f"image {image}", 12, ha="right")

    def lying(top: int, order: list[tuple[int, int]], title: str) -> None:
        page.text(14, top, title, 13, ha="left")
        for place, (image, pixel) in enumerate(order):
            for channel in range(3):
                page.box(14 + 84 * place + 28 * channel, top + 14, 28, 26, "", LIGHT[image], LINE)
            page.box(14 + 84 * place, top + 14, 84, 26, "abcd"[pixel], "none")

    lying(128, [(image, pixel) for image in range(2) for pixel in range(4)], "as N, H, W, C, image after image (GPU)")
    lying(204, [(image, pixel) for pixel in range(4) for image in range(2)], "as H, W, N, C, pixel after pixel (CPU)")
    page.bracket(14, 182, 250, "a run: N·C numbers")
    page.bracket(14, 350, 272, "")
    page.text(182, 288, "row 0 of both images: W·N·C numbers", 12)
    return page


def workers() -> Drawing:
    """Each worker's slice of the batch, and of the flat vectors."""
    page = Drawing(356)
    left, width = 296, 130
    page.text(59, 20, "batch")
    page.text(199, 20, "at once")
    page.text(left + 1.5 * width, 20, "gradients, in shared memory")
    for worker in range(3):
        y = 36 + 46 * worker
        page.box(14, y, 90, 46, "its rows", LIGHT[worker], size=12)
        page.arrow((104, y + 23), (132, y + 23))
        page.box(134, y + 2, 130, 42, f"worker {worker}:\nforward, backward", "white", COLOURS[worker], 1.6, 12)
        page.arrow((264, y + 23), (left - 2, y + 23))
        for piece in range(3):
            page.box(left + width * piece, y + 9, width, 28, "", LIGHT[piece])
    page.line((14, 196), (686, 196), dashed=True, thickness=1.6)
    page.text(14, 212, "one barrier", ha="left")
    for piece in range(3):
        x = left + width * (piece + 0.5)
        page.arrow((x, 168), (x, 246), COLOURS[piece])
        page.text(x, 258, f"worker {piece} sums", 12)
    for row, name in enumerate(["parameters", "moments m", "moments v"]):
        page.text(left - 10, 284 + 28 * row, name, ha="right")
        for piece in range(3):
            words = "" if row else f"worker {piece} updates"
            page.box(left + width * piece, 272 + 28 * row, width, 24, words, LIGHT[piece], size=12)
    return page


FIGURES: dict[str, Callable[[], Drawing]] = {
    "windows": windows,
    "winograd": winograd,
    "simplex": simplex,
    "step": step,
    "buffers": buffers,
    "memory-order": memory_order,
    "workers": workers,
}


def draw(folder: pathlib.Path, kind: str = "svg") -> None:
    """Draw all figures into the folder."""
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type")) if kind == "svg" else None
    for name, figure in FIGURES.items():
        with matplotlib.rc_context(STYLE):
            page, path = figure(), folder / f"{name}.{kind}"
            page.figure.savefig(path, dpi=96, metadata=nothing)
        if kind == "svg":  # a hundredth of a pixel will do
            text = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", path.read_text())
            path.write_text(re.sub(r" +$", "", text, flags=re.MULTILINE))


if __name__ == "__main__":
    draw(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else __file__.removesuffix("draw.py")))
