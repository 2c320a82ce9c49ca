"""The floor of a step: its multiply-adds, as the layers define them, over the measured speed of matrix products.

`python -m tests.benchmarks.floor`. A step that does every multiply-add of the definition, at the speed of one large
matrix product, and nothing else, takes this long. Winograd's convolution does fewer, so it may come in below.
"""

import time
from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from scratchnet import Sequential
from scratchnet.experiments.recipes import RECIPES
from scratchnet.layers import Conv2D, Dense
from tests.benchmarks import report
from tests.benchmarks.setting import Setting, chosen_recipes, options

SIZE, REPEATS = 2048, 8  # of the square matrices; the best of the repeats counts


class Count(NamedTuple):
    """Multiply-adds of one layer for one image."""

    layer: str
    forward: int
    input_gradient: int
    kernel_gradient: int

    @property
    def total(self) -> int:
        return self.forward + self.input_gradient + self.kernel_gradient


def count(network: Sequential) -> list[Count]:
    """A row for each layer that multiplies matrices; the first layer needs no input gradient."""
    counts = []
    for layer in network.layers:
        if isinstance(layer, Conv2D | Dense):
            places = prod(layer.output_shape[:-1])  # of a convolution, rows and columns; of a dense layer, one
            work = places * prod(layer.shapes["kernel"])
            counts.append(Count(layer.name, work, work if counts else 0, work))
    return counts


def multiply_adds(setting: Setting) -> int:
    """Of one training step."""
    return setting.batch_size * sum(row.total for row in count(setting.network()))


def product_speed(threads: int) -> float:
    """Multiply-adds a second of a large float32 matrix product."""
    a, b = np.random.default_rng(0).random((2, SIZE, SIZE), dtype=np.float32)
    out, seconds = np.empty_like(a), []
    with threadpool_limits(threads):
        for _ in range(REPEATS):
            began = time.perf_counter()
            np.matmul(a, b, out=out)
            seconds.append(time.perf_counter() - began)
    return SIZE**3 / min(seconds)


def describe(work: int, speed: float, threads: int) -> str:
    seconds = work / speed
    time_text = f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.1f} ms"
    return (
        f"floor {time_text}: {work / 1e9:,.2f} G multiply-adds, as the layers define them, at "
        f"{speed / 1e9:.0f} G a second (one {SIZE}x{SIZE} matrix product, BLAS threads: {threads})"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = options("Multiply-adds of a training step, and the time they take at least.").parse_args(arguments)
    print(report.machine())
    threads = sorted({1, chosen.workers})
    speeds = {number: product_speed(number) for number in threads}
    for recipe in chosen_recipes(chosen.recipe):
        setting = Setting(recipe, RECIPES[recipe].batch_size, chosen.workers)
        rows = [(name, *(setting.batch_size * n / 1e6 for n in work)) for name, *work in count(setting.network())]
        print(f"\n{recipe}, batch {setting.batch_size}")
        header = "million multiply-adds", "forward", "input gradient", "kernel gradient"
        print(report.table(header, rows))
        for number, speed in speeds.items():
            print("  " + describe(multiply_adds(setting), speed, number))


if __name__ == "__main__":
    main()
