"""What follows a convolution, done on one block of its output while the block is still in cache."""

from math import prod

from scratchnet.backend import Array, Memory, view
from scratchnet.kernels.geometry import Convolution

Piece = tuple[tuple[slice, ...], Array]  # where in the block, and the part of the activation that belongs there


class Epilogue:
    """Optional 2x2 max pooling, bias and optional ReLU of a `block` of shape (rows, columns, tiles, images, filters).

    That is how it lies in memory too. Bias and ReLU are monotone, so pooling may come first and leave them a quarter of
    the work. Of equal values in a window the first is the maximum.
    """

    def __init__(self, convolution: Convolution, memory: Memory, rows: int, columns: int, tiles: int = 1) -> None:
        images, filters = convolution.images, convolution.filters
        self.relu, self.pool, self.memory, self.ops = convolution.relu, convolution.pool, memory, memory.device.ops
        self.block = self.pooled = rows, columns, tiles, images, filters
        if self.pool:
            self.right = memory.buffer(rows, columns // 2, tiles, images, filters, dtype=bool)
            self.pooled = rows // 2, columns // 2, tiles, images, filters
            self.below = memory.buffer(*self.pooled, dtype=bool)
        if self.relu:
            self.positive = memory.buffer(*self.pooled, dtype=bool)
        self.ones = memory.buffer(1, prod(self.pooled[:-1]))
        self.ones.fill(1)
        self.zero = memory.constant(0)
        self.zeros = memory.buffer(images, filters)  # with which maximum is faster than with the constant
        self.bias = memory.buffer(images, filters)

    def forward(self, block: Array, bias: Array | None, pieces: list[Piece]) -> None:
        """Finish `block` and write it where it belongs."""
        ops = self.ops
        with self.memory.scratch() as take:
            if self.pool:
                wide, pooled = take(*self.right.shape), take(*self.pooled)
                ops.maximum(block[:, 0::2], block[:, 1::2], out=wide)
                ops.greater(block[:, 1::2], block[:, 0::2], out=self.right)
                ops.maximum(wide[0::2], wide[1::2], out=pooled)
                ops.greater(wide[1::2], wide[0::2], out=self.below)
                block = pooled
            if bias is not None:
                ops.copy(bias, out=self.bias)  # once for each image: long runs are what ufuncs are fast at
                ops.add(block, self.bias, out=block)
            if self.relu:
                ops.greater(block, self.zero, out=self.positive)
            for place, y in pieces:
                if self.relu:
                    ops.maximum(block[place], self.zeros, out=y)
                else:
                    ops.copy(block[place], out=y)

    def backward(self, pieces: list[Piece], dblock: Array, dbias: Array | None) -> None:
        """Gradient of the block into `dblock`; that of the bias is added to `dbias`.

        Where no piece covers the block (a tile that reaches over the edge of the image), the gradient is zero.
        """
        ops = self.ops
        with self.memory.scratch() as take:
            dpooled = take(*self.pooled) if self.pool else dblock
            if sum(dy.size for _, dy in pieces) < dpooled.size:
                ops.fill(0, out=dpooled)
            for place, dy in pieces:
                if self.relu:
                    ops.multiply(dy, self.positive[place], out=dpooled[place])
                else:
                    ops.copy(dy, out=dpooled[place])
            if dbias is not None:
                part = take(1, len(dbias))
                ops.matmul(self.ones, view(dpooled, -1, len(dbias)), out=part)
                ops.add(dbias, part[0], out=dbias)
            if self.pool:
                wide = take(*self.right.shape)
                ops.multiply(dpooled, self.below, out=wide[1::2])
                ops.subtract(dpooled, wide[1::2], out=wide[0::2])
                ops.multiply(wide, self.right, out=dblock[:, 1::2])
                ops.subtract(wide, dblock[:, 1::2], out=dblock[:, 0::2])
