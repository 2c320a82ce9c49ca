"""Products in rows by a library that counts columns first: a stand-in for cuBLAS that does what its manual says."""

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchnet.backend.cublas import WORKSPACE, Cublas
from scratchnet.errors import DeviceError


class Library:
    """cublas<t>gemm of the manual: C = alpha op(A) op(B) + beta C, column by column with leading dimensions."""

    def __init__(self) -> None:
        self.log: list[tuple[str, Any]] = []
        self.status = 0

    def cublasCreate_v2(self, handle: Any) -> int:
        return self.status

    def cublasSetStream_v2(self, handle: Any, stream: Any) -> int:
        self.log.append(("stream", stream.value))
        return 0

    def cublasSetWorkspace_v2(self, handle: Any, address: Any, size: Any) -> int:
        self.log.append(("workspace", (address.value, size.value)))
        return 0

    def cublasSetMathMode(self, handle: Any, mode: Any) -> int:
        self.log.append(("mode", mode.value))
        return 0

    def cublasSgemm_v2(self, *arguments: Any) -> int:
        return self._gemm(np.float32, *arguments)

    def cublasDgemm_v2(self, *arguments: Any) -> int:
        return self._gemm(np.float64, *arguments)

    def cublasSgemmStridedBatched(self, *arguments: Any) -> int:
        return self._batched(self.cublasSgemm_v2, 4, *arguments)

    def cublasDgemmStridedBatched(self, *arguments: Any) -> int:
        return self._batched(self.cublasDgemm_v2, 8, *arguments)

    def _batched(self, gemm: Any, size: int, *arguments: Any) -> int:
        """The manual's order: each matrix is followed by its leading dimension and its stride, a `long long`."""
        *alone, a, lda, stride_a, b, ldb, stride_b, beta, c, ldc, stride_c, count = arguments
        assert all(type(stride) is ctypes.c_longlong for stride in (stride_a, stride_b, stride_c))
        assert all(type(number) is ctypes.c_int for number in (*alone[1:6], lda, ldb, ldc, count))
        self.log.append(("batch", count.value))
        for i in range(count.value):
            at = [
                ctypes.c_void_p(x.value + i * s.value * size) for x, s in ((a, stride_a), (b, stride_b), (c, stride_c))
            ]
            gemm(*alone, at[0], lda, at[1], ldb, beta, at[2], ldc)
        return self.status

    def _gemm(self, dtype: Any, handle: Any, *arguments: Any) -> int:
        values = [argument.value for argument in arguments if hasattr(argument, "value")]
        (alpha, beta), (flag_a, flag_b, m, n, k, a, lda, b, ldb, c, ldc) = (
            [argument._obj.value for argument in arguments if not hasattr(argument, "value")], values
        )  # fmt: skip
        assert (alpha, beta) == (1, 0)

        def matrix(address: int, rows: int, columns: int, leading: int) -> np.ndarray:
            assert leading >= max(rows, 1)
            count = leading * (columns - 1) + rows
            kind = ctypes.c_float if dtype is np.float32 else ctypes.c_double
            flat = np.ctypeslib.as_array((kind * count).from_address(address))
            return np.lib.stride_tricks.as_strided(flat, (rows, columns), (flat.itemsize, leading * flat.itemsize))

        a_matrix = matrix(a, k, m, lda).T if flag_a else matrix(a, m, k, lda)
        b_matrix = matrix(b, n, k, ldb).T if flag_b else matrix(b, k, n, ldb)
        matrix(c, m, n, ldc)[...] = a_matrix @ b_matrix
        return self.status


class Matrix(SimpleNamespace):
    """What the products ask of a CuPy array."""

    @classmethod
    def of(cls, array: np.ndarray) -> "Matrix":
        return cls(
            array=array, shape=array.shape, strides=array.strides, itemsize=array.itemsize, dtype=array.dtype,
            data=SimpleNamespace(ptr=array.ctypes.data),
        )  # fmt: skip


def cublas(library: Library, tf32: bool = False) -> Cublas:
    return Cublas(library, 11, 22, tf32)  # type: ignore[arg-type]


def laid_out(array: np.ndarray, order: str, wider: bool) -> np.ndarray:
    """The same values with rows (C) or columns (F) together, perhaps as a part of a wider matrix."""
    array = array.T if order == "F" else array
    whole = np.full((len(array), array.shape[1] + 3 * wider), np.nan, array.dtype)
    part = whole[:, : array.shape[1]]
    part[...] = array
    return part.T if order == "F" else part


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(
    sizes=st.tuples(*[st.integers(1, 5)] * 3),
    orders=st.tuples(*[st.sampled_from("CF")] * 2),
    wider=st.tuples(*[st.booleans()] * 3),
)
def test_product_is_numpys(dtype: str, sizes: Any, orders: Any, wider: Any) -> None:
    source, (rows, columns, inner) = np.random.default_rng(0), sizes
    a = laid_out(source.standard_normal((rows, inner)).astype(dtype), orders[0], wider[0])
    b = laid_out(source.standard_normal((inner, columns)).astype(dtype), orders[1], wider[1])
    out = laid_out(np.zeros((rows, columns), dtype), "C", wider[2])
    cublas(Library()).product(Matrix.of(a), Matrix.of(b), Matrix.of(out))
    np.testing.assert_allclose(out, a @ b, rtol=1e-5 if dtype == "float32" else 1e-12)


def stacked(array: np.ndarray, order: list[int], rows_first: bool) -> np.ndarray:
    """The same values with the axes of the stack in another order in memory, perhaps inside of the rows' axis."""
    axes = [array.ndim - 2, *order] if rows_first else [*order, array.ndim - 2]
    axes.append(array.ndim - 1)
    return np.ascontiguousarray(array.transpose(axes)).transpose(np.argsort(axes))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(data=st.data())
def test_products_of_stacks_are_numpys(dtype: str, data: st.DataObject) -> None:
    """Factors may be the same along any axis of the stack, and the matrices of a stack may lie one inside the other."""
    source, stack = np.random.default_rng(0), data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3), "stack")
    rows, columns, terms = data.draw(st.tuples(*[st.integers(1, 5)] * 3), "rows, columns, terms")

    def factor(*sizes: int) -> np.ndarray:
        own = [data.draw(st.sampled_from((1, size)), "axis") for size in stack[data.draw(st.integers(0, 1), "axes") :]]
        order, rows_first = data.draw(st.permutations(range(len(own))), "order"), data.draw(st.booleans(), "rows first")
        array = stacked(source.standard_normal((*own, *sizes)).astype(dtype), order, rows_first)
        return array if data.draw(st.booleans(), "rows") else np.ascontiguousarray(array.mT).mT

    a, b, library = factor(rows, terms), factor(terms, columns), Library()
    order, rows_first = data.draw(st.permutations(range(len(stack))), "order"), data.draw(st.booleans(), "rows first")
    out = stacked(np.full((*stack, rows, columns), np.nan, dtype), order, rows_first)
    cublas(library).product(Matrix.of(a), Matrix.of(b), Matrix.of(out))
    tolerance = 1e-4 if dtype == "float32" else 1e-11
    np.testing.assert_allclose(out, np.broadcast_to(a @ b, out.shape), rtol=tolerance, atol=tolerance)
    calls = [entry for entry in library.log if entry[0] == "batch"]
    assert calls == [("batch", max(stack))] * (np.prod(stack) // max(stack)), "not the longest axis is done at once"


def test_the_workspace_is_set_after_the_stream() -> None:
    for tf32, mode in ((True, 3), (False, 0)):
        library = Library()
        cublas(library, tf32)
        assert library.log == [("stream", 11), ("workspace", (22, WORKSPACE)), ("mode", mode)]


def test_what_cublas_cannot_do_is_refused() -> None:
    handle, square = cublas(Library()), np.zeros((4, 4))
    for a, b, out in (
        (square, square[:3], square),
        (square, square, square.T[:, ::-1]),
        (square, square.astype("float32"), square),
        (np.zeros((4, 8))[:, ::2], square, square),
        (np.zeros((3, 4, 4)), square, np.zeros((2, 4, 4))),
        (np.zeros((2, 4, 4)), square, square),
        (square, square, np.broadcast_to(square, (2, 4, 4))),
    ):
        with pytest.raises(ValueError, match=r"no product|lie together"):
            handle.product(*map(Matrix.of, (a, b, out)))


def test_a_status_becomes_one_sentence() -> None:
    library = Library()
    library.status = 3
    with pytest.raises(DeviceError, match=r"cublasCreate_v2 with status 3"):
        cublas(library)
