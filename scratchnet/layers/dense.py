"""Layers on flat features."""

from math import prod

from scratchnet.arguments import boolean, positive_integer
from scratchnet.backend import Array, view
from scratchnet.initializers import Initializer, get_initializer
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
        self.units = positive_integer(units, "units", self.name)
        self.use_bias = boolean(use_bias, "use_bias", self.name)
        self.kernel_initializer, self.bias_initializer = map(get_initializer, (kernel_initializer, bias_initializer))

    def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(input_shape) != 1:
            raise ValueError(f"{self.name}: the input shape is {input_shape} where (in,) is wanted: flatten it first")
        self.parameter("kernel", (*input_shape, self.units), self.kernel_initializer)
        if self.use_bias:
            self.parameter("bias", (self.units,), self.bias_initializer)
        return (self.units,)

    def allocate(self) -> None:
        self.x = self.activation()
        # dx and a copy of dy lie by feature: dx' = kernel dy' takes half the time.
        self.dx, self.lying = (self.memory.buffer(size, self.batch.size).T for size in self.shapes["kernel"])

    def compute(self, training: bool) -> None:
        with self.memory.scratch() as take:
            self.ops.matmul_in_parts(self.x, self.kernel, out=self.y, take=take)
        if self.use_bias:
            self.ops.add(self.y, self.bias, out=self.y)

    def compute_gradients(self) -> None:
        self.ops.matmul(self.x.T, self.dy, out=self.dkernel)
        if self.use_bias:
            self.ops.sum(self.dy, axis=0, out=self.dbias)
        if self.input_gradient:
            self.ops.copy(self.dy, out=self.lying)
            self.ops.matmul(self.kernel, self.lying.T, out=self.dx.T)


class Flatten(Layer):
    """(N, H, W, C) to (N, H*W*C), in that order; any other shape likewise."""

    def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (prod(input_shape),)

    @property
    def in_order(self) -> bool:
        """Whether the input lies in memory as the output does: then they are one buffer, and nothing is to do."""
        return len(self.input_shape) != 3 or self.device.image_axes == (0, 1, 2, 3)

    def allocate(self) -> None:
        if not self.in_order:
            super().allocate()

    def write_to(self, *outputs: tuple[Array, Array]) -> None:
        super().write_to(*outputs)
        if self.in_order:
            self.x, self.dx = (view(array, len(array), *self.input_shape) for array in (self.y, self.dy))

    def compute(self, training: bool) -> None:
        if not self.in_order:
            self.ops.copy(self.x, out=view(self.y, *self.x.shape))

    def compute_gradients(self) -> None:
        if not self.in_order:
            self.ops.copy(view(self.dy, *self.x.shape), out=self.dx)
