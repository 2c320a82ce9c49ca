"""The table of a GPU's own kernels: who does there what a layer, a head, an optimizer says.

Each gives the values of what it stands for; whatever is not in the table is done by its own equations, through the
operations of CuPy.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from scratchnet.backend import Array, Noise, view
from scratchnet.backend.cuda import NULL, WARP, Kernel
from scratchnet.heads import GumbelSoftmaxCrossEntropy, Head, SoftmaxCrossEntropy
from scratchnet.kernels.batch import Batch
from scratchnet.kernels.gpu.batch import GpuBatch, GpuNoise
from scratchnet.kernels.gpu.convolution import GpuConvolution
from scratchnet.kernels.gpu.rows import GpuBlocks
from scratchnet.kernels.rows import Blocks
from scratchnet.kernels.table import TABLE
from scratchnet.layers import Conv2D, Dense
from scratchnet.optimizers import Adam


class GpuConv2D(Conv2D):
    """Kernel and bias are one matrix, the bias its last row: the products add it and sum its gradient."""

    joined = True

    def allocate(self) -> None:
        self.matrix, self.dmatrix = (self.layout.matrix(part) for part in self.flat[:2])
        self.work = GpuConvolution(self.convolution, self.memory, self.matrix.shape, self.use_bias)
        self.x = self.work.x
        if self.input_gradient:
            self.dx = self.work.dx

    def compute(self, training: bool) -> None:
        self.work.forward(self.matrix, self.y)

    def compute_gradients(self) -> None:
        self.work.backward(self.matrix, self.dy, self.dmatrix)


class GpuDense(Dense):
    """The bias is the kernel of one more input, which is 1."""

    joined = True

    def allocate(self) -> None:
        self.matrix, self.dmatrix = (self.layout.matrix(part)[:, : self.units] for part in self.flat[:2])
        rows, features = self.batch.size * prod(self.input_shape[:-1]), self.input_shape[-1]
        self.inputs, dinputs = (self.memory.buffer(rows, len(self.matrix)) for _ in range(2))
        self.inputs[:, features : features + self.use_bias] = 1
        self.x, self.dx = (view(each[:, :features], -1, *self.input_shape) for each in (self.inputs, dinputs))

    def compute(self, training: bool) -> None:
        self.ops.matmul(self.inputs, self.matrix, out=view(self.y, -1, self.units))

    def compute_gradients(self) -> None:
        dy = view(self.dy, -1, self.units)
        self.ops.matmul(self.inputs.T, dy, out=self.dmatrix)
        if self.input_gradient:
            self.ops.matmul(dy, self.kernel.T, out=view(self.dx, len(dy), -1))


class GpuSoftmaxCrossEntropy(SoftmaxCrossEntropy):
    """Loss, correct answers and gradient by two kernels, which draw the noise, if any, and add to the metrics."""

    gumbel = 0
    key = np.uint64(0), np.uint64(0)

    def allocate(self) -> None:
        Head.allocate(self)
        rows, memory = self.batch.size, self.memory
        self.losses, self.hits = memory.buffer(rows), memory.buffer(rows)
        self.step_and_scale = memory.record.field(lambda: (self.clock.step, self.now()), np.float64, 2)
        constants = {"CLASSES": self.classes, "FIRST_ROW": self.batch.start, "GUMBEL": self.gumbel}
        self.of_rows, self.totals = (
            Kernel(self.device, "head.cu", name, memory.dtype, **constants) for name in ("cross_entropy", "totals")
        )

    def now(self) -> float:
        return 1

    def compute(self, training: bool) -> None:
        rows, per_row = self.batch.size, self.dtype.type(1 / self.batch.total)
        self.of_rows(
            rows * WARP, self.x, self.labels, self.step_and_scale, *self.key, per_row, self.dx, self.losses, self.hits
        )
        metrics = NULL if self.metrics is None else self.metrics
        self.totals(WARP, np.int32(rows), self.losses, self.hits, self.loss, self.correct, metrics)

    def add_to_metrics(self) -> None:
        """Done by `compute`."""


class GpuGumbelSoftmaxCrossEntropy(GpuSoftmaxCrossEntropy, GumbelSoftmaxCrossEntropy):
    gumbel = 1

    def allocate(self) -> None:
        self.key = np.uint64(self.seed), np.uint64(self.noise_stream)
        GpuSoftmaxCrossEntropy.allocate(self)

    def now(self) -> float:
        return GumbelSoftmaxCrossEntropy.now(self)


class GpuAdam(Adam):
    """The whole step by one kernel."""

    def apply_all(self, gradients: Sequence[Array]) -> None:
        if len(gradients) > 1:
            super().apply_all(gradients)
            return
        kernel = Kernel(self.device, "adam.cu", "adam", self.memory.dtype)
        kernel(self.parameters.size, self.of_step, *gradients, self.parameters, self.moments["m"], self.moments["v"])


KERNELS: dict[type, Any] = {
    Conv2D: GpuConv2D,
    Dense: GpuDense,
    SoftmaxCrossEntropy: GpuSoftmaxCrossEntropy,
    GumbelSoftmaxCrossEntropy: GpuGumbelSoftmaxCrossEntropy,
    Adam: GpuAdam,
    Noise: GpuNoise,
    Batch: GpuBatch,
    Blocks: GpuBlocks,
}
TABLE.update(KERNELS)
