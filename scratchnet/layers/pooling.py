"""Pooling: the largest or the mean of each window."""

from math import prod

import numpy as np

from scratchnet.arguments import one_of, pair
from scratchnet.backend import view
from scratchnet.kernels.geometry import Windows
from scratchnet.layers.layer import Layer, image_shape, token_shape


class _Pooling2D(Layer):
    """Windows over images; what the padding holds is `margin`."""

    margin = 0.0

    def __init__(
        self,
        pool_size: int | tuple[int, int] = 2,
        strides: int | tuple[int, int] | None = None,
        padding: str = "valid",
    ) -> None:
        super().__init__()
        self.pool_size = pair(pool_size, "pool_size", self.name)
        self.strides = self.pool_size if strides is None else pair(strides, "strides", self.name)
        self.padding = one_of(padding, ("valid", "same"), "padding", self.name)

    def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        _, _, channels = image_shape(input_shape, self.name)
        try:
            self.windows = Windows(input_shape, self.pool_size, self.strides, self.padding)
        except ValueError as error:
            raise ValueError(f"{self.name}: for the input shape {input_shape}, {error}") from None
        return (*self.windows.outputs, channels)

    def allocate(self) -> None:
        images, margins = self.batch.size, self.windows.margins
        self.x, padded = self.memory.padded_activation(images, self.input_shape, margins)
        padded.fill(self.margin)
        self.x.fill(0)
        self.dx, self.dx_padded = self.memory.padded_activation(images, self.input_shape, margins)
        self.entries, self.dentries = self.windows.entries(padded), self.windows.entries(self.dx_padded)


class MaxPooling2D(_Pooling2D):
    """y[n,i,j,c] = the largest x of window (i, j); its gradient goes to the first of the equal largest, row by row.

    Like Keras's MaxPooling2D: input (N, H, W, C), output (N, H', W', C); padding never is the maximum.
    """

    margin = -np.inf

    @property
    def halves(self) -> bool:
        """Whether this is the common case: 2x2 windows side by side, nothing padded."""
        return self.pool_size == self.strides == (2, 2) and self.windows.margins == ((0, 0), (0, 0))

    def allocate(self) -> None:
        super().allocate()
        self.hit, self.taken = (self.activation(self.output_shape, bool) for _ in range(2))

    def compute(self, training: bool) -> None:
        self.ops.copy(self.entries[0], out=self.y)
        for entry in self.entries[1:]:
            self.ops.maximum(self.y, entry, out=self.y)

    def compute_gradients(self) -> None:
        ops = self.ops
        ops.fill(0, out=self.dx_padded)
        ops.fill(False, out=self.taken)
        with self.scratch(self.output_shape) as part:
            for entry, dentry in zip(self.entries, self.dentries, strict=True):
                ops.less(entry, self.y, out=self.hit)  # false of a NaN too, whose window keeps its gradient
                ops.logical_or(self.hit, self.taken, out=self.hit)
                ops.logical_not(self.hit, out=self.hit)
                ops.logical_or(self.hit, self.taken, out=self.taken)
                ops.multiply(self.dy, self.hit, out=part)
                ops.add(dentry, part, out=dentry)  # windows may overlap


class AveragePooling2D(_Pooling2D):
    """y[n,i,j,c] = the mean of x over window (i, j), padding left out of the count as in Keras.

    Input (N, H, W, C), output (N, H', W', C).
    """

    def allocate(self) -> None:
        super().allocate()
        height, width, _ = self.input_shape
        (top, bottom), (left, right) = self.windows.margins
        inside = np.pad(np.ones((1, height, width, 1)), ((0, 0), (top, bottom), (left, right), (0, 0)))
        count = np.sum(self.windows.entries(inside), axis=0)
        self.weight = self.device.to_device((1 / count).astype(self.dtype))  # (1, H', W', 1)

    def compute(self, training: bool) -> None:
        self.ops.copy(self.entries[0], out=self.y)
        for entry in self.entries[1:]:
            self.ops.add(self.y, entry, out=self.y)
        self.ops.multiply(self.y, self.weight, out=self.y)

    def compute_gradients(self) -> None:
        self.ops.fill(0, out=self.dx_padded)
        with self.scratch(self.output_shape) as part:
            self.ops.multiply(self.dy, self.weight, out=part)
            for dentry in self.dentries:
                self.ops.add(dentry, part, out=dentry)


class GlobalAveragePooling1D(Layer):
    """y[n,c] = the mean of x[n,:,c]. Input (N, T, C), output (N, C)."""

    def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (token_shape(input_shape, self.name)[1],)

    def allocate(self) -> None:
        super().allocate()
        self.axes = tuple(range(1, len(self.input_shape)))
        self.weight = self.memory.constant(1 / prod(self.input_shape[:-1]))

    def compute(self, training: bool) -> None:
        self.ops.sum(self.x, axis=self.axes, out=self.y)
        self.ops.multiply(self.y, self.weight, out=self.y)

    def compute_gradients(self) -> None:
        self.ops.multiply(view(self.dy, len(self.dy), *(1 for _ in self.axes), -1), self.weight, out=self.dx)


class GlobalAveragePooling2D(GlobalAveragePooling1D):
    """y[n,c] = the mean of x[n,:,:,c]. Input (N, H, W, C), output (N, C)."""

    def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (image_shape(input_shape, self.name)[2],)
