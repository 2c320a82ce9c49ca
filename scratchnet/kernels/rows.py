"""Blocks of a large parameter by index, such as the weights of each image's own class, and gradients for no others."""

from typing import Any

import numpy as np

from scratchnet.backend import Array, Device, Memory, StepCounter, run


class Blocks:
    """Of a parameter (blocks, ...) those that the rows of a batch name, and its `gradient`, which is 0 elsewhere.

    A step neither reads nor writes the others: what the step before left in the gradient is set to 0, and no more. All
    who compute this gradient share one object of this class.
    """

    def __init__(self, gradient: Array, clock: StepCounter, device: Device) -> None:
        self.gradient, self.clock, self.device = gradient, clock, device
        self.left: Any = slice(None)  # what may not be 0

    def products(self, parameter: Array, index: Array, x: Array, out: Array, memory: Memory) -> None:
        """out[n] = parameter[index[n]] x[n], for a parameter (blocks, size, terms)."""
        run(self._products, parameter, index, x, out)

    def products_back(self, parameter: Array, index: Array, x: Array, dout: Array, dx: Array, memory: Memory) -> None:
        """dx[n] = dout[n] parameter[index[n]], and the gradient."""
        run(self._products_back, parameter, index, x, dout, dx)

    def add(self, index: Array, rows: Array) -> None:
        """The gradient from its parts: rows[i] belongs to block index[i], and those of one block are summed."""
        run(self._add, index, rows)

    # How many rows share a block is new in each step, so these make small arrays.

    def _products(self, parameter: Array, index: Array, x: Array, out: Array) -> None:
        for block in np.unique(index):
            rows = index == block
            out[rows] = x[rows] @ parameter[block].T

    def _products_back(self, parameter: Array, index: Array, x: Array, dout: Array, dx: Array) -> None:
        blocks = np.unique(index)
        self._clear(blocks)
        for block in blocks:
            rows = index == block
            dx[rows] = dout[rows] @ parameter[block]
            np.matmul(dout[rows].T, x[rows], out=self.gradient[block])

    def _add(self, index: Array, rows: Array) -> None:
        order = np.argsort(index, kind="stable")
        blocks, starts = np.unique(index[order], return_index=True)
        self._clear(blocks)
        self.gradient[blocks] = np.add.reduceat(rows[order], starts)

    def _clear(self, blocks: np.ndarray) -> None:
        self.gradient[self.left] = 0
        # The groups of a step are added up in this very array, so what each of them wrote is there at the end.
        self.left = np.union1d(self.left, blocks) if self.clock.row else blocks
