"""Conv2D against the loops that define it."""

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import example, given

from scratchnet import Sequential
from scratchnet.kernels import im2col
from scratchnet.layers import Conv2D, MaxPooling2D, ReLU
from tests.reference import reference
from tests.reference.checks import TOLERANCE, assert_close, randomize
from tests.reference.strategies import Convolution, convolutions, wide_convolutions


def compare(case: Convolution, dtype: str, use_bias: bool = True) -> None:
    rng = np.random.default_rng(case.seed)
    layer = Conv2D(case.filters, case.kernel_size, case.strides, case.padding, case.dilation_rate, use_bias=use_bias)
    output_shape = layer.build(case.input_shape, dtype=dtype)
    randomize(layer, rng)
    x = rng.normal(size=(case.batch, *case.input_shape)).astype(dtype)
    dy = rng.normal(size=(case.batch, *output_shape)).astype(dtype)
    y, dx = layer.forward(x, training=True), layer.backward(dy)

    options = case.strides, case.padding, case.dilation_rate
    bias = layer.bias if use_bias else np.zeros(case.filters)
    expected_dx, expected_dkernel, expected_dbias = reference.conv2d_backward(x, layer.kernel, dy, *options)
    assert y.dtype == dx.dtype == layer.dkernel.dtype == dtype
    assert_close(y, reference.conv2d(x, layer.kernel, bias, *options), TOLERANCE[dtype])
    assert_close(dx, expected_dx, TOLERANCE[dtype])
    assert_close(layer.dkernel, expected_dkernel, TOLERANCE[dtype])
    if use_bias:
        assert_close(layer.dbias, expected_dbias, TOLERANCE[dtype])
    else:
        assert set(layer.parameters) == set(layer.gradients) == {"kernel"}


def case(size: tuple[int, int], kernel_size: tuple[int, int], padding: str, **changes: Any) -> Convolution:
    defaults: dict[str, Any] = {"batch": 2, "channels": 2, "filters": 3, "strides": (1, 1), "dilation_rate": (1, 1)}
    return Convolution(size=size, kernel_size=kernel_size, padding=padding, seed=1, **(defaults | changes))


@given(convolutions())
@example(case((1, 1), (1, 1), "valid", batch=1))
@example(case((2, 1), (4, 3), "same"))  # the kernel is larger than the input
@example(case((5, 6), (2, 4), "same"))  # an even kernel: more padding after than before
@example(case((1, 1), (2, 2), "same", dilation_rate=(3, 3)))  # all but one tap fall into the padding
@example(case((7, 9), (1, 1), "same", strides=(3, 2)))  # windows with gaps between them
@example(case((7, 8), (3, 2), "valid", strides=(2, 2), dilation_rate=(2, 3)))
def test_float64(drawn: Convolution) -> None:
    compare(drawn, "float64")


@given(convolutions())
def test_float32(drawn: Convolution) -> None:
    compare(drawn, "float32")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@given(drawn=wide_convolutions())
def test_wide(dtype: str, drawn: Convolution) -> None:
    compare(drawn, dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("size", [(8, 8), (10, 6), (13, 13), (16, 4)])
def test_shapes_of_the_recipes(size: tuple[int, int], padding: str, dtype: str) -> None:
    """Many channels and outputs that blocks of 4 x 4 do and do not divide."""
    compare(case(size, (3, 3), padding, channels=20, filters=4), dtype)


@given(convolutions())
def test_without_bias(drawn: Convolution) -> None:
    compare(drawn, "float64", use_bias=False)


@given(drawn=convolutions())
def test_in_many_blocks(drawn: Convolution) -> None:
    """Large inputs go through im2col block by block; with small blocks, small inputs do."""
    with patch.object(im2col, "BLOCK", 1000):
        compare(drawn, "float64")
        if drawn.strides == drawn.dilation_rate == (1, 1):
            compare_with_relu_and_pooling(drawn, 2, "float64")


@pytest.mark.parametrize("pool_size", [2, 3])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@given(drawn=wide_convolutions())
def test_followed_by_relu_and_pooling(pool_size: int, dtype: str, drawn: Convolution) -> None:
    """A network may do the three at once, which must not show."""
    compare_with_relu_and_pooling(drawn, pool_size, dtype)


def compare_with_relu_and_pooling(drawn: Convolution, pool_size: int, dtype: str) -> None:
    rng = np.random.default_rng(drawn.seed)
    x = rng.normal(size=(drawn.batch, *drawn.input_shape)).astype(dtype)
    layers = [
        Conv2D(drawn.filters, drawn.kernel_size, padding=drawn.padding),
        ReLU(),
        MaxPooling2D(pool_size, padding="same"),
    ]
    network = Sequential(layers)
    output_shape = network.build(drawn.input_shape, dtype=dtype)
    convolution = layers[0]
    randomize(convolution, rng)
    kernel, bias = convolution.kernel, convolution.bias
    dy = rng.normal(size=(drawn.batch, *output_shape)).astype(dtype)
    y, dx = network.forward(x, training=True), network.backward(dy)

    convolved = reference.conv2d(x, kernel, bias, 1, drawn.padding)
    rectified = reference.relu(convolved)
    assert_close(y, reference.max_pooling2d(rectified, pool_size, pool_size, "same"), TOLERANCE[dtype])
    slope = reference.max_pooling2d_backward(rectified, dy, pool_size, pool_size, "same")
    slope = reference.relu_backward(convolved, slope)
    expected_dx, expected_dkernel, expected_dbias = reference.conv2d_backward(x, kernel, slope, 1, drawn.padding)
    assert_close(dx, expected_dx, TOLERANCE[dtype])
    assert_close(convolution.dkernel, expected_dkernel, TOLERANCE[dtype])
    assert_close(convolution.dbias, expected_dbias, TOLERANCE[dtype])


def test_sizes_may_be_an_int() -> None:
    layer, pairs = Conv2D(2, 3, strides=2, dilation_rate=1), Conv2D(2, (3, 3), strides=(2, 2), dilation_rate=(1, 1))
    x = np.random.default_rng(0).normal(size=(1, 7, 7, 1))
    assert layer.build((7, 7, 1), dtype="float64") == pairs.build((7, 7, 1), dtype="float64") == (3, 3, 2)
    assert np.array_equal(layer.forward(x), pairs.forward(x))


def test_initial_values() -> None:
    """Glorot and Bengio 2010: uniform within sqrt(6 / (fan in + fan out)), fans counting the kernel's area."""
    layer = Conv2D(64, 3)
    layer.build((8, 8, 32), dtype="float64", seed=1)
    limit = np.sqrt(6 / (9 * 32 + 9 * 64))
    assert np.all(layer.bias == 0)
    assert layer.kernel.shape == (3, 3, 32, 64)
    assert 0.99 * limit < np.max(np.abs(layer.kernel)) <= limit
    assert abs(np.std(layer.kernel) / (limit / np.sqrt(3)) - 1) < 0.02
    assert abs(np.mean(layer.kernel)) < 0.02 * limit
    same, other = Conv2D(64, 3), Conv2D(64, 3)
    same.build((8, 8, 32), dtype="float64", seed=1)
    other.build((8, 8, 32), dtype="float64", seed=2)
    assert np.array_equal(layer.kernel, same.kernel)
    assert not np.any(layer.kernel == other.kernel)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"filters": 0}, ValueError),
        ({"filters": -1}, ValueError),
        ({"filters": 2.5}, (TypeError, ValueError)),
        ({"kernel_size": 0}, ValueError),
        ({"kernel_size": (3, 0)}, ValueError),
        ({"kernel_size": (3, 3, 3)}, ValueError),
        ({"kernel_size": "3"}, (TypeError, ValueError)),
        ({"strides": 0}, ValueError),
        ({"strides": (1, -1)}, ValueError),
        ({"dilation_rate": 0}, ValueError),
        ({"padding": "foo"}, ValueError),
        ({"kernel_initializer": "foo"}, ValueError),
        ({"bias_initializer": "foo"}, ValueError),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: Any) -> None:
    with pytest.raises(error, match=r"(?i)conv2d|initializer"):
        Conv2D(**({"filters": 2, "kernel_size": 3} | arguments)).build((8, 8, 1))


@pytest.mark.parametrize(
    ("dilation_rate", "input_shape", "message"),
    [
        (1, (2, 8, 1), r"conv2d: .*\(2, 8, 1\).* 3 .* 2 "),
        (1, (8, 2, 1), r"conv2d: .*\(8, 2, 1\).* 3 .* 2 "),
        (2, (4, 8, 1), r"conv2d: .*\(4, 8, 1\).* 5 .* 4 "),
    ],
)
def test_a_kernel_larger_than_the_input_needs_padding(
    dilation_rate: int, input_shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Conv2D(2, 3, dilation_rate=dilation_rate).build(input_shape)
    layer = Conv2D(2, 3, dilation_rate=dilation_rate, padding="same")
    assert layer.build(input_shape) == (*input_shape[:2], 2)
