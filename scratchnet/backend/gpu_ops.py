"""What CuPy does not do inside a graph, done otherwise: matrix products, and reductions along the last axes."""

from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from scratchnet.backend.cublas import Cublas
from scratchnet.backend.cuda import Cuda, Launch
from scratchnet.backend.ops import Ops
from scratchnet.backend.program import run

WARPS = 8  # of a block
REAL = {"float32": "float", "float64": "double"}
SOURCE = Path(__file__).with_name("reduce.cu")


class GpuOps(Ops):
    """Recorded operations of CuPy, but products by our handle and sums, maxima and argmaxima of rows by our kernel.

    CuPy's own, where the values of a row lie together, ask for memory even if the result has a place.
    """

    def __init__(self, xp: Any, cublas: Cublas, cuda: Cuda) -> None:
        super().__init__(xp)
        self.cublas, self.cuda = cublas, cuda
        self._kernels: dict[tuple[str, str], Launch] = {}

    def matmul(self, a: Any, b: Any, out: Any) -> None:
        run(self.cublas.product, a, b, out)

    def sum(self, a: Any, axis: int | tuple[int, ...], out: Any) -> None:
        if not self._of_rows("row_sum", a, axis, out):
            super().sum(a, axis, out)

    def max(self, a: Any, axis: int, out: Any) -> None:
        if not self._of_rows("row_max", a, axis, out):
            super().max(a, axis, out)

    def argmax(self, a: Any, axis: int, out: Any) -> None:
        if not self._of_rows("row_argmax", a, axis, out):
            super().argmax(a, axis, out)

    def _of_rows(self, name: str, a: Any, axis: int | tuple[int, ...], out: Any) -> bool:
        """Whether this is a case for our kernel, which then has been run."""
        axes = sorted(at % a.ndim for at in ((axis,) if isinstance(axis, int) else axis))
        together = a.flags.c_contiguous and out.flags.c_contiguous and axes == [*range(a.ndim)][-len(axes) :]
        wanted = np.int64 if name == "row_argmax" else a.dtype
        if not (together and a.size and str(a.dtype) in REAL and out.dtype == wanted):
            return False
        columns, real = prod(a.shape[axes[0] :]), REAL[str(a.dtype)]
        if (name, real) not in self._kernels:
            self._kernels[name, real] = self.cuda.kernel(SOURCE.read_text(encoding="utf-8"), name, {"real": real})
        rows = a.size // columns
        arguments = a, out, np.int32(rows), np.int32(columns)
        run(self._kernels[name, real], (-(-rows // WARPS),), (32 * WARPS,), arguments)
        return True
