"""A dense layer on the GPU: matrix products, and a ReLU in one kernel."""

import numpy as np

from scratchnet.backend import Array, Memory
from scratchnet.kernels.gpu.launch import Kernel


class Dense:
    """y = x kernel + bias of a batch, then ReLU where asked for; owns its input `x` and `dx` (rows, inputs).

    Its parameters are a matrix of `shape`: the kernel's rows, the bias's, and more that stay 0. The bias is the kernel
    of one more input, which is 1: the products add it and sum its gradient.
    """

    def __init__(
        self,
        rows: int,
        inputs: int,
        units: int,
        memory: Memory,
        *,
        shape: tuple[int, int],
        bias: bool = True,
        relu: bool = False,
        input_gradient: bool = True,
    ) -> None:
        self.inputs, self.units, self.ops = inputs, units, memory.device.ops
        self.with_ones = memory.buffer(rows, shape[0])
        self.with_ones[:, inputs : inputs + bias] = 1
        self.x, self.dx = self.with_ones[:, :inputs], memory.buffer(rows, shape[0])[:, :inputs]
        self.has_relu, self.input_gradient = relu, input_gradient
        self.relu, self.relu_backward = (
            Kernel(memory.device, "dense.cu", name, memory.dtype, UNITS=units) for name in ("relu", "relu_backward")
        )

    def forward(self, weights: Array, y: Array) -> None:
        self.ops.matmul(self.with_ones, weights[:, : self.units], out=y)
        if self.has_relu:
            self.relu(y.size, y, _pitch(y))

    def backward(self, weights: Array, y: Array, dy: Array, dweights: Array) -> None:
        """Gradients of the parameters and (unless nobody asked for it) the input; `dy` becomes that before the ReLU."""
        if self.has_relu:
            self.relu_backward(dy.size, y, _pitch(y), dy, _pitch(dy))
        self.ops.matmul(self.with_ones.T, dy, out=dweights[:, : self.units])
        if self.input_gradient:
            self.ops.matmul(dy, weights[: self.inputs, : self.units].T, out=self.dx)


def _pitch(matrix: Array) -> np.int32:
    return np.int32(matrix.strides[0] // matrix.itemsize)
