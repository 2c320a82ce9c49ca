"""What an operand costs in a product with a batch of images on the CPU: `python -m tests.benchmarks.memory_order`.

Each time is a multiple of that with a single number as the operand, the median over rounds in which all take turns.
"""

import time
from typing import Any

import numpy as np

from scratchnet.backend import Memory, get_device

ROWS, SIZE, ROUNDS = 64, 16, 300


def works(channels: int) -> dict[str, tuple[Any, ...]]:
    """Functions and their arguments by name."""
    memory, shape = Memory(get_device("cpu"), "float32"), (SIZE, SIZE, channels)
    x, other, y = (memory.activation(ROWS, shape) for _ in range(3))
    pixels = memory.activation(ROWS, (SIZE, SIZE, 1))
    operands = {
        "a number": memory.constant(2),
        "an activation": other,
        "(C,)": memory.buffer(channels),
        "(N, 1, 1, C)": memory.buffer(ROWS, 1, 1, channels),
        "(N, H, W, 1)": pixels,
        "np.zeros(x.shape)": np.zeros(x.shape, "float32"),
    }
    matrix, sums = (a.transpose(1, 2, 0, 3).reshape(-1, a.shape[-1], copy=False) for a in (x, pixels))
    return {name: (np.multiply, x, operand, y) for name, operand in operands.items()} | {
        "sum over C": (np.add.reduce, x, -1, None, pixels[..., 0]),
        "sum over C by matmul": (np.matmul, matrix, np.ones((channels, 1), "float32"), sums),
    }


def main() -> None:
    for channels in (8, 32, 128):
        calls = works(channels)
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(ROUNDS):
            for name, (function, *arguments) in calls.items():
                start = time.perf_counter()
                function(*arguments)
                seconds[name].append(time.perf_counter() - start)
        for name, times in seconds.items():
            ratio = np.median(np.divide(times, seconds["a number"]))
            print(f"C = {channels:3}  {name:22} {ratio:5.1f}  {1e6 * np.median(times):6.0f} us")


if __name__ == "__main__":
    main()
