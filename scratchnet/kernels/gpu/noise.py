"""The uniform numbers of a layer, drawn on the GPU."""

from math import prod

import numpy as np

from scratchnet.backend import Array, BatchSlice, Memory, StepCounter
from scratchnet.backend.launch import Kernel
from scratchnet.backend.noise import TICK


class GpuNoise:
    """The same numbers as backend.noise's: `draw(out)` fills a contiguous array (rows, *shape) of the device."""

    def __init__(
        self, seed: int, stream: int, clock: StepCounter, batch: BatchSlice, shape: tuple[int, ...], memory: Memory
    ) -> None:
        columns = prod(shape)
        self.key = np.uint64(seed), np.uint64(stream)
        self.threads = batch.size * -(-columns // TICK)
        self.now = memory.record.field(lambda: (clock.counter, clock.row + batch.start), np.int64, 2)
        self.kernel = Kernel(memory.device.cuda, "noise.cu", "noise", memory.dtype, COLUMNS=columns)

    def draw(self, out: Array) -> None:
        self.kernel(self.threads, self.now, *self.key, out)
