"""What CuPy does not do inside a graph, done otherwise: matrix products, and reductions along the last axes."""

from math import prod
from typing import Any

import numpy as np

from scratchnet.backend.cublas import Cublas
from scratchnet.backend.cuda import REAL, WARP, Kernel
from scratchnet.backend.ops import Ops
from scratchnet.backend.program import run


class GpuOps(Ops):
    """Recorded operations of CuPy, but products by our handle and sums, maxima and argmaxima of rows by our kernel.

    CuPy's own, where the values of a row lie together, ask for memory even if the result has a place.
    """

    special = "cupyx.scipy.special"

    def __init__(self, xp: Any, cublas: Cublas, cuda: Any) -> None:
        super().__init__(xp)
        self.cublas, self.cuda = cublas, cuda

    def matmul(self, a: Any, b: Any, out: Any) -> None:
        run(self.cublas.product, a, b, out)

    def _reduce(self, name: str, a: Any, axis: int | tuple[int, ...], out: Any) -> None:
        axes = sorted(at % a.ndim for at in ((axis,) if isinstance(axis, int) else axis))
        of_rows = axes == list(range(a.ndim))[-len(axes) :] and a.flags.c_contiguous and out.flags.c_contiguous
        wanted = np.int64 if name == "argmax" else a.dtype
        if not (of_rows and a.size and str(a.dtype) in REAL and out.dtype == wanted):
            super()._reduce(name, a, axis, out)
            return
        columns = prod(a.shape[axes[0] :])
        kernel = Kernel(self, "reduce.cu", f"row_{name}", a.dtype)
        kernel(a.size // columns * WARP, a, out, np.int32(columns))
