"""GumbelSoftmax: y = softmax((x + g) / temperature) with fresh Gumbel noise g at every forward pass.

The noise is inside the layer. At x = 0 it shows: temperature * log y is g up to a constant of each row, which softmax
does not see.
"""

from typing import Any

import numpy as np
import pytest

from scratchnet.layers import GumbelSoftmax
from tests.reference import reference
from tests.reference.checks import TOLERANCE, assert_close, slope_error

DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])
SHAPE = (6, 7)


def frozen(layer: Any, x: np.ndarray, step: int = 5) -> np.ndarray:
    layer.clock.step = step
    return layer.forward(x)


def build(dtype: str = "float64", **options: Any) -> Any:
    layer = GumbelSoftmax(**options)
    assert layer.build(SHAPE[1:], dtype=dtype) == SHAPE[1:]
    return layer


@DTYPES
@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_definition(temperature: float, dtype: str) -> None:
    rng, layer = np.random.default_rng(1), build(dtype, temperature=temperature)
    x, dy = rng.normal(size=SHAPE).astype(dtype), rng.normal(size=SHAPE).astype(dtype)
    noise = temperature * np.log(frozen(layer, np.zeros(SHAPE, dtype)).astype(np.float64))
    y = frozen(layer, x)
    dx = layer.backward(dy)
    assert y.dtype == dx.dtype == dtype
    scaled, tolerance = (x + noise) / temperature, 10 * TOLERANCE[dtype]
    assert_close(y, reference.softmax(scaled), tolerance)
    assert_close(dx, reference.softmax_backward(scaled, dy) / temperature, tolerance)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_straight_through_is_one_hot_forward_and_soft_backward(temperature: float) -> None:
    rng = np.random.default_rng(2)
    x, dy = rng.normal(size=SHAPE), rng.normal(size=SHAPE)
    soft, hard = build(temperature=temperature), build(temperature=temperature, straight_through=True)
    y, y_hard = frozen(soft, x), frozen(hard, x)
    assert np.array_equal(y_hard, np.eye(SHAPE[1])[np.argmax(y, axis=1)])
    assert_close(hard.backward(dy), soft.backward(dy))


def test_gradient_with_the_noise_held() -> None:
    rng, layer = np.random.default_rng(3), build(temperature=0.7)
    x, dy = rng.normal(size=SHAPE), rng.normal(size=SHAPE)
    frozen(layer, x)
    dx = layer.backward(dy)
    assert slope_error(lambda: float(np.sum(frozen(layer, x) * dy)), [x], [dx], rng) < 1e-7


def test_noise_is_fresh_at_every_forward_pass_and_repeats_with_the_step() -> None:
    layer, x = build(), np.zeros(SHAPE)
    passes = [layer.forward(x, training) for training in (False, False, True, True, False)]
    assert len(np.unique(passes)) == 5 * x.size
    assert layer.clock.step == 2
    for step, at in ((0, 0), (2, 4)):
        assert np.array_equal(frozen(layer, x, step=step), passes[at])
    first = passes[0]
    assert not np.any(frozen(build(seed=1), x, step=0) == first)
    assert np.array_equal(frozen(layer, x[:2], step=0), first[:2])


def test_the_noise_is_gumbel() -> None:
    """The difference of two Gumbel numbers is logistic: at temperature 1 and x = 0, y1 / (y1 + y2) is uniform."""
    layer = GumbelSoftmax()
    y = layer.forward(np.zeros((20_000, 2)))
    part = np.sort(y[:, 0])
    distance = np.max(np.abs(part - (np.arange(len(part)) + 0.5) / len(part)))
    assert distance < 1.95 / np.sqrt(len(part))  # Kolmogorov and Smirnov, probability 0.001
    assert_close(np.sum(y, axis=1), np.ones(len(y)))


def test_the_winner_is_a_draw_from_the_softmax_for_every_temperature() -> None:
    x = np.log(np.array([0.5, 0.3, 0.15, 0.05]))
    for temperature in (0.1, 1.0, 10.0):
        y = GumbelSoftmax(temperature, straight_through=True).forward(np.broadcast_to(x, (20_000, 4)))
        counts, expected = np.sum(y, axis=0), 20_000 * np.exp(x)
        assert np.sum((counts - expected) ** 2 / expected) < 16.3  # chi-square, 3 degrees of freedom, probability 0.001


@DTYPES
@pytest.mark.parametrize("temperature", [1e-3, 1e3])
def test_extreme_values_and_temperatures_stay_finite(temperature: float, dtype: str) -> None:
    layer = build(dtype, temperature=temperature)
    x = np.array([[1e4, -1e4, 0, 0, 1e4, 0, 0], [1e4] * 7, [-1e4] * 7], dtype)
    y = layer.forward(x)
    assert np.all(np.isfinite(y))
    assert_close(np.sum(y, axis=1), np.ones(3), 1e-5)
    assert np.all(np.isfinite(layer.backward(np.ones_like(x))))


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf")])
def test_bad_temperatures(temperature: float) -> None:
    with pytest.raises(ValueError, match=r"(?i)gumbel_?softmax.*temperature|temperature.*gumbel_?softmax"):
        GumbelSoftmax(temperature).build((3,))


def test_temperatures_that_no_float32_can_divide_by_are_refused() -> None:
    with pytest.raises(ValueError, match="gumbel_softmax: temperature is 1e-40, by which float32 cannot divide"):
        GumbelSoftmax(1e-40)
    layer = GumbelSoftmax(1e-30)
    assert np.isfinite(layer.forward(np.zeros((3, 4), np.float32))).all()
