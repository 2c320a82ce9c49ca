"""The uniform numbers of a layer, drawn on the GPU."""

from math import prod

import numpy as np

from scratchnet.backend import Array, Clock, Memory, prepare
from scratchnet.backend.noise import TICK
from scratchnet.kernels.gpu.launch import Kernel


class Noise:
    """The same numbers as backend.noise's: `draw(out)` fills a contiguous array (rows, *shape) of the device."""

    def __init__(
        self, seed: int, stream: int, clock: Clock, first_row: int, rows: int, shape: tuple[int, ...], memory: Memory
    ) -> None:
        self.clock, self.first_row, self.device = clock, first_row, memory.device
        columns = prod(shape)
        self.key = np.uint64(seed), np.uint64(stream)
        self.threads = rows * -(-columns // TICK)
        self.now = memory.buffer(2, dtype=np.int64)
        self.kernel = Kernel(memory.device, "noise.cu", "noise", memory.dtype, COLUMNS=columns)

    def draw(self, out: Array) -> None:
        prepare(self._load_now)
        self.kernel(self.threads, self.now, *self.key, out)

    def _load_now(self) -> None:
        self.device.load(np.array([self.clock.counter, self.clock.row + self.first_row]), out=self.now)
