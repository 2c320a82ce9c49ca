"""Layers on flat features."""

from collections.abc import Sequence

import numpy as np

from scratchnet.arguments import boolean, positive_integer
from scratchnet.backend import Array, view
from scratchnet.initializers import Initializer, get_initializer
from scratchnet.layers.layer import Layer


class Dense(Layer):
    """y = x kernel + bias over the last axis: input (N, ..., in), output (N, ..., units), kernel (in, units).

    Like Keras's Dense, without activation.
    """

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
        if len(input_shape) == 3:
            raise ValueError(
                f"{self.name}: the input shape is {input_shape}, images, where (in,) or (T, in) is wanted: flatten it "
                "first, or take Conv2D(units, 1)"
            )
        self.parameter("kernel", (input_shape[-1], self.units), self.kernel_initializer)
        if self.use_bias:
            self.parameter("bias", (self.units,), self.bias_initializer)
        return (*input_shape[:-1], self.units)

    def allocate(self) -> None:
        self.x = self.activation()
        if self.of_features:  # dx and a copy of dy lie by feature: dx' = kernel dy' takes half the time
            self.dx, self.lying = (self.memory.buffer(size, self.batch.size).T for size in self.shapes["kernel"])
        else:
            self.dx = self.activation()

    @property
    def of_features(self) -> bool:
        """Whether an image has one vector of features, and not one for each token."""
        return len(self.input_shape) == 1

    def compute(self, training: bool) -> None:
        x, y = (view(array, -1, array.shape[-1]) for array in (self.x, self.y))
        with self.memory.scratch() as take:
            self.ops.matmul_in_parts(x, self.kernel, out=y, take=take)
        if self.use_bias:
            self.ops.add(y, self.bias, out=y)

    def compute_gradients(self) -> None:
        x, dy = (view(array, -1, array.shape[-1]) for array in (self.x, self.dy))
        self.ops.matmul(x.T, dy, out=self.dkernel)
        if self.use_bias:
            self.sum_to_last(self.dy, out=self.dbias)
        if self.input_gradient and self.of_features:
            self.ops.copy(dy, out=self.lying)
            self.ops.matmul(self.kernel, self.lying.T, out=self.dx.T)
        elif self.input_gradient:
            with self.memory.scratch() as take:
                transposed = take(*self.kernel.T.shape)
                self.ops.copy(self.kernel.T, out=transposed)
                self.ops.matmul(dy, transposed, out=view(self.dx, *x.shape))


class Reshape(Layer):
    """(N, ...) to (N, *target_shape), in the order of the last axis first; one size may be -1, which is what is left.

    Raises ValueError where the sizes do not fit, and for images of another shape: flatten them before.
    """

    def __init__(self, target_shape: Sequence[int]) -> None:
        super().__init__()
        self.target_shape = tuple(target_shape)

    def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        try:
            shape = np.empty(input_shape, bool).reshape(self.target_shape).shape
        except (TypeError, ValueError):
            raise ValueError(f"{self.name}: {input_shape} cannot have the shape {self.target_shape}") from None
        if len(input_shape) == len(shape) == 3 and input_shape != shape:
            raise ValueError(f"{self.name}: {input_shape} are images, and so are {shape}: put a Flatten before")
        return shape

    @property
    def in_order(self) -> bool:
        """Whether the input lies in memory as the output does: then they are one buffer, and nothing is to do."""
        images = (len(shape) == 3 for shape in (self.input_shape, self.output_shape))
        return self.device.image_axes == (0, 1, 2, 3) or not any(images)

    def allocate(self) -> None:
        if not self.in_order:
            super().allocate()

    def write_to(self, *outputs: tuple[Array, Array]) -> None:
        super().write_to(*outputs)
        if self.in_order:
            self.x, self.dx = (view(array, len(array), *self.input_shape) for array in (self.y, self.dy))

    def compute(self, training: bool) -> None:
        if not self.in_order:
            x, y = self._alike(self.x, self.y)
            self.ops.copy(x, out=y)

    def compute_gradients(self) -> None:
        if not self.in_order:
            dx, dy = self._alike(self.dx, self.dy)
            self.ops.copy(dy, out=dx)

    def _alike(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Input and output in the shape of that which is images."""
        if len(self.input_shape) == 3:
            return x, view(y, *x.shape)
        return view(x, *y.shape), y


class Flatten(Reshape):
    """(N, H, W, C) to (N, H*W*C), in that order; any other shape likewise."""

    def __init__(self) -> None:
        super().__init__((-1,))
