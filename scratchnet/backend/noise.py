"""Random numbers that are a function of (seed, stream, step, position): Philox, a counter-based generator.

There is no state to save. A resumed run, a run with another number of workers and a replayed program see the same
noise, and no two steps share any. Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.
"""

from dataclasses import dataclass
from math import prod

import numpy as np

# Streams keep apart what draws with the same seed; a network's layers use their place, 0, 1, 2, ...
HEAD = 1 << 32
SHUFFLE = HEAD + 1
SAMPLING = HEAD + 2
INITIALIZERS = HEAD + 3
TICK = 8  # one tick of the counter gives eight numbers of 32 bits
STEPS = np.float32(1 << 23)


@dataclass
class Clock:
    """The step that a network's noise is drawn for, and where among its rows those of the work in hand begin.

    Whoever makes the steps advances it.
    """

    step: int = 0
    row: int = 0


def generator(seed: int, stream: int, step: int = 0, tick: int = 0) -> np.random.Generator:
    """A NumPy generator that starts at the given place of the stream."""
    return np.random.Generator(np.random.Philox(key=[seed, stream], counter=[tick, 0, 0, step]))


def uniform(seed: int, stream: int, step: int, first_row: int, rows: int, columns: int) -> np.ndarray:
    """Uniform float32 numbers in the open interval (0, 1), shape (rows, columns), rows counted from `first_row`."""
    out = np.empty((rows, columns + -columns % TICK), np.float32)
    fill_uniform(seed, stream, step, first_row, out)
    return out[:, :columns]


def fill_uniform(seed: int, stream: int, step: int, first_row: int, out: np.ndarray) -> None:
    """The same in place; the row length of `out` must be a multiple of 8, so that rows start at whole ticks."""
    generator(seed, stream, step, first_row * (out.shape[1] // TICK)).random(dtype=np.float32, out=out)
    open_interval(out)


def open_interval(u: np.ndarray) -> None:
    """Turn k 2^-24 with 0 <= k < 2^24, in place, into ((k >> 1) + 1/2) 2^-23: exact in float32, never 0 or 1."""
    np.multiply(u, STEPS, u)
    np.floor(u, u)
    np.add(u, np.float32(0.5), u)
    np.divide(u, STEPS, u)


def gumbel(u: np.ndarray) -> np.ndarray:
    """Standard Gumbel noise -log(-log u): within [-2.81, 16.64] for the numbers that `uniform` gives."""
    return -np.log(-np.log(u))


class Noise:
    """The uniform numbers of one layer or head, for its rows of the batch: `draw()` fills `values`."""

    def __init__(self, seed: int, stream: int, clock: Clock, first_row: int, rows: int, shape: tuple[int, ...]) -> None:
        self.seed, self.stream, self.clock, self.first_row = seed, stream, clock, first_row
        columns = prod(shape)
        self._drawn = np.empty((rows, columns + -columns % TICK), np.float32)
        self.values = self._drawn[:, :columns].reshape(rows, *shape, copy=False)

    def draw(self) -> None:
        """Numbers for the clock's step, in (0, 1), as a host array of shape (rows, *shape)."""
        if self._drawn.size:
            fill_uniform(self.seed, self.stream, self.clock.step, self.first_row + self.clock.row, self._drawn)
