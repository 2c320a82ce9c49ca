"""Matrix products by cuBLAS on a handle of our own: CuPy's cannot be used while a graph is captured.

Row-major matrices are the transposes of what cuBLAS, which counts columns first, takes them for: out = a b is asked for
as out' = b' a'.
"""

import ctypes
from operator import mul
from typing import Any

import numpy as np

from scratchnet.errors import DeviceError

WORKSPACE = 32 << 20  # bytes: what NVIDIA recommends for a Hopper; kept as long as any graph that uses it
DEFAULT_MATH, TF32_TENSOR_OP_MATH = 0, 3  # of cuBLAS: the second may round the factors of float32 products to 10 bits
GEMM = {"float32": ("cublasSgemm", ctypes.c_float), "float64": ("cublasDgemm", ctypes.c_double)}


class Cublas:
    """A handle on the library, bound to one stream, one workspace (a device address) and one precision."""

    def __init__(self, library: ctypes.CDLL, stream: int, workspace: int, tf32: bool) -> None:
        self.library, self.handle = library, ctypes.c_void_p()
        self._call("cublasCreate_v2", ctypes.byref(self.handle))
        self._call("cublasSetStream_v2", self.handle, ctypes.c_void_p(stream))  # this resets the workspace
        self._call("cublasSetWorkspace_v2", self.handle, ctypes.c_void_p(workspace), ctypes.c_size_t(WORKSPACE))
        self._call("cublasSetMathMode", self.handle, ctypes.c_int(TF32_TENSOR_OP_MATH if tf32 else DEFAULT_MATH))

    def product(self, a: Any, b: Any, out: Any) -> None:
        """out = a b for matrices of one dtype, or stacks of them, along which a factor may be the same: axes of size 1.

        The rows or the columns of a and b lie together, the rows of out. The longest axis of a stack is done at once.
        """
        (a_flag, a_leading), (b_flag, b_leading), (out_flag, leading) = (_order(matrix) for matrix in (a, b, out))
        (*_, rows, terms), (*stack, _, columns), dtype = a.shape, out.shape, str(out.dtype)
        fits = b.shape[-2:] == (terms, columns) and out.shape[-2] == rows and a.dtype == b.dtype == out.dtype
        steps = [_steps(matrix, stack) for matrix in (b, a, out)]
        if not fits or out_flag or any(size > 1 and not step for size, step in zip(stack, steps[2], strict=True)):
            raise ValueError(f"no product of {a.shape} {a.dtype} and {b.shape} {b.dtype} into {out.shape} {dtype}")
        name, number = GEMM[dtype]
        longest = max(range(len(stack)), key=stack.__getitem__, default=0)
        sizes = [1 if axis == longest else size for axis, size in enumerate(stack)]
        for place in np.ndindex(*sizes):
            of_b, of_a, of_out = (
                (ctypes.c_void_p(matrix.data.ptr + sum(map(mul, place, step))), ctypes.c_int(apart),
                 *(ctypes.c_longlong(bytes_ // out.itemsize) for bytes_ in step[longest : longest + 1]))
                for matrix, step, apart in zip((b, a, out), steps, (b_leading, a_leading, leading), strict=True)
            )  # fmt: skip
            self._call(  # which reads the factors of a b and of out, 1 and 0, before it returns
                name + ("StridedBatched" if stack else "_v2"), self.handle, ctypes.c_int(b_flag), ctypes.c_int(a_flag),
                ctypes.c_int(columns), ctypes.c_int(rows), ctypes.c_int(terms),
                ctypes.byref(number(1)), *of_b, *of_a, ctypes.byref(number(0)), *of_out,
                *(ctypes.c_int(size) for size in stack[longest : longest + 1]),
            )  # fmt: skip

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self.library, name)(*arguments)
        if status:
            raise DeviceError(f"cuBLAS answered {name} with status {status}: is the GPU's memory exhausted?")


def _steps(matrix: Any, stack: list[int]) -> list[int]:
    """Bytes from one matrix of a stack to the next, along each axis: 0 where it is the same for all."""
    sizes, strides = matrix.shape[:-2], matrix.strides[:-2]
    missing = len(stack) - len(sizes)
    if missing < 0 or any(size not in (1, n) for size, n in zip(sizes, stack[missing:], strict=True)):
        raise ValueError(f"no product of a stack of {sizes} matrices into one of {tuple(stack)}")
    return [0] * missing + [stride if size > 1 else 0 for size, stride in zip(sizes, strides, strict=True)]


def _order(matrix: Any) -> tuple[int, int]:
    """Whether a matrix's columns lie together (1) or its rows (0), and how far apart those lie."""
    sizes, strides = matrix.shape[-2:], tuple(stride // matrix.itemsize for stride in matrix.strides[-2:])
    for flag, (count, length), (apart, step) in ((0, sizes, strides), (1, sizes[::-1], strides[::-1])):
        distance = apart if count > 1 else length  # a single row or column has no next one
        if (step == 1 or length == 1) and distance >= length:
            return flag, distance
    raise ValueError(f"neither the rows nor the columns of a matrix with strides {matrix.strides} lie together")
