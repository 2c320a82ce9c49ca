"""What a step has anew for each row of its batch, on the GPU: an image and its label, and the noise of a layer."""

from collections.abc import Callable
from math import prod

import numpy as np

from scratchnet.backend import Array, BatchSlice, Memory, StepCounter
from scratchnet.backend.cuda import NULL, Kernel, image_strides
from scratchnet.backend.noise import TICK


class GpuBatch:
    """The same as kernels.batch's, by one kernel: x = images[order[start : start + N]], / 255 where they are bytes."""

    group = None  # a step takes its batch as a whole
    predicted = 512  # enough for every multiprocessor

    def __init__(self, images: Array, x: Array, labels: Array, memory: Memory, start: Callable[[], int]) -> None:
        self.x, self.labels, self.first = x, labels, memory.record.field(start, np.int64, 1)
        as_images = x if x.ndim == 4 else x.reshape(len(x), 1, 1, -1)
        constants = dict(zip(("HEIGHT", "WIDTH", "CHANNELS"), as_images.shape[1:], strict=True))
        constants["PIXEL"], constants["SCALE"] = ("unsigned char", 255) if images.dtype == np.uint8 else ("real", 1)
        self.strides = image_strides(as_images)
        self.gather = Kernel(memory.device, "gather.cu", "gather", memory.dtype, **constants)

    def load(self, images: Array, labels: Array, order: Array | None = None) -> None:
        which = NULL if order is None else order
        self.gather(self.x.size, images, labels, which, self.first, self.x, *self.strides, self.labels)


class GpuNoise:
    """The same numbers as backend.noise's: `draw(out)` fills a contiguous array (rows, *shape) of the device."""

    def __init__(
        self, seed: int, stream: int, clock: StepCounter, batch: BatchSlice, shape: tuple[int, ...], memory: Memory
    ) -> None:
        columns = prod(shape)
        self.key = np.uint64(seed), np.uint64(stream)
        self.threads = batch.size * -(-columns // TICK)
        self.now = memory.record.field(lambda: (clock.counter, clock.row + batch.start), np.int64, 2)
        self.kernel = Kernel(memory.device, "noise.cu", "noise", memory.dtype, COLUMNS=columns)

    def draw(self, out: Array) -> None:
        self.kernel(self.threads, self.now, *self.key, out)
