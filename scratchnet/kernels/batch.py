"""A batch of a data set: its images, as numbers from 0 to 1, and its labels."""

from collections.abc import Callable

import numpy as np

from scratchnet.backend import Array, Memory, run


class Batch:
    """x = images[order[start : start + N]] and their labels; bytes are divided by 255, other numbers stay as they are.

    `images` are (K, C, H, W) for x (N, H, W, C), or have the axes of x. Without an order they are taken as they lie.
    `start` is asked in every step.
    """

    group = 64  # images at once in a step: fewer, and calls cost more than their work; more, and they leave the cache
    predicted = 64  # and in a prediction

    def __init__(self, images: Array, x: Array, labels: Array, memory: Memory, start: Callable[[], int]) -> None:
        self.x, self.labels, self.memory, self.start = x, labels, memory, start
        self.taken = memory.buffer(len(x), *images.shape[1:], dtype=images.dtype)
        self.byte = memory.constant(255)

    def load(self, images: Array, labels: Array, order: Array | None = None) -> None:
        xp, ops = self.memory.device.xp, self.memory.device.ops

        def take() -> None:
            start = self.start()
            rows = slice(start, start + len(self.x))
            if order is None:
                xp.copyto(self.taken, images[rows])
                return
            # NumPy goes through a copy of what it writes to, but not in this mode.
            xp.take(images, order[rows], 0, self.taken, mode="clip")
            xp.take(labels, order[rows], 0, self.labels, mode="clip")

        run(take)
        ops.copy(self.taken.transpose(0, 2, 3, 1) if images.ndim == 4 else self.taken, out=self.x)
        if images.dtype == np.uint8:
            ops.divide(self.x, self.byte, out=self.x)
