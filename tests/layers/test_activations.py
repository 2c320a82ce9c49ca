"""ReLU and Softmax."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchnet.layers import ReLU, Softmax
from tests.reference import reference
from tests.reference.checks import TOLERANCE, assert_close
from tests.reference.strategies import generators

DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])
FEATURES = st.tuples(st.integers(1, 4), st.integers(1, 7))
IMAGES = st.tuples(*[st.integers(1, 4)] * 4)


@DTYPES
@given(shape=FEATURES | IMAGES, rng=generators())
def test_relu(dtype: str, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    x, dy = (rng.integers(-3, 4, size=shape) * rng.random(shape)).astype(dtype), rng.normal(size=shape).astype(dtype)
    layer = ReLU()
    y = layer.forward(x, training=True)
    dx = layer.backward(dy)
    assert y.dtype == dx.dtype == dtype
    assert np.array_equal(y, reference.relu(x))
    assert np.array_equal(dx, reference.relu_backward(x, dy))


@DTYPES
def test_relu_has_no_slope_at_zero(dtype: str) -> None:
    tiny = np.finfo(dtype).tiny
    layer = ReLU()
    y = layer.forward(np.array([[0.0, -0.0, tiny, -tiny, np.inf, -np.inf]], dtype))
    assert y.tolist() == [[0, 0, tiny, 0, np.inf, 0]]
    assert layer.backward(np.ones((1, 6), dtype)).tolist() == [[0, 0, 1, 0, 1, 0]]


@DTYPES
@given(shape=FEATURES, scale=st.sampled_from([1, 30, 1000]), rng=generators())
def test_softmax(dtype: str, shape: tuple[int, ...], scale: float, rng: np.random.Generator) -> None:
    x, dy = (scale * rng.normal(size=shape)).astype(dtype), rng.normal(size=shape).astype(dtype)
    layer = Softmax()
    y = layer.forward(x, training=True)
    dx = layer.backward(dy)
    # What rounding does to x, exp turns into a relative error: |x| ulps.
    tolerance = TOLERANCE[dtype] * max(1, scale / 10)
    assert y.dtype == dx.dtype == dtype
    assert_close(y, reference.softmax(x), tolerance)
    assert_close(dx, reference.softmax_backward(x, dy), tolerance)
    assert_close(np.sum(y, axis=-1), np.ones(shape[:-1]), 10 * np.finfo(dtype).eps)


@DTYPES
def test_softmax_of_extreme_values(dtype: str) -> None:
    layer = Softmax()
    x = np.array([[1e4, -1e4, 1e4, 0], [-1e4, -1e4, -1e4, -1e4], [1e38, -1e38, 0, 1]], dtype)
    y = layer.forward(x)
    assert y.tolist() == [[0.5, 0, 0.5, 0], [0.25, 0.25, 0.25, 0.25], [1, 0, 0, 0]]
    assert np.all(np.isfinite(layer.backward(np.ones_like(x))))


def test_softmax_of_one_class_is_one_and_has_no_gradient() -> None:
    layer = Softmax()
    assert layer.forward(np.array([[-1e4], [3.0]])).tolist() == [[1], [1]]
    assert layer.backward(np.array([[2.0], [-7.0]])).tolist() == [[0], [0]]
