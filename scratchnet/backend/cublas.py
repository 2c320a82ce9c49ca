"""Matrix products by cuBLAS on a handle of our own: CuPy's cannot be used while a graph is captured.

Row-major matrices are the transposes of what cuBLAS, which counts columns first, takes them for: out = a b is asked for
as out' = b' a'.
"""

import ctypes
from typing import Any

from scratchnet.errors import DeviceError

WORKSPACE = 32 << 20  # bytes: what NVIDIA recommends for a Hopper; kept as long as any graph that uses it
DEFAULT_MATH, TF32_TENSOR_OP_MATH = 0, 3  # of cuBLAS: the second may round the factors of float32 products to 10 bits
GEMM = {"float32": ("cublasSgemm_v2", ctypes.c_float), "float64": ("cublasDgemm_v2", ctypes.c_double)}


class Cublas:
    """A handle on the library, bound to one stream, one workspace (a device address) and one precision."""

    def __init__(self, library: ctypes.CDLL, stream: int, workspace: int, tf32: bool) -> None:
        self.library, self.handle = library, ctypes.c_void_p()
        self._call("cublasCreate_v2", ctypes.byref(self.handle))
        self._call("cublasSetStream_v2", self.handle, ctypes.c_void_p(stream))  # this resets the workspace
        self._call("cublasSetWorkspace_v2", self.handle, ctypes.c_void_p(workspace), ctypes.c_size_t(WORKSPACE))
        self._call("cublasSetMathMode", self.handle, ctypes.c_int(TF32_TENSOR_OP_MATH if tf32 else DEFAULT_MATH))

    def product(self, a: Any, b: Any, out: Any) -> None:
        """out = a b for matrices of one dtype; the rows or the columns of a and b lie together, the rows of out."""
        if {len(a.shape), len(b.shape), len(out.shape)} != {2}:
            raise ValueError(f"products are of matrices, and these have the shapes {a.shape}, {b.shape}, {out.shape}")
        (a_flag, a_leading), (b_flag, b_leading), (out_flag, leading) = (_order(matrix) for matrix in (a, b, out))
        (rows, terms), columns, dtype = a.shape, b.shape[1], str(out.dtype)
        fits = b.shape[0] == terms and out.shape == (rows, columns) and a.dtype == b.dtype == out.dtype
        if not fits or out_flag:
            raise ValueError(f"no product of {a.shape} {a.dtype} and {b.shape} {b.dtype} into {out.shape} {dtype}")
        function, number = GEMM[dtype]  # it reads the factors of a b and of out, 1 and 0, before it returns
        self._call(
            function, self.handle, ctypes.c_int(b_flag), ctypes.c_int(a_flag),
            ctypes.c_int(columns), ctypes.c_int(rows), ctypes.c_int(terms),
            ctypes.byref(number(1)), ctypes.c_void_p(b.data.ptr), ctypes.c_int(b_leading),
            ctypes.c_void_p(a.data.ptr), ctypes.c_int(a_leading),
            ctypes.byref(number(0)), ctypes.c_void_p(out.data.ptr), ctypes.c_int(leading),
        )  # fmt: skip

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self.library, name)(*arguments)
        if status:
            raise DeviceError(f"cuBLAS answered {name} with status {status}: is the GPU's memory exhausted?")


def _order(matrix: Any) -> tuple[int, int]:
    """Whether a matrix's columns lie together (1) or its rows (0), and how far apart those lie."""
    sizes, strides = matrix.shape, tuple(stride // matrix.itemsize for stride in matrix.strides)
    for flag, (count, length), (apart, step) in ((0, sizes, strides), (1, sizes[::-1], strides[::-1])):
        distance = apart if count > 1 else length  # a single row or column has no next one
        if (step == 1 or length == 1) and distance >= length:
            return flag, distance
    raise ValueError(f"neither the rows nor the columns of a matrix with strides {matrix.strides} lie together")
