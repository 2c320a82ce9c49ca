"""A batch of the data set, on the device."""

from collections.abc import Callable
from math import prod

import numpy as np

from scratchnet.backend import Array, Memory
from scratchnet.backend.launch import NULL, Kernel, image_strides


class GpuBatch:
    """The same as kernels.batch's, by one kernel: x = images[order[start : start + N]], / 255 where they are bytes."""

    group = None  # a step takes its batch as a whole
    predicted = 512  # enough for every multiprocessor

    def __init__(self, images: Array, x: Array, labels: Array, memory: Memory, start: Callable[[], int]) -> None:
        self.x, self.labels, self.first = x, labels, memory.record.field(start, np.int64, 1)
        image = x.shape[1:] if x.ndim == 4 else (1, 1, prod(x.shape[1:]))
        constants = dict(zip(("HEIGHT", "WIDTH", "CHANNELS"), image, strict=True))
        constants["PIXEL"], constants["SCALE"] = ("unsigned char", 255) if images.dtype == np.uint8 else ("real", 1)
        self.strides = image_strides(x if x.ndim == 4 else x.reshape(len(x), *image))
        self.gather = Kernel(memory.device.cuda, "gather.cu", "gather", memory.dtype, **constants)

    def load(self, images: Array, labels: Array, order: Array | None = None) -> None:
        which = NULL if order is None else order
        self.gather(self.x.size, images, labels, which, self.first, self.x, *self.strides, self.labels)
