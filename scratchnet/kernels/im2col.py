"""Convolution as one matrix product a block of rows: gather the windows, multiply (blocked im2col).

Applies to every convolution: any kernel size, stride, padding and dilation. The input lies as (C, H, W, N), because a
gathered row of windows is then one run of W*N values however few channels there are.
"""

from scratchnet.backend import Array, Memory, view
from scratchnet.kernels.epilogue import Epilogue, Piece
from scratchnet.kernels.geometry import Convolution

BLOCK = 1 << 19  # bytes of gathered windows a block: they should still be in the second-level cache when multiplied


class Im2col:
    """One convolution of a batch with its epilogue; owns its input `x`, `dx` (N, H, W, C) and the gathered windows."""

    def __init__(self, convolution: Convolution, memory: Memory) -> None:
        images, filters, windows = convolution.images, convolution.filters, convolution.windows
        input_shape, pool = convolution.input_shape, convolution.pool
        channels = input_shape[2]
        self.filters, self.memory, self.ops = filters, memory, memory.device.ops
        self.windows, self.input_gradient = windows, convolution.input_gradient
        self.terms = windows.rows.size * windows.columns.size * channels
        self.x, self.x_padded = self._image(images, input_shape)
        if self.input_gradient:
            self.dx, self.dx_padded = self._image(images, input_shape)
        step = 2 if pool else 1
        height, width = (outputs // step * step for outputs in windows.outputs)
        row_bytes = step * width * images * self.terms * memory.dtype.itemsize
        blocks = min(-(-height // step * row_bytes // BLOCK), height // step)
        rows = -(-(height // step) // blocks) * step
        self.blocks = [(first, min(first + rows, height)) for first in range(0, height, rows)]
        self.width, self.images, self.pooling = width, images, step
        self.columns, self.epilogues = [], []
        for first, last in self.blocks:
            self.columns.append(memory.buffer(self.terms, (last - first) * width * images))
            self.epilogues.append(
                Epilogue(last - first, width, images * filters, images, filters, convolution.relu, pool, memory)
            )

    def _image(self, images: int, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """An image with margins, lying as (C, H, W, N): its inside with axes N, H, W, C, and all of it as it lies."""
        height, width, channels = shape
        (top, bottom), (left, right) = self.windows.margins
        lying = self.memory.buffer(channels, top + height + bottom, left + width + right, images)
        return lying[:, top : top + height, left : left + width].transpose(3, 1, 2, 0), lying

    def _entries(self, lying: Array, first: int, last: int) -> list[Array]:
        """For each entry of the window, what the windows of these output rows see there: (C, rows, width, N)."""
        rows, columns = self.windows.rows, self.windows.columns
        return [
            lying[:, rows.entries(r, first, last), columns.entries(s, 0, self.width)]
            for r in range(rows.size)
            for s in range(columns.size)
        ]

    def _pieces(self, y: Array, first: int, last: int) -> list[Piece]:
        rows, columns = slice(first // self.pooling, last // self.pooling), slice(0, self.width // self.pooling)
        return [((), y[:, rows, columns].transpose(1, 2, 0, 3)[:, :, None])]

    def forward(self, kernel: Array, bias: Array | None, y: Array) -> None:
        """y = x * kernel + bias, then the epilogue; `y` has axes N, H, W, C in any memory order."""
        ops = self.ops
        for (first, last), columns, epilogue in zip(self.blocks, self.columns, self.epilogues, strict=True):
            with self.memory.scratch() as take:
                block = take(last - first, self.width, self.images * self.filters)
                entries = self._entries(self.x_padded, first, last)
                for entry, gathered in zip(entries, view(columns, len(entries), *entries[0].shape), strict=True):
                    ops.copy(entry, out=gathered)
                ops.matmul(columns.T, view(kernel, self.terms, self.filters), out=view(block, -1, self.filters))
                epilogue.forward(block, bias, self._pieces(y, first, last))

    def backward(self, kernel: Array, dy: Array, dkernel: Array, dbias: Array | None) -> None:
        """Gradients of the kernel, the bias and (unless nobody asked for it) the input, into `dx`."""
        ops = self.ops
        dkernel, kernel = view(dkernel, self.terms, self.filters), view(kernel, self.terms, self.filters)
        ops.fill(0, out=dkernel)
        if dbias is not None:
            ops.fill(0, out=dbias)
        if self.input_gradient:
            ops.fill(0, out=self.dx_padded)
        for (first, last), columns, epilogue in zip(self.blocks, self.columns, self.epilogues, strict=True):
            with self.memory.scratch() as take:
                dblock, part = take(last - first, self.width, self.images * self.filters), take(*dkernel.shape)
                products = view(dblock, -1, self.filters)
                epilogue.backward(self._pieces(dy, first, last), dblock, dbias)
                ops.matmul_in_parts(columns, products, out=part, take=take)
                ops.add(dkernel, part, out=dkernel)
                if self.input_gradient:
                    dcolumns = take(self.terms, len(products))
                    ops.matmul(kernel, products.T, out=dcolumns)
                    entries = self._entries(self.dx_padded, first, last)
                    for entry, scattered in zip(entries, view(dcolumns, len(entries), *entries[0].shape), strict=True):
                        ops.add(entry, scattered, out=entry)
