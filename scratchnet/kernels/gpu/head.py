"""Softmax and Gumbel-softmax cross-entropy on the GPU."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scratchnet.backend import Array, Memory, prepare
from scratchnet.kernels.gpu.launch import NULL, WARP, Kernel


@dataclass(frozen=True)
class GumbelNoise:
    """Where the noise comes from, and `now`: a function that tells the step and the inverse of the temperature."""

    seed: int
    stream: int
    now: Callable[[], tuple[int, float]]


class CrossEntropy:
    """A bound head: `compute()` makes loss, correct and dlogits of logits (rows, classes) and labels.

    Row 0 is the batch's row `first_row`; `per_row` is a row's weight in the loss. The kernel draws the noise itself.
    `metrics`, where set, is a float64 array to which the rows' losses and the correct answers are added.
    """

    metrics: Array = NULL

    def __init__(
        self,
        rows: int,
        classes: int,
        memory: Memory,
        per_row: float,
        first_row: int = 0,
        noise: GumbelNoise | None = None,
    ) -> None:
        self.device, self.rows, self.noise = memory.device, rows, noise
        self.logits, self.dlogits = (memory.buffer(rows, classes) for _ in range(2))
        self.labels, self.losses, self.hits = (
            memory.buffer(rows, dtype=np.int64),
            memory.buffer(rows),
            memory.buffer(rows),
        )
        self.loss, self.correct = memory.buffer(), memory.buffer(dtype=np.int64)
        self.now = memory.buffer(2, dtype=np.float64)
        key = (noise.seed, noise.stream) if noise else (0, 0)
        self.constants = *map(np.uint64, key), memory.dtype.type(per_row)
        self.cross_entropy, self.totals = (
            Kernel(
                memory.device, "head.cu", name, memory.dtype,
                CLASSES=classes, FIRST_ROW=first_row, GUMBEL=int(noise is not None),
            )
            for name in ("cross_entropy", "totals")
        )  # fmt: skip

    def compute(self) -> None:
        if self.noise is not None:
            prepare(self._load_now)
        self.cross_entropy(
            self.rows * WARP, self.logits, self.labels, self.now, *self.constants, self.dlogits, self.losses, self.hits
        )
        self.totals(WARP, np.int32(self.rows), self.losses, self.hits, self.loss, self.correct, self.metrics)

    def _load_now(self) -> None:
        assert self.noise is not None
        self.device.load(np.array(self.noise.now(), np.float64), out=self.now)
