"""Layers on flat features."""

from collections.abc import Callable
from functools import partial
from math import prod

from scratchnet.arguments import positive_integer
from scratchnet.backend import Array, view
from scratchnet.initializers import Initializer, get_initializer
from scratchnet.kernels.gpu.column_sums import ColumnSums
from scratchnet.layers.layer import Layer


class Dense(Layer):
    """y = x kernel + bias. Input (N, in), output (N, units), kernel (in, units), as in Keras without activation."""

    kernel: Array
    dkernel: Array
    bias: Array
    dbias: Array

    def __init__(
        self,
        units: int,
        use_bias: bool = True,
        kernel_initializer: str | Initializer = "glorot_uniform",
        bias_initializer: str | Initializer = "zeros",
    ) -> None:
        super().__init__()
        self.units, self.use_bias = positive_integer(units, "units", self.name), use_bias
        self.initializers = {"kernel": get_initializer(kernel_initializer), "bias": get_initializer(bias_initializer)}

    def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(input_shape) != 1:
            raise ValueError(f"{self.name}: the input shape is {input_shape} where (in,) is wanted: flatten it first")
        self.shapes = {"kernel": (*input_shape, self.units)}
        if self.use_bias:
            self.shapes["bias"] = (self.units,)
        return (self.units,)

    def allocate(self) -> None:
        super().allocate()
        self.lying: Array | None = None
        if self.device.name == "cpu":  # dx and a copy of dy lie by feature: dx' = kernel dy' takes half the time
            self.dx, self.lying = (self.memory.buffer(size, self.share.size).T for size in self.shapes["kernel"])
        self.column_sums: Callable[..., None] = partial(self.ops.sum, axis=0)
        if self.device.cuda is not None:
            self.column_sums = ColumnSums(self.share.size, self.units, self.memory)

    def compute(self, training: bool) -> None:
        with self.memory.scratch() as take:
            self.ops.matmul_in_parts(self.x, self.kernel, out=self.y, take=take)
        if self.use_bias:
            self.ops.add(self.y, self.bias, out=self.y)

    def compute_gradients(self) -> None:
        self.ops.matmul(self.x.T, self.dy, out=self.dkernel)
        if self.use_bias:
            self.column_sums(self.dy, out=self.dbias)
        if self.input_gradient and self.lying is not None:
            self.ops.copy(self.dy, out=self.lying)
            self.ops.matmul(self.kernel, self.lying.T, out=self.dx.T)
        elif self.input_gradient:
            self.ops.matmul(self.dy, self.kernel.T, out=self.dx)


class Flatten(Layer):
    """(N, H, W, C) to (N, H*W*C), in that order; any other shape likewise."""

    def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (prod(input_shape),)

    def compute(self, training: bool) -> None:
        self.ops.copy(self.x, out=view(self.y, *self.x.shape))

    def compute_gradients(self) -> None:
        self.ops.copy(view(self.dy, *self.x.shape), out=self.dx)
