"""BatchNormalization."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchnet.layers import BatchNormalization
from tests.reference import reference
from tests.reference.checks import TOLERANCE, assert_close, randomize
from tests.reference.strategies import generators

DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])
SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 5)) | st.tuples(*[st.integers(1, 4)] * 4)


def build(shape: tuple[int, ...], rng: np.random.Generator, dtype: Any = "float64", **options: float) -> Any:
    layer = BatchNormalization(**options)
    assert layer.build(shape, dtype=dtype) == shape
    randomize(layer, rng)
    return layer


@DTYPES
@given(shape=SHAPES, epsilon=st.sampled_from([1e-3, 0.5]), rng=generators())
def test_training(dtype: str, shape: tuple[int, ...], epsilon: float, rng: np.random.Generator) -> None:
    layer = build(shape[1:], rng, dtype, epsilon=epsilon)
    x = (3 + 2 * rng.normal(size=shape)).astype(dtype)
    dy = rng.normal(size=shape).astype(dtype)
    y = layer.forward(x, training=True)
    dx = layer.backward(dy)
    expected_y, _, variance = reference.batch_normalization(x, layer.gamma, layer.beta, epsilon)
    expected_dx, expected_dgamma, expected_dbeta = reference.batch_normalization_backward(x, layer.gamma, dy, epsilon)
    # Subtracting the mean (3) costs digits, and dividing by a small deviation magnifies what is lost.
    tolerance = TOLERANCE[dtype] * 10 / np.sqrt(np.min(variance) + epsilon)
    assert y.dtype == dx.dtype == layer.dgamma.dtype == dtype
    assert_close(y, expected_y, tolerance)
    assert_close(dx, expected_dx, tolerance)
    assert_close(layer.dgamma, expected_dgamma, tolerance)
    assert_close(layer.dbeta, expected_dbeta, tolerance)


@DTYPES
@pytest.mark.parametrize("momentum", [1e-12, 0.1, 0.5, 0.9])
def test_moving_statistics_that_decay_are_never_denormal(dtype: str, momentum: float) -> None:
    """A channel dies: all that comes is 0."""
    layer = build((2,), np.random.default_rng(1), dtype, momentum=momentum)
    layer.forward(np.ones((4, 2), dtype), training=True)
    layer.moving_mean[...], zeros = [3, -1e-5], np.zeros((4, 2), dtype)
    for _ in range(1000 if dtype == "float32" else 7500):
        layer.forward(zeros, training=True)
        for moving in (layer.moving_mean, layer.moving_variance):
            assert not ((moving != 0) & (np.abs(moving) < np.finfo(dtype).tiny)).any()
    assert not layer.moving_mean.any()
    assert not layer.moving_variance.any()


def test_moving_statistics_follow_the_batches() -> None:
    """moving = momentum * moving + (1 - momentum) * batch, from mean 0 and variance 1, with the biased variance."""
    rng = np.random.default_rng(1)
    layer = build((3, 2, 2), rng, momentum=0.9)
    moving_mean, moving_variance = np.zeros(2), np.ones(2)
    assert np.array_equal(layer.moving_mean, moving_mean)
    assert np.array_equal(layer.moving_variance, moving_variance)
    for batch in (4, 1, 7):
        x = 5 + 3 * rng.normal(size=(batch, 3, 2, 2))
        layer.forward(x, training=True)
        moving_mean = 0.9 * moving_mean + 0.1 * np.mean(x, axis=(0, 1, 2))
        moving_variance = 0.9 * moving_variance + 0.1 * np.var(x, axis=(0, 1, 2))
        assert_close(layer.moving_mean, moving_mean)
        assert_close(layer.moving_variance, moving_variance)


def test_inference_uses_the_moving_statistics_and_leaves_them_alone() -> None:
    rng = np.random.default_rng(2)
    layer = build((4,), rng, epsilon=0.01)
    layer.forward(rng.normal(size=(8, 4)), training=True)
    mean, variance, x = layer.moving_mean.copy(), layer.moving_variance.copy(), rng.normal(size=(3, 4))
    y = layer.forward(x)
    assert_close(y, layer.gamma * (x - mean) / np.sqrt(variance + 0.01) + layer.beta)
    assert_close(layer.forward(x[:1]), y[:1])
    assert np.array_equal(layer.moving_mean, mean)
    assert np.array_equal(layer.moving_variance, variance)


def test_a_constant_channel_stays_finite() -> None:
    layer = build((2,), np.random.default_rng(3))
    x = np.array([[1e3, 0.0]] * 4)
    assert_close(layer.forward(x, training=True), np.broadcast_to(layer.beta, (4, 2)))
    assert np.all(np.isfinite(layer.backward(np.ones((4, 2)))))


def test_a_large_mean_does_not_cost_the_variance() -> None:
    """E[x^2] - E[x]^2 would lose every digit here."""
    x = 1e4 + np.random.default_rng(4).normal(size=(64, 1)).astype(np.float32)
    y = BatchNormalization().forward(x, training=True)
    assert abs(np.std(y) - 1) < 0.01


@pytest.mark.parametrize("shape", [(64, 32, 32, 3), (4096, 5)], ids=str)
def test_float32_sums_keep_their_digits(shape: tuple[int, ...]) -> None:
    """Added one after the other, the first shape's values have a mean that is wrong by 0.001, and its dbeta by 0.1."""
    rng, axes = np.random.default_rng(5), tuple(range(len(shape) - 1))
    x = (100 + rng.normal(size=shape)).astype(np.float32)
    dy = (100 + rng.normal(size=shape)).astype(np.float32)
    layer = BatchNormalization(epsilon=1e-5, momentum=0)
    y, exact = layer.forward(x, training=True), x.astype(np.float64)
    normal = (exact - exact.mean(axes)) / np.sqrt(exact.var(axes) + 1e-5)
    np.testing.assert_allclose(y, normal, rtol=0, atol=4e-6)
    np.testing.assert_allclose(layer.moving_mean, exact.mean(axes), rtol=1.2e-7)
    layer.backward(dy)
    np.testing.assert_allclose(layer.dbeta, dy.sum(axes, dtype=np.float64), rtol=2e-6)


@pytest.mark.parametrize(
    "arguments",
    [
        {"momentum": -0.1},
        {"momentum": 1.5},
        {"momentum": float("nan")},
        {"epsilon": -1e-3},
        {"epsilon": float("nan")},
    ],
)
def test_bad_arguments(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"(?i)batch_?normalization"):
        BatchNormalization(**arguments).build((3,))
