"""Softmax and Gumbel-softmax cross-entropy on the GPU."""

import numpy as np

from scratchnet.backend import Array, Memory
from scratchnet.kernels.gpu.launch import WARP, Kernel


class CrossEntropy:
    """Loss, correct answers and dlogits of logits (rows, classes), with Gumbel noise drawn in the kernel or without.

    `now` (float64) is the step and the inverse of the temperature, read when the kernel runs. Row 0 is the batch's row
    `first_row`; `per_row` is a row's weight in the loss.
    """

    def __init__(
        self,
        rows: int,
        classes: int,
        memory: Memory,
        per_row: float,
        first_row: int = 0,
        gumbel: bool = False,
        seed: int = 0,
        stream: int = 0,
    ) -> None:
        self.rows, self.losses, self.hits = rows, memory.buffer(rows), memory.buffer(rows)
        self.now = memory.buffer(2, dtype=np.float64)
        self.key, self.per_row = (np.uint64(seed), np.uint64(stream)), memory.dtype.type(per_row)
        self.cross_entropy, self.totals = (
            Kernel(
                memory.device, "head.cu", name, memory.dtype,
                ROWS=rows, CLASSES=classes, FIRST_ROW=first_row, GUMBEL=int(gumbel),
            )
            for name in ("cross_entropy", "totals")
        )  # fmt: skip

    def __call__(self, logits: Array, labels: Array, dlogits: Array, loss: Array, correct: Array) -> None:
        self.cross_entropy(
            self.rows * WARP, logits, labels, self.now, *self.key, self.per_row, dlogits, self.losses, self.hits
        )
        self.totals(WARP, self.losses, self.hits, loss, correct)
