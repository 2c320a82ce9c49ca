"""Sums over the rows of a matrix, always in the same order."""

from scratchnet.backend import Array, Memory
from scratchnet.kernels.gpu.launch import THREADS, WARP, Kernel

SLAB = 64  # rows of a slab, at least
SLABS = 128  # at most: with a few tiles of columns, enough blocks for every multiprocessor


class ColumnSums:
    """out[c] = the sum of values[:, c] for values (rows, columns): slabs of rows side by side, then over the slabs."""

    def __init__(self, rows: int, columns: int, memory: Memory) -> None:
        self.rows, self.columns, self.memory = rows, columns, memory
        self.slabs = min(-(-rows // SLAB), SLABS)
        self.tiles = -(-columns // WARP)
        self.first, self.second = (
            Kernel(
                memory.device, "column_sums.cu", "column_sums", memory.dtype, ROWS=height, COLUMNS=columns, SLABS=slabs
            )
            for height, slabs in ((rows, self.slabs), (self.slabs, 1))
        )

    def __call__(self, values: Array, out: Array) -> None:
        if self.slabs == 1:
            self.first(self.tiles * THREADS, values, out)
            return
        with self.memory.scratch() as take:
            part = take(self.slabs, self.columns)
            self.first(self.slabs * self.tiles * THREADS, values, part)
            self.second(self.tiles * THREADS, part, out)
