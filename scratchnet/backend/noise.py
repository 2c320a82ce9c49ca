"""Random numbers that are a function of (seed, stream, step, position): Philox, a counter-based generator.

There is no state to save. A resumed run, a run with another number of workers and a replayed program see the same
noise, and no two steps share any. Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.
"""

from math import prod

import numpy as np

from scratchnet.backend.buffers import Memory
from scratchnet.backend.device import Array
from scratchnet.backend.layout import BatchSlice
from scratchnet.backend.program import prepare

# Streams keep apart what draws with the same seed; a network's layers use their place, 0, 1, 2, ...
HEAD, SHUFFLE, SAMPLING, INITIALIZERS = (2**32 + number for number in range(4))
TICK = 8  # one increment of Philox's counter yields eight numbers of 32 bits
PIECE = 3072  # numbers at once: their bits are the one thing that NumPy cannot write into a place of ours
HALF, UNIT, LARGEST = np.float32(0.5), np.float32(2.0**-32), np.float32(1 - 2.0**-24)


class StepCounter:
    """What a network's noise is drawn for: the training step, or a pass of inference after it, and the image in row 0.

    Whoever makes the steps sets `step`. Inference leaves it alone, so that a look at a network does not change how its
    training goes on: `inference` counts the passes since `step` was set, and is 0 in a step of training.
    """

    def __init__(self, step: int = 0, row: int = 0) -> None:
        self.step, self.row = step, row

    @property
    def step(self) -> int:
        return self._step

    @step.setter
    def step(self, step: int) -> None:
        self._step, self.inference = step, 0

    @property
    def counter(self) -> int:
        """A number for the step or pass that no other has."""
        return self.step + (self.inference << 40)


class OfStep(StepCounter):
    """The clock of what is drawn once a step, whatever rows of the batch are being worked on."""

    def __init__(self, clock: StepCounter) -> None:
        self.clock, self.row = clock, 0

    @property
    def counter(self) -> int:
        return self.clock.counter


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
    source = np.random.Philox(key=[seed, stream], counter=[first_row * (out.shape[1] // TICK), 0, 0, step])
    flat = out.reshape(-1, copy=False)
    for part in (flat[start : start + PIECE] for start in range(0, flat.size, PIECE)):
        np.copyto(part, source.random_raw(part.size // 2).view(np.uint32), casting="same_kind")
    open_interval(out)


def open_interval(k: np.ndarray) -> None:
    """Turn k of 32 bits, in float32 and in place, into (k + 1/2) 2^-32: never 0, and kept from rounding to 1.

    Near 0 these numbers are as fine as 2^-33, near 1 only 2^-24: what looks for rare events looks for them near 0.
    """
    np.add(k, HALF, k)
    np.multiply(k, UNIT, k)
    np.minimum(k, LARGEST, out=k)


def gumbel(u: np.ndarray) -> np.ndarray:
    """Standard Gumbel noise -log(-log(1 - u)): within [-2.82, 22.88] for what `uniform` gives.

    So rare events are fine-grained: two of K classes share the largest noise with probability K 2^-32 or so.
    """
    return -np.log(-np.log1p(-u))


class Noise:
    """Uniform numbers of one layer or head for its rows of the batch: `draw(out)` fills an array (rows, *shape)."""

    def __init__(
        self, seed: int, stream: int, clock: StepCounter, batch: BatchSlice, shape: tuple[int, ...], memory: Memory
    ) -> None:
        self.seed, self.stream, self.clock, self.first_row = seed, stream, clock, batch.start
        self.device, columns = memory.device, prod(shape)
        self._drawn = np.empty((batch.size, columns + -columns % TICK), np.float32)
        self.values = self._drawn[:, :columns].reshape(batch.size, *shape, copy=False)

    def draw(self, out: Array) -> None:
        prepare(self._draw, out)

    def _draw(self, out: Array) -> None:
        fill_uniform(self.seed, self.stream, self.clock.counter, self.clock.row + self.first_row, self._drawn)
        self.device.load(self.values, out=out)
