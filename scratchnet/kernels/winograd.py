"""Winograd convolution F(4x4, 3x3): four by four outputs from six by six inputs.

    Y = A' [ (G g G') * (B' d B) ] A        summed over input channels, with

    B' d: data, 6 -> 6        A' m: output, 6 -> 4        G g: kernel, 3 -> 6

takes 36 products where the definition takes 144 (Lavin and Gray, "Fast algorithms for convolutional neural networks",
2016, section 4.3; docs/derivations/winograd.md). Gathered over tiles and images they are 36 matrix products. The work
goes strip by strip, one row of tiles, so that all that a strip touches stays in the second-level cache.

Applies to 3x3 kernels with stride 1 and dilation 1 on the CPU. Tiles may reach over the right and lower edge of the
image: what they compute there is left out, and its gradient is zero.
"""

import numpy as np

from scratchnet.backend import Array, Memory, view
from scratchnet.kernels.epilogue import Epilogue, Piece
from scratchnet.kernels.geometry import Convolution

TILE = 4
A = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]).T
G = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24


class Winograd:
    """One convolution of a batch with its epilogue; owns its input `x`, `dx` (N, H, W, C) with the margins it needs."""

    def __init__(self, convolution: Convolution, memory: Memory) -> None:
        images, shape, windows = convolution.images, convolution.input_shape, convolution.windows
        channels, filters = shape[2], convolution.filters
        self.channels, self.filters = channels, filters
        self.memory, self.ops, self.input_gradient = memory, memory.device.ops, convolution.input_gradient
        self.transforms = Transforms(memory)
        pooling = 2 if convolution.pool else 1
        self.height, self.width = (size // pooling for size in windows.outputs)  # of the activation
        self.step = TILE // pooling  # rows and columns of it that a tile makes
        self.strips, self.tiles = (-(-size // self.step) for size in (self.height, self.width))
        self.runs = self.tiles * images  # rows of each of the 36 matrix products

        (top, _), (left, _) = windows.margins
        bottom, right = TILE * self.strips + 2 - top - shape[0], TILE * self.tiles + 2 - left - shape[1]
        margins = (top, max(bottom, 0)), (left, max(right, 0))  # tiles need not reach the edge
        self.x, padded = memory.padded_activation(images, shape, margins)
        columns = np.lib.stride_tricks.sliding_window_view(self._lying(padded), 6, axis=1)[:, ::TILE]
        self.x_columns = columns.transpose(3, 0, 1, 2)  # (column in its tile, row, tile, run)
        if self.input_gradient:
            self.dx, padded = memory.padded_activation(images, shape, margins)
            self.dx_rows = self._lying(padded)
        self.v = memory.buffer(self.strips, 6, 6, self.runs * channels)
        self.u, self.ut = memory.buffer(36, channels, filters), memory.buffer(36, filters, channels)
        self.du = memory.buffer(36, channels, filters)
        # Both sides at once, as matrix products: of 9 kernel entries 36, and of 36 products 16 outputs.
        g, a = np.kron(G, G), np.kron(A, A)
        self.g, self.gt, self.a, self.at = (np.ascontiguousarray(each, memory.dtype) for each in (g, g.T, a, a.T))
        self.epilogues = [Epilogue(convolution, memory, TILE, TILE, self.tiles) for _ in range(self.strips)]

    def _lying(self, padded: Array) -> Array:
        """What the tiles see of an image with margins, as it lies in memory: (H, W, run)."""
        return view(padded.transpose(1, 2, 0, 3), *padded.shape[1:3], -1)[:, : TILE * self.tiles + 2]

    def _pieces(self, y: Array, strip: int) -> list[Piece]:
        """The rows of `y` that a strip makes, as (row, column, tile, image, channel): whole tiles, then what is cut."""
        step = self.step
        rows = y[:, strip * step : min((strip + 1) * step, self.height), : self.width].transpose(1, 2, 0, 3)
        whole = self.width // step
        pieces: list[Piece] = []
        for tiles, columns in ((slice(0, whole), step), (slice(whole, self.tiles), self.width % step)):
            part = rows[:, tiles.start * step :][:, : (tiles.stop - tiles.start) * columns]
            if part.size:
                split = view(part, len(part), -1, columns, *part.shape[2:]).swapaxes(1, 2)
                pieces.append(((slice(0, len(part)), slice(0, columns), tiles), split))
        return pieces

    def forward(self, kernel: Array, bias: Array | None, y: Array) -> None:
        """y = x * kernel + bias, then the epilogue; `y` has axes N, H, W, C in any memory order."""
        ops, runs, channels, filters, transforms = self.ops, self.runs, self.channels, self.filters, self.transforms
        ops.matmul(self.g, view(kernel, 9, -1), out=view(self.u, 36, -1))
        with self.memory.scratch() as take:
            t = take(6, 6, self.tiles, runs * channels // self.tiles)  # rows of the input, their columns transformed
            m, block = take(36, runs * filters), take(*self.epilogues[0].block)
            for strip in range(self.strips):
                seen = 2 if strip else 0  # the first two rows are the last two of the strip above
                if seen:
                    ops.copy(t[4:6], out=t[0:2])
                rows = self.x_columns[:, TILE * strip + seen : TILE * strip + 6]
                transforms.input(rows, t[seen:].swapaxes(0, 1))
                transforms.input(view(t, 6, 6, -1), self.v[strip])
                ops.matmul(view(self.v[strip], 36, runs, channels), self.u, out=view(m, 36, runs, filters))
                ops.matmul(self.at, m, out=view(block, 16, -1))
                self.epilogues[strip].forward(block, bias, self._pieces(y, strip))

    def backward(self, kernel: Array, dy: Array, dkernel: Array, dbias: Array | None) -> None:
        """Gradients of the kernel, the bias and the input."""
        ops, runs, channels, filters = self.ops, self.runs, self.channels, self.filters
        if dbias is not None:
            ops.fill(0, out=dbias)
        with self.memory.scratch() as take:
            block, m = take(*self.epilogues[0].block), take(36, runs * filters)
            part, products = take(36, channels, filters), view(m, 36, runs, filters)
            dv, t = take(6, 6, runs * channels), take(6, 6, runs * channels)
            carry = take(2, 6, runs * channels)
            if self.input_gradient:  # a product with a contiguous operand is up to twice as fast
                transposed = take(9, filters, channels)
                ops.copy(view(kernel, 9, channels, filters).swapaxes(1, 2), out=transposed)
                ops.matmul(self.g, view(transposed, 9, -1), out=view(self.ut, 36, -1))
            for strip in range(self.strips):
                self.epilogues[strip].backward(self._pieces(dy, strip), block, dbias)
                ops.matmul(self.a, view(block, 16, -1), out=m)
                v = view(self.v[strip], 36, runs, channels).swapaxes(1, 2)
                ops.matmul(v, products, out=part if strip else self.du)
                if strip:
                    ops.add(self.du, part, out=self.du)
                if self.input_gradient:
                    ops.matmul(products, self.ut, out=view(dv, 36, runs, channels))
                    self._rows_back(dv, t, carry, strip)
            ops.matmul(self.gt, view(self.du, 36, -1), out=view(dkernel, 9, -1))

    def _rows_back(self, dv: Array, t: Array, carry: Array, strip: int) -> None:
        """Into dx, the rows of a strip, two of which it shares with the strip below (`carry`)."""
        ops, last = self.ops, strip == self.strips - 1
        self.transforms.input_adjoint(dv, t[:4])
        if strip:
            ops.add(t[0:2], carry, out=t[0:2])
        ops.copy(dv[4:6], out=t[4:6] if last else carry)
        rows = 6 if last else 4
        t = view(t, 6, 6, self.tiles, -1)[:rows].swapaxes(0, 1)  # (column in its tile, row, tile, run)
        self._columns_back(t, self.dx_rows[TILE * strip : TILE * strip + rows])

    def _columns_back(self, t: Array, dx: Array) -> None:
        """Into these rows of dx, the columns of all tiles, two of which each tile shares with its right neighbour."""
        tiles = self.tiles
        first_four = view(dx[:, : TILE * tiles], len(dx), tiles, TILE, -1)
        self.transforms.input_adjoint(t, first_four.transpose(2, 0, 1, 3))
        for j in (0, 1):
            shared = first_four[:, 1:, j]
            self.ops.add(shared, t[4 + j, :, :-1], out=shared)
            self.ops.copy(t[4 + j, :, -1], out=dx[:, TILE * tiles + j])


class Transforms:
    """B' and its adjoint over the first axis, by additions and multiplications with 4.

    `out` must not overlap the operand. Doubling is an addition. Each works on all that the other axes hold.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory, self.ops = memory, memory.device.ops
        self.four, self.minus_four = memory.constant(4), memory.constant(-4)

    def input(self, d: Array, out: Array) -> None:
        """out = B' d (6 -> 6)."""
        ops = self.ops
        with self.memory.scratch() as take:
            even, odd, t = (take(2, *d.shape[1:]) for _ in range(3))
            ops.multiply(d[1:3], self.four, out=t)
            ops.subtract(d[3:5], t, out=t)  # d3 - 4 d1, d4 - 4 d2
            ops.add(t[1], t[0], out=out[1])
            ops.subtract(t[1], t[0], out=out[2])
            ops.subtract(d[0:2], d[2:4], out=even)  # d0 - d2, d1 - d3
            ops.subtract(d[4:6], d[2:4], out=odd)  # d4 - d2, d5 - d3
            ops.add(even[1], even[1], out=t[0])
            ops.subtract(odd[0], t[0], out=out[3])
            ops.add(odd[0], t[0], out=out[4])
            ops.multiply(even, self.four, out=even)
            ops.add(even, odd, out=out[0::5])

    def input_adjoint(self, dv: Array, out: Array) -> None:
        """B dv (6 -> 6): its rows 0 to 3 go to out, its rows 4 and 5 take the place of those of dv; destroys dv."""
        ops = self.ops
        with self.memory.scratch() as take:
            t = take(*dv.shape[1:])
            ops.add(dv[1], dv[2], out=t)
            ops.subtract(dv[1], dv[2], out=dv[1])
            ops.add(dv[3], dv[4], out=dv[2])
            ops.subtract(dv[3], dv[4], out=dv[3])
            ops.add(dv[0], t, out=t)
            ops.add(t, dv[2], out=dv[4])
            ops.multiply(t, self.minus_four, out=t)
            ops.subtract(t, dv[2], out=t)
            ops.subtract(t, dv[0], out=out[2])
            ops.multiply(dv[0], self.four, out=out[0])
            ops.subtract(dv[5], dv[1], out=dv[1])
            ops.add(dv[3], dv[3], out=dv[3])
            ops.multiply(dv[1], self.four, out=t)
            ops.subtract(t, dv[3], out=out[1])
            ops.subtract(dv[3], dv[1], out=dv[3])
            ops.multiply(dv[5], self.four, out=t)
            ops.subtract(dv[3], t, out=out[3])
