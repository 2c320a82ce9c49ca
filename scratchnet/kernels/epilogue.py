"""What follows a convolution, done on one block of its output while the block is still in cache."""

from scratchnet.backend import Array, Memory, view

Piece = tuple[tuple[slice, ...], Array]  # where in the block, and the part of the activation that belongs there


class Epilogue:
    """Optional 2x2 max pooling, bias and optional ReLU of a block of shape (rows, columns, run).

    A run is what lies together in memory: (tiles *) images * channels. Bias and ReLU are monotone, so pooling may come
    first and leave them a quarter of the work. Of equal values in a window the first is the maximum.
    """

    def __init__(
        self, rows: int, columns: int, run: int, images: int, channels: int, relu: bool, pool: bool, memory: Memory
    ) -> None:
        self.block, self.images, self.channels = (rows, columns, run), images, channels
        self.relu, self.pool, self.memory, self.ops = relu, pool, memory, memory.device.ops
        if pool:
            self.right = memory.buffer(rows, columns // 2, run, dtype=bool)
            self.below = memory.buffer(rows // 2, columns // 2, run, dtype=bool)
            rows, columns = rows // 2, columns // 2
        self.pooled = rows, columns, run
        self.positive = memory.buffer(rows, columns, run, dtype=bool) if relu else None
        self.ones = memory.buffer(1, rows * columns * run // channels)
        self.ones.fill(1)
        self.zero = memory.constant(0)
        self.zeros = memory.buffer(images, channels)  # with which maximum is faster than with the constant
        self.bias = memory.buffer(images, channels)

    def forward(self, block: Array, bias: Array | None, pieces: list[Piece]) -> None:
        """Finish `block` and write it where it belongs; its axes there are (row, column, ..., image, channel)."""
        ops = self.ops
        with self.memory.scratch() as take:
            if self.pool:
                rows, columns, run = self.block
                wide, pooled = take(rows, columns // 2, run), take(*self.pooled)
                ops.maximum(block[:, 0::2], block[:, 1::2], out=wide)
                ops.greater(block[:, 1::2], block[:, 0::2], out=self.right)
                ops.maximum(wide[0::2], wide[1::2], out=pooled)
                ops.greater(wide[1::2], wide[0::2], out=self.below)
                block = pooled
            if bias is not None:
                ops.copy(bias, out=self.bias)  # once for each image: long runs are what ufuncs are fast at
                by_image = view(block, *self.pooled[:2], -1, self.images, self.channels)
                ops.add(by_image, self.bias, out=by_image)
            if self.relu:
                ops.greater(block, self.zero, out=self.positive)
            for place, y in pieces:
                part = view(block, *self.pooled[:2], -1, self.images, self.channels)[place]
                if self.relu:
                    ops.maximum(part, self.zeros, out=y)
                else:
                    ops.copy(part, out=y)

    def backward(self, pieces: list[Piece], dblock: Array, dbias: Array | None) -> None:
        """Gradient of the block into `dblock`; that of the bias is added to `dbias`.

        Where no piece covers the block (a tile that reaches over the edge of the image), the gradient is zero.
        """
        ops = self.ops
        with self.memory.scratch() as take:
            pooled = take(*self.pooled) if self.pool else dblock
            by_image = view(pooled, *self.pooled[:2], -1, self.images, self.channels)
            if sum(dy.size for _, dy in pieces) < pooled.size:
                ops.fill(0, out=pooled)
            for place, dy in pieces:
                if self.relu:
                    positive = view(self.positive, *by_image.shape)[place]
                    ops.multiply(dy, positive, out=by_image[place])
                else:
                    ops.copy(dy, out=by_image[place])
            if dbias is not None:
                part = take(1, self.channels)
                ops.matmul(self.ones, view(pooled, -1, self.channels), out=part)
                ops.add(dbias, part[0], out=dbias)
            if self.pool:
                rows, columns, run = self.block
                wide = take(rows, columns // 2, run)
                ops.multiply(pooled, self.below, out=wide[1::2])
                ops.subtract(pooled, wide[1::2], out=wide[0::2])
                ops.multiply(wide, self.right, out=dblock[:, 1::2])
                ops.subtract(wide, dblock[:, 1::2], out=dblock[:, 0::2])
