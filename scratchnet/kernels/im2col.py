"""Convolution as one matrix product a block of rows: gather the windows, multiply (blocked im2col).

Applies to every convolution: any kernel size, stride, padding and dilation. The input lies as (C, H, W, N), because a
gathered row of windows is then one run of W*N values however few channels there are.
"""

from collections.abc import Iterator
from math import prod

from scratchnet.backend import Array, Memory, view
from scratchnet.kernels.epilogue import Epilogue, Piece
from scratchnet.kernels.geometry import Convolution

BLOCK = 1 << 19  # bytes of gathered windows a block: they should still be in the second-level cache when multiplied
BY_CHANNEL = 3, 1, 2, 0  # the order in memory of the axes N, H, W, C


class Im2col:
    """One convolution of a batch with its epilogue; owns its input `x`, `dx` (N, H, W, C) and the gathered windows."""

    def __init__(self, convolution: Convolution, memory: Memory) -> None:
        images, shape, windows = convolution.images, convolution.input_shape, convolution.windows
        self.memory, self.ops, self.windows = memory, memory.device.ops, windows
        self.filters, self.terms = convolution.filters, prod(windows.size) * shape[2]
        self.input_gradient = convolution.input_gradient
        self.x, self.x_padded = memory.padded_activation(images, shape, windows.margins, axes=BY_CHANNEL)
        if self.input_gradient:
            self.dx, self.dx_padded = memory.padded_activation(images, shape, windows.margins, axes=BY_CHANNEL)
        self.pooling = step = 2 if convolution.pool else 1
        height, width = (outputs // step * step for outputs in windows.outputs)
        bands, band_bytes = height // step, step * width * images * self.terms * memory.dtype.itemsize
        blocks = min(-(-bands * band_bytes // BLOCK), bands)
        rows = -(-bands // blocks) * step
        self.blocks: list[tuple[int, Array, Epilogue]] = []  # the first row of each, its gathered windows, its end
        for first in range(0, height, rows):
            count = min(rows, height - first)
            columns = memory.buffer(self.terms, count * width * images)
            self.blocks.append((first, columns, Epilogue(convolution, memory, count, width)))

    def _entries(self, padded: Array, columns: Array, first: int, epilogue: Epilogue) -> Iterator[tuple[Array, Array]]:
        """For each entry of the window, what the windows of a block see there, and its rows of `columns`."""
        entries = [entry.transpose(BY_CHANNEL) for entry in self.windows.entries(padded, first, epilogue.block[:2])]
        return zip(entries, view(columns, len(entries), *entries[0].shape), strict=True)

    def _pieces(self, y: Array, first: int, epilogue: Epilogue) -> list[Piece]:
        (rows, columns), start = epilogue.pooled[:2], first // self.pooling
        return [((), y[:, start : start + rows, :columns].transpose(1, 2, 0, 3)[:, :, None])]

    def forward(self, kernel: Array, bias: Array | None, y: Array) -> None:
        """y = x * kernel + bias, then the epilogue; `y` has axes N, H, W, C in any memory order."""
        ops = self.ops
        for first, columns, epilogue in self.blocks:
            with self.memory.scratch() as take:
                block = take(*epilogue.block)
                for entry, gathered in self._entries(self.x_padded, columns, first, epilogue):
                    ops.copy(entry, out=gathered)
                ops.matmul(columns.T, view(kernel, self.terms, self.filters), out=view(block, -1, self.filters))
                epilogue.forward(block, bias, self._pieces(y, first, epilogue))

    def backward(self, kernel: Array, dy: Array, dkernel: Array, dbias: Array | None) -> None:
        """Gradients of the kernel, the bias and (unless nobody asked for it) the input, into `dx`."""
        ops = self.ops
        dkernel, kernel = view(dkernel, self.terms, self.filters), view(kernel, self.terms, self.filters)
        ops.fill(0, out=dkernel)
        if dbias is not None:
            ops.fill(0, out=dbias)
        if self.input_gradient:
            ops.fill(0, out=self.dx_padded)
        for first, columns, epilogue in self.blocks:
            with self.memory.scratch() as take:
                dblock, part = take(*epilogue.block), take(*dkernel.shape)
                products = view(dblock, -1, self.filters)
                epilogue.backward(self._pieces(dy, first, epilogue), dblock, dbias)
                ops.matmul_in_parts(columns, products, out=part, take=take)
                ops.add(dkernel, part, out=dkernel)
                if self.input_gradient:
                    dcolumns = take(self.terms, len(products))
                    ops.matmul(kernel, products.T, out=dcolumns)
                    for entry, scattered in self._entries(self.dx_padded, dcolumns, first, epilogue):
                        ops.add(entry, scattered, out=entry)
