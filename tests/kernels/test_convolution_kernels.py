"""Winograd and im2col against the plain loops, alone and with the fused epilogue."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchnet.backend import Array, Memory, get_device
from scratchnet.kernels.geometry import Convolution, Windows
from scratchnet.kernels.im2col import Im2col
from scratchnet.kernels.winograd import A, G, Transforms, Winograd
from tests.reference import reference

SAME = {"float64": 1e-12, "float32": 5e-6}  # relative L2


def distance(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(actual - expected) / max(np.linalg.norm(expected), 1e-30))


def by_loops(x: Array, kernel: Array, bias: Array, dy: Array, padding: str, relu: bool, pool: bool) -> list[Array]:
    """y, dx, dkernel, dbias of convolution, ReLU and 2x2 pooling from the reference."""
    geometry = ((1, 1), padding, (1, 1))
    y = reference.conv2d(x, kernel, bias, *geometry)
    positive = y > 0
    active = np.maximum(y, 0) if relu else y
    out = reference.max_pooling2d(active, (2, 2), (2, 2), "valid") if pool else active
    if pool:
        dy = reference.max_pooling2d_backward(active, dy, (2, 2), (2, 2), "valid")
    return [out, *reference.conv2d_backward(x, kernel, dy * positive if relu else dy, *geometry)]


def by_kernel(
    kind: Any, x: Array, kernel: Array, bias: Array, dy: Array, padding: Any, relu: bool, pool: bool, dtype: str
) -> list[Array]:
    memory = Memory(get_device("cpu"), dtype)
    n, filters = len(x), kernel.shape[-1]
    geometry = Windows(x.shape[1:], kernel.shape[:2], (1, 1), padding)
    work = kind(Convolution(n, x.shape[1:], filters, geometry, relu, pool), memory)
    kernel, bias = kernel.astype(dtype), bias.astype(dtype)
    y, buffer = memory.activation(n, dy.shape[1:]), memory.activation(n, dy.shape[1:])
    dkernel, dbias = np.full_like(kernel, np.nan), np.full_like(bias, np.nan)
    for _ in range(2):  # the second time on buffers that the first has left dirty
        y.fill(np.nan)
        work.x[...], buffer[...] = x, dy
        work.forward(kernel, bias, y)
        work.backward(kernel, buffer, dkernel, dbias)
    return [y, work.dx, dkernel, dbias]


def by_both(kind: Any, seed: int, shape: Any, filters: int, size: Any, padding: str, relu: bool, pool: bool) -> None:
    source = np.random.default_rng(seed)
    x, kernel = source.standard_normal(shape), source.standard_normal((*size, shape[-1], filters))
    bias = source.standard_normal(filters)
    outputs = Windows(shape[1:], size, (1, 1), padding).outputs
    dy = source.standard_normal((shape[0], *(o // 2 if pool else o for o in outputs), filters))
    expected = by_loops(x, kernel, bias, dy, padding, relu, pool)
    for dtype, tolerance in SAME.items():
        single = [a.astype(dtype).astype(np.float64) for a in (x, kernel, bias, dy)]
        wanted = expected if dtype == "float64" else by_loops(*single, padding, relu, pool)
        for actual, want in zip(by_kernel(kind, *single, padding, relu, pool, dtype), wanted, strict=True):
            assert distance(actual, want) < tolerance


@given(
    seed=st.integers(0, 1000),
    height=st.integers(3, 14),
    width=st.integers(3, 14),
    images=st.integers(1, 3),
    channels=st.integers(1, 4),
    filters=st.integers(1, 4),
    padding=st.sampled_from(["same", "valid"]),
    relu=st.booleans(),
    pool=st.booleans(),
)
def test_winograd_is_the_convolution(
    seed: int, height: int, width: int, images: int, channels: int, filters: int, padding: str, relu: bool, pool: bool
) -> None:
    shape, smallest = (images, height, width, channels), min(height, width) - (2 if padding == "valid" else 0)
    by_both(Winograd, seed, shape, filters, (3, 3), padding, relu, pool and relu and smallest >= 2)


@given(
    seed=st.integers(0, 1000),
    height=st.integers(4, 10),
    width=st.integers(4, 10),
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    channels=st.integers(1, 3),
    padding=st.sampled_from(["same", "valid"]),
    relu=st.booleans(),
    pool=st.booleans(),
)
def test_im2col_is_the_convolution(
    seed: int, height: int, width: int, size: Any, channels: int, padding: str, relu: bool, pool: bool
) -> None:
    outputs = Windows((height, width), size, (1, 1), padding).outputs
    by_both(Im2col, seed, (2, height, width, channels), 3, size, padding, relu, pool and relu and min(outputs) >= 2)


def test_im2col_in_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scratchnet.kernels.im2col.BLOCK", 4096)
    by_both(Im2col, 0, (2, 11, 9, 3), 4, (3, 3), "same", True, True)
    by_both(Im2col, 1, (2, 11, 9, 3), 4, (3, 2), "valid", False, False)


def test_without_input_gradient_the_others_are_the_same() -> None:
    source = np.random.default_rng(0)
    x, kernel, dy = (source.standard_normal(shape) for shape in ((2, 6, 6, 3), (3, 3, 3, 4), (2, 6, 6, 4)))
    geometry = Windows((6, 6, 3), (3, 3), (1, 1), "same")
    for kind in (Winograd, Im2col):
        found = []
        for input_gradient in (True, False):
            memory = Memory(get_device("cpu"), "float64")
            work = kind(Convolution(2, (6, 6, 3), 4, geometry, input_gradient=input_gradient), memory)
            y, dkernel = memory.activation(2, (6, 6, 4)), np.empty_like(kernel)
            work.x[...] = x
            work.forward(kernel, None, y)
            work.backward(kernel, dy, dkernel, None)
            found.append(dkernel)
        np.testing.assert_array_equal(*found)


def test_the_transforms_are_the_published_matrices() -> None:
    """Lavin and Gray 2016, section 4.3; the adjoint is the transpose of its transform."""
    data = np.array(
        [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
         [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]
    )  # fmt: skip
    transforms = Transforms(Memory(get_device("cpu"), "float64"))
    result = np.empty((6, 6))
    transforms.input(np.eye(6), result)
    np.testing.assert_array_equal(result, data)
    gradient = np.eye(6)
    transforms.input_adjoint(gradient, result[:4])
    np.testing.assert_array_equal(np.concatenate([result[:4], gradient[4:]]), data.T)
    # A convolution of length 4 with 3 taps, from the three matrices.
    d, g = np.arange(6.0) ** 2, np.array([1.0, -2.0, 5.0])
    np.testing.assert_allclose(A.T @ ((G @ g) * (data @ d)), np.correlate(d, g), rtol=1e-12)
