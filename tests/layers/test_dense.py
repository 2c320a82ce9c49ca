"""Dense, Reshape and Flatten."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchnet import Sequential, check_gradients
from scratchnet.layers import Dense, Flatten, LayerNormalization, MultiHeadAttention, Reshape
from tests.reference import reference
from tests.reference.checks import TOLERANCE, assert_close, randomize
from tests.reference.strategies import generators

DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])


@DTYPES
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 20), st.integers(1, 9)), use_bias=st.booleans(), rng=generators()
)
def test_dense(dtype: str, shape: tuple[int, int, int], use_bias: bool, rng: np.random.Generator) -> None:
    batch, features, units = shape
    layer = Dense(units, use_bias=use_bias)
    assert layer.build((features,), dtype=dtype) == (units,)
    assert set(layer.parameters) == ({"kernel", "bias"} if use_bias else {"kernel"})
    randomize(layer, rng)
    x, dy = rng.normal(size=(batch, features)).astype(dtype), rng.normal(size=(batch, units)).astype(dtype)
    y, dx = layer.forward(x, training=True), layer.backward(dy)
    expected_dx, expected_dkernel, expected_dbias = reference.dense_backward(x, layer.kernel, dy)
    bias = layer.bias if use_bias else np.zeros(units)
    assert y.dtype == dx.dtype == layer.dkernel.dtype == dtype
    assert_close(y, reference.dense(x, layer.kernel, bias), TOLERANCE[dtype])
    assert_close(dx, expected_dx, TOLERANCE[dtype])
    assert_close(layer.dkernel, expected_dkernel, TOLERANCE[dtype])
    if use_bias:
        assert_close(layer.dbias, expected_dbias, TOLERANCE[dtype])


def test_initial_values() -> None:
    layer = Dense(300)
    layer.build((200,), dtype="float64", seed=3)
    limit = np.sqrt(6 / 500)
    assert np.all(layer.bias == 0)
    assert 0.99 * limit < np.max(np.abs(layer.kernel)) <= limit
    assert abs(np.std(layer.kernel) / (limit / np.sqrt(3)) - 1) < 0.02


@pytest.mark.parametrize("units", [0, -3, 2.5, "4", None])
def test_bad_units(units: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"(?i)dense"):
        Dense(units).build((3,))


@DTYPES
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 1, 1, 1), (3, 7)])
def test_flatten_keeps_row_major_order(dtype: str, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    layer = Flatten()
    assert layer.build(shape[1:], dtype=dtype) == (int(np.prod(shape[1:])),)
    y = layer.forward(x)
    assert np.array_equal(y, x.reshape(shape[0], -1))
    assert np.array_equal(layer.backward(2 * y), 2 * x)
    assert layer.parameters == {}


@pytest.mark.parametrize(
    "inner", [lambda: Dense(6), lambda: Reshape((3, 8)), LayerNormalization, lambda: MultiHeadAttention(2, 3)]
)
def test_tokens_that_a_dense_layer_reads_flat_lie_by_row(inner: Any) -> None:
    """The dx of a Dense lies by feature; seen as tokens, it would be no matrix of rows."""
    x = np.random.default_rng(0).normal(size=(5, 4, 6))
    assert check_gradients(Sequential([inner(), Flatten(), Dense(3)]), x) < 1e-7


@pytest.mark.parametrize("shape", [(2, 5, 4), (1, 7), (3, 2, 2, 3), (11,)])
def test_dense_takes_the_last_axis_alone(shape: tuple[int, ...]) -> None:
    if len(shape) == 3:
        with pytest.raises(ValueError, match=r"dense: the input shape is \(2, 5, 4\), of images.*Conv2D\(units, 1\)"):
            Dense(3).build(shape)
        return
    rng = np.random.default_rng(0)
    x, many, one = rng.normal(size=(6, *shape)), Dense(3), Dense(3)
    y = many.forward(x)
    assert y.shape == (6, *shape[:-1], 3)
    assert_close(y.reshape(-1, 3), one.forward(x.reshape(-1, shape[-1])))
    dy = rng.normal(size=y.shape)
    assert_close(many.backward(dy).reshape(-1, shape[-1]), one.backward(dy.reshape(-1, 3)))
    assert_close(many.dkernel, one.dkernel)
    assert_close(many.dbias, one.dbias)


@DTYPES
@pytest.mark.parametrize(
    ("shape", "target"),
    [((4, 6, 3), (24, 3)), ((24, 3), (4, -1, 3)), ((4, 6, 3), (3, 4, 6)), ((12,), (1, 12)), ((3, 4), (-1,))],
)
def test_reshape_keeps_row_major_order(dtype: str, shape: tuple[int, ...], target: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype(dtype)
    layer = Reshape(target)
    layer.build(shape, dtype=dtype)
    y = layer.forward(x)
    assert layer.output_shape == np.empty(shape).reshape(target).shape
    assert np.array_equal(y, x.reshape(2, *layer.output_shape))
    assert np.array_equal(layer.backward(2 * y), 2 * x)


@pytest.mark.parametrize("target", [5, "ab", (), (-1, -1), (0, 3), (2.5,), None, (5, 2), (-1, 5), (13, -1)])
def test_a_target_shape_that_is_none_or_is_not_filled(target: Any) -> None:
    with pytest.raises(ValueError, match=r"reshape: \(3, 4\) cannot have the target_shape"):
        Reshape(target).build((3, 4))
    with pytest.raises(ValueError, match=r"reshape: \(1,\) cannot have the target_shape \(\)"):
        Reshape(()).build((1,))


def test_a_bias_may_be_drawn_and_what_an_initializer_gives_is_checked() -> None:
    layer = Dense(3, bias_initializer="glorot_uniform")
    layer.build((4,))
    assert (np.abs(layer.bias) < 1).all()  # +-sqrt(6 / (3 + 3))
    assert layer.bias.any()
    with pytest.raises(ValueError, match=r"dense: the initializer of kernel gave \(2,\), not \(4, 3\)"):
        Dense(3, kernel_initializer=lambda shape, generator: np.zeros(2)).build((4,))


def test_a_list_is_no_input() -> None:
    layer = Dense(2)
    with pytest.raises(TypeError, match="dense: x is a list"):
        layer.forward([[1.0, 2.0]])
    assert not layer.built
