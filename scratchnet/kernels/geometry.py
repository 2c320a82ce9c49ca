"""How windows slide over images, as Keras defines it."""

from dataclasses import dataclass

from scratchnet.backend import Array

Pair = tuple[int, int]  # of rows and of columns


class Windows:
    """Windows of `size` entries, `dilation` apart, that move by `strides` over the images of a layer.

    `outputs` is how many there are, `margins` the zeros before and after: none with padding `valid`, and with `same` so
    many that there are ceil(length / stride) windows; where their number is odd the extra one comes after. Raises
    ValueError if a window does not fit.
    """

    def __init__(
        self, input_shape: tuple[int, ...], size: Pair, strides: Pair, padding: str, dilation: Pair = (1, 1)
    ) -> None:
        self.size, self.strides, self.dilation = size, strides, dilation
        rows, columns = zip(input_shape[:2], size, strides, dilation, strict=True)
        (rows_out, around_rows), (columns_out, around_columns) = _slide(*rows, padding), _slide(*columns, padding)
        self.outputs, self.margins = (rows_out, columns_out), (around_rows, around_columns)

    def entries(self, padded: Array, first: int = 0, shape: Pair | None = None) -> list[Array]:
        """One view of `padded` (N, H, W, C) for each entry of a window, row by row: what the windows see there.

        By all of them, or by as many as `shape` from the row of windows `first` on.
        """
        height, width = shape or self.outputs
        rows, columns = self._seen(0, first, height), self._seen(1, 0, width)
        return [padded[:, row, column] for row in rows for column in columns]

    def _seen(self, axis: int, first: int, count: int) -> list[slice]:
        """Along one axis, for each entry of a window: where `count` windows from `first` on have it."""
        stride = self.strides[axis]
        starts = [first * stride + entry * self.dilation[axis] for entry in range(self.size[axis])]
        return [slice(start, start + (count - 1) * stride + 1, stride) for start in starts]


def _slide(length: int, size: int, stride: int, dilation: int, padding: str) -> tuple[int, Pair]:
    """Along one axis: the number of windows, and the zeros before and after."""
    span = (size - 1) * dilation + 1  # entries from a window's first to its last, inclusive
    outputs = -(-length // stride) if padding == "same" else (length - span) // stride + 1
    if outputs < 1:
        raise ValueError(f"a window that spans {span} does not fit an axis of length {length} with padding 'valid'")
    total = max((outputs - 1) * stride + span - length, 0)
    return outputs, (total // 2, total - total // 2)


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
