"""How a window slides along an axis, as Keras defines it."""

from dataclasses import dataclass
from typing import Literal

from scratchnet.backend import Array

Padding = Literal["valid", "same"]


@dataclass(frozen=True)
class Axis:
    """A window of `size` entries, `dilation` apart, that moves by `stride` over `before + length + after` entries."""

    length: int
    size: int
    stride: int
    dilation: int
    before: int
    after: int

    @property
    def span(self) -> int:
        """Entries from the window's first to its last, inclusive."""
        return (self.size - 1) * self.dilation + 1

    @property
    def outputs(self) -> int:
        return (self.before + self.length + self.after - self.span) // self.stride + 1

    def entries(self, offset: int, first: int = 0, last: int | None = None) -> slice:
        """Of the padded axis, what windows `first` to `last` (exclusive) see at their entry `offset`."""
        last = self.outputs if last is None else last
        start = offset * self.dilation + first * self.stride
        return slice(start, start + (last - first - 1) * self.stride + 1 if last > first else start, self.stride)


def axis(length: int, size: int, stride: int, padding: Padding, dilation: int = 1) -> Axis:
    """The axis for a padding rule; ValueError if a window does not fit.

    `valid` pads nothing; `same` pads so that there are ceil(length / stride) outputs, and where the number of zeros is
    odd the extra one comes after.
    """
    span = (size - 1) * dilation + 1
    if padding == "valid":
        if span > length:
            raise ValueError(f"a window that spans {span} does not fit an axis of length {length} with padding 'valid'")
        return Axis(length, size, stride, dilation, 0, 0)
    total = max((-(-length // stride) - 1) * stride + span - length, 0)
    return Axis(length, size, stride, dilation, total // 2, total - total // 2)


@dataclass(frozen=True)
class Windows:
    """Windows over the rows and the columns of an image."""

    rows: Axis
    columns: Axis

    @property
    def outputs(self) -> tuple[int, int]:
        return self.rows.outputs, self.columns.outputs

    @property
    def size(self) -> tuple[int, int]:
        return self.rows.size, self.columns.size

    @property
    def margins(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return (self.rows.before, self.rows.after), (self.columns.before, self.columns.after)

    def entries(self, padded: Array) -> list[Array]:
        """One view of `padded` (N, H, W, C) for each entry of the window, in row-major order: what all windows see."""
        return [
            padded[:, self.rows.entries(r), self.columns.entries(s)]
            for r in range(self.rows.size)
            for s in range(self.columns.size)
        ]


def windows(
    input_shape: tuple[int, ...],
    size: tuple[int, int],
    strides: tuple[int, int],
    padding: Padding,
    dilation: tuple[int, int] = (1, 1),
) -> Windows:
    """The windows of a layer whose input has the shape (H, W, C)."""
    rows, columns = (
        axis(input_shape[place], size[place], strides[place], padding, dilation[place]) for place in (0, 1)
    )
    return Windows(rows, columns)


@dataclass(frozen=True)
class Convolution:
    """A convolution of a batch of images, and whether a ReLU, then a 2x2 max pooling follow it."""

    images: int
    input_shape: tuple[int, ...]
    filters: int
    windows: Windows
    relu: bool = False
    pool: bool = False
    input_gradient: bool = True
