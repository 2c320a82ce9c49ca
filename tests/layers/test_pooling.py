"""Max, average and global average pooling against the loops that define them."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given

from scratchnet.layers import AveragePooling2D, GlobalAveragePooling2D, MaxPooling2D
from tests.reference import reference
from tests.reference.checks import TOLERANCE, assert_close
from tests.reference.strategies import Pooling, poolings

DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])


def case(size: tuple[int, int], pool_size: tuple[int, int], strides: tuple[int, int], padding: str) -> Pooling:
    return Pooling(batch=2, size=size, channels=2, pool_size=pool_size, strides=strides, padding=padding, seed=1)


EXAMPLES = [
    case((1, 1), (1, 1), (1, 1), "valid"),
    case((2, 3), (4, 4), (1, 1), "same"),  # windows larger than the input
    case((7, 7), (3, 3), (2, 2), "valid"),  # overlapping windows
    case((7, 9), (2, 2), (3, 4), "same"),  # gaps between windows
    case((5, 5), (2, 2), (2, 2), "valid"),  # a last row and column that no window sees
]


def run(layer: Any, drawn: Pooling, x: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    output_shape = layer.build(drawn.input_shape, dtype=dtype)
    dy = np.random.default_rng(drawn.seed).normal(size=(drawn.batch, *output_shape)).astype(dtype)
    y, dx = layer.forward(x, training=True), layer.backward(dy)
    assert y.dtype == dx.dtype == dtype
    return y, dy, dx


def draw_values(drawn: Pooling, dtype: str) -> np.ndarray:
    return np.random.default_rng(drawn.seed).normal(size=(drawn.batch, *drawn.input_shape)).astype(dtype)


@DTYPES
@given(drawn=poolings())
@example(drawn=EXAMPLES[0])
@example(drawn=EXAMPLES[1])
@example(drawn=EXAMPLES[2])
@example(drawn=EXAMPLES[3])
@example(drawn=EXAMPLES[4])
def test_max(dtype: str, drawn: Pooling) -> None:
    options, x = (drawn.pool_size, drawn.strides, drawn.padding), draw_values(drawn, dtype)
    y, dy, dx = run(MaxPooling2D(*options), drawn, x, dtype)
    assert np.array_equal(y, reference.max_pooling2d(x, *options))
    assert_close(dx, reference.max_pooling2d_backward(x, dy, *options), TOLERANCE[dtype])


@DTYPES
@given(drawn=poolings())
@example(drawn=EXAMPLES[1])
@example(drawn=EXAMPLES[2])
def test_max_gives_ties_to_the_first(dtype: str, drawn: Pooling) -> None:
    options = drawn.pool_size, drawn.strides, drawn.padding
    x = np.random.default_rng(drawn.seed).integers(-2, 1, size=(drawn.batch, *drawn.input_shape)).astype(dtype)
    y, dy, dx = run(MaxPooling2D(*options), drawn, x, dtype)
    assert np.array_equal(y, reference.max_pooling2d(x, *options))
    assert_close(dx, reference.max_pooling2d_backward(x, dy, *options), TOLERANCE[dtype])


@DTYPES
@given(drawn=poolings())
@example(drawn=EXAMPLES[0])
@example(drawn=EXAMPLES[1])
@example(drawn=EXAMPLES[2])
@example(drawn=EXAMPLES[3])
@example(drawn=EXAMPLES[4])
def test_average(dtype: str, drawn: Pooling) -> None:
    options, x = (drawn.pool_size, drawn.strides, drawn.padding), draw_values(drawn, dtype)
    y, dy, dx = run(AveragePooling2D(*options), drawn, x, dtype)
    assert_close(y, reference.average_pooling2d(x, *options), TOLERANCE[dtype])
    assert_close(dx, reference.average_pooling2d_backward(x, dy, *options), TOLERANCE[dtype])


@DTYPES
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 1, 1, 1), (3, 4, 1, 2)])
def test_global_average(dtype: str, shape: tuple[int, ...]) -> None:
    """Is average pooling with one window as large as the image."""
    rng = np.random.default_rng(1)
    x, dy = rng.normal(size=shape).astype(dtype), rng.normal(size=(shape[0], shape[3])).astype(dtype)
    layer = GlobalAveragePooling2D()
    assert layer.build(shape[1:], dtype=dtype) == (shape[3],)
    window = shape[1:3]
    assert_close(layer.forward(x), reference.average_pooling2d(x, window, 1)[:, 0, 0], TOLERANCE[dtype])
    dx = reference.average_pooling2d_backward(x, dy[:, None, None], window, 1)
    assert_close(layer.backward(dy), dx, TOLERANCE[dtype])


@pytest.mark.parametrize("pooling", [MaxPooling2D, AveragePooling2D])
def test_defaults_are_windows_of_two_side_by_side(pooling: Any) -> None:
    x = np.random.default_rng(1).normal(size=(2, 5, 4, 3))
    assert np.array_equal(pooling().forward(x), pooling((2, 2), (2, 2), "valid").forward(x))
    assert np.array_equal(pooling(3).forward(x), pooling((3, 3), (3, 3), "valid").forward(x))
    assert pooling((1, 2)).build((5, 4, 3)) == (5, 2, 3)


@pytest.mark.parametrize("pooling", [MaxPooling2D, AveragePooling2D])
@pytest.mark.parametrize(
    "arguments",
    [
        {"pool_size": 0},
        {"pool_size": (2, -1)},
        {"pool_size": (2, 2, 2)},
        {"pool_size": 1.5},
        {"strides": 0},
        {"padding": "foo"},
    ],
)
def test_bad_arguments(pooling: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=r"(?i)pooling2d"):
        pooling(**arguments).build((8, 8, 1))


@pytest.mark.parametrize("pooling", [MaxPooling2D, AveragePooling2D])
def test_a_window_larger_than_the_input_needs_padding(pooling: Any) -> None:
    with pytest.raises(ValueError, match=r"pooling2d.*3.*2"):
        pooling(3).build((8, 2, 1))
    assert pooling(3, padding="same").build((8, 2, 1)) == (3, 1, 1)


def test_a_nan_is_the_maximum_and_its_window_keeps_its_gradient() -> None:
    """As in NumPy and PyTorch; where in the window it goes is nobody's matter, but it is not lost."""
    x = np.arange(16.0).reshape(1, 4, 4, 1)
    x[0, 1, 0, 0] = np.nan
    layer = MaxPooling2D(2)
    assert np.array_equal(layer.forward(x).ravel(), [np.nan, 7, 13, 15], equal_nan=True)
    dx = layer.backward(np.array([2.0, 3, 5, 7]).reshape(1, 2, 2, 1))
    assert dx[0, :2, :2].sum() == 2
    assert dx.sum() == 17
