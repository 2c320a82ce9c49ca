"""Dense layers, on the last axis, and layers that show their input in another shape."""

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
            images = f"the input shape is {input_shape}, of images"
            raise ValueError(f"{self.name}: {images}: flatten them first, or take Conv2D(units, 1)")
        self.parameter("kernel", (input_shape[-1], self.units), self.kernel_initializer)
        if self.use_bias:
            self.parameter("bias", (self.units,), self.bias_initializer)
        return (*input_shape[:-1], self.units)

    def allocate(self) -> None:
        self.x, self.lying, sizes = self.activation(), None, self.shapes["kernel"]
        if len(self.input_shape) == 1:  # dx and a copy of dy lie by feature: dx' = kernel dy' takes half the time
            self.dx, self.lying = (self.memory.buffer(size, self.batch.size).T for size in sizes)
        else:  # tokens are read by row: for them it is the kernel that is turned
            self.dx, self.turned = self.activation(), self.memory.buffer(*reversed(sizes))

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
        if self.input_gradient and self.lying is not None:
            self.ops.copy(dy, out=self.lying)
            self.ops.matmul(self.kernel, self.lying.T, out=self.dx.T)
        elif self.input_gradient:
            self.ops.copy(self.kernel.T, out=self.turned)
            self.ops.matmul(dy, self.turned, out=view(self.dx, *x.shape))


class Reshape(Layer):
    """The numbers of each image in another shape, in their order: input (N, ...), output (N, *target_shape).

    One size of the shape may be -1: what is left. Raises ValueError where the numbers do not fill the shape.
    """

    def __init__(self, target_shape: Sequence[int]) -> None:
        super().__init__()
        self.target_shape = target_shape

    def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        try:
            shape = np.empty((1, *input_shape), bool).reshape(1, *self.target_shape).shape[1:]
        except (TypeError, ValueError):
            shape = ()
        if not shape:
            raise ValueError(f"{self.name}: {input_shape} cannot have the target_shape {self.target_shape!r}")
        return shape

    def allocate(self) -> None:
        """Nothing yet: where the output lies in memory as the input would, they are one buffer."""

    def write_to(self, *outputs: tuple[Array, Array]) -> None:
        super().write_to(*outputs)
        (self.x, *self.forth), (self.dx, *self.back) = map(self._end, (self.y, self.dy))

    def _end(self, theirs: Array) -> tuple[Array, Array, Array]:
        """Our buffer for one of theirs; and both in one shape, unless they are the same."""
        shape = self.batch.size, *self.input_shape
        try:
            seen = view(theirs, *shape)
        except ValueError:  # images that lie otherwise, or rows with something between them
            ours = self.memory.buffer(*shape)
            return ours, view(ours, *theirs.shape), theirs
        # Tokens are the rows of one matrix, which they are not in one with margins, nor in one that lies by feature.
        one_matrix = len(self.input_shape) == 1 or theirs.flags.c_contiguous
        in_order = self.device.image_axes == (0, 1, 2, 3) if len(self.input_shape) == 3 else one_matrix
        ours = seen if in_order else self.activation()
        return ours, ours, seen

    def compute(self, training: bool) -> None:
        self._copy(*self.forth)

    def compute_gradients(self) -> None:
        self._copy(*reversed(self.back))

    def _copy(self, source: Array, target: Array) -> None:
        if source is not target:
            self.ops.copy(source, out=target)


class Flatten(Reshape):
    """(N, H, W, C) to (N, H*W*C), in that order; any other shape likewise."""

    def __init__(self) -> None:
        super().__init__((-1,))
