"""Matrix products by cuBLAS on a handle of our own: CuPy's cannot be used while a graph is captured.

Row-major matrices are the transposes of what cuBLAS, which counts columns first, takes them for: out = a b is asked for
as out' = b' a'.
"""

import ctypes
from typing import Any

from scratchnet.errors import DeviceError

WORKSPACE = 32 << 20  # bytes: what NVIDIA recommends for a Hopper; kept as long as any graph that uses it
TF32 = {False: 0, True: 3}  # CUBLAS_DEFAULT_MATH, CUBLAS_TF32_TENSOR_OP_MATH
GEMM = {"float32": ("cublasSgemm_v2", ctypes.c_float), "float64": ("cublasDgemm_v2", ctypes.c_double)}


class Cublas:
    """A handle on the library, bound to one stream and one workspace (a device address)."""

    def __init__(self, library: ctypes.CDLL, stream: int, workspace: int) -> None:
        self.library, self.handle = library, ctypes.c_void_p()
        self._call("cublasCreate_v2", ctypes.byref(self.handle))
        self._call("cublasSetStream_v2", self.handle, ctypes.c_void_p(stream))  # this resets the workspace
        self._call("cublasSetWorkspace_v2", self.handle, ctypes.c_void_p(workspace), ctypes.c_size_t(WORKSPACE))
        # alpha and beta are read when a product is launched; keep them where they are
        self.one = {name: kind(1) for name, (_, kind) in GEMM.items()}
        self.zero = {name: kind(0) for name, (_, kind) in GEMM.items()}

    def use_tf32(self, use: bool) -> None:
        """Whether float32 products may round their factors to TF32's 10 bits."""
        self._call("cublasSetMathMode", self.handle, ctypes.c_int(TF32[use]))

    def product(self, a: Any, b: Any, out: Any) -> None:
        """out = a b for matrices of one dtype; the rows or the columns of a and b lie together, the rows of out."""
        dtype = str(out.dtype)
        if {len(a.shape), len(b.shape), len(out.shape)} != {2}:
            raise ValueError(f"products are of matrices, and these have the shapes {a.shape}, {b.shape}, {out.shape}")
        (b_flag, b_leading), (a_flag, a_leading), (out_flag, leading) = (_order(matrix) for matrix in (b, a, out))
        if out_flag or not a.dtype == b.dtype == out.dtype or (*a.shape, b.shape[1]) != (*out.shape[:1], *b.shape):
            raise ValueError(f"no product of {a.shape} {a.dtype} and {b.shape} {b.dtype} into {out.shape} {dtype}")
        sizes = (ctypes.c_int(size) for size in (out.shape[1], out.shape[0], a.shape[1]))
        self._call(
            GEMM[dtype][0], self.handle, ctypes.c_int(b_flag), ctypes.c_int(a_flag), *sizes,
            ctypes.byref(self.one[dtype]), ctypes.c_void_p(b.data.ptr), ctypes.c_int(b_leading),
            ctypes.c_void_p(a.data.ptr), ctypes.c_int(a_leading),
            ctypes.byref(self.zero[dtype]), ctypes.c_void_p(out.data.ptr), ctypes.c_int(leading),
        )  # fmt: skip

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self.library, name)(*arguments)
        if status:
            raise DeviceError(f"cuBLAS answered {name} with status {status}: is the GPU's memory exhausted?")


def _order(matrix: Any) -> tuple[int, int]:
    """Whether a matrix's columns lie together (1) or its rows (0), and how far apart those lie."""
    (rows, columns), (down, across) = matrix.shape, (stride // matrix.itemsize for stride in matrix.strides)
    by_rows, by_columns = _distance(rows, columns, down, across), _distance(columns, rows, across, down)
    if not by_rows and not by_columns:
        raise ValueError(f"neither the rows nor the columns of a matrix with strides {matrix.strides} lie together")
    return (0, by_rows) if by_rows else (1, by_columns)


def _distance(count: int, length: int, apart: int, step: int) -> int:
    """The distance of `count` lines of `length` numbers `step` from each other; 0 if the lines do not lie together."""
    distance = apart if count > 1 else length  # of a single line it means nothing
    together = step == 1 or length == 1
    return distance if together and distance >= length else 0
