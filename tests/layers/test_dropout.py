"""Dropout: inverted scaling, and masks that are a function of (seed, layer, step, position)."""

import numpy as np
import pytest

from scratchnet import Sequential
from scratchnet.layers import Dropout

DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])


@DTYPES
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_drops_the_stated_part_and_keeps_the_mean(rate: float, dtype: str) -> None:
    layer, x = Dropout(rate), np.ones((100, 200), dtype)
    y = layer.forward(x, training=True)
    assert y.dtype == dtype
    kept = y != 0
    assert np.allclose(y[kept], 1 / (1 - rate), rtol=1e-6)
    deviation = np.sqrt(rate * (1 - rate) / x.size)
    assert abs(np.mean(~kept) - rate) < 4 * deviation
    # No row and no column may be special.
    assert np.max(np.abs(np.mean(~kept, axis=1) - rate)) < 5 * np.sqrt(rate * (1 - rate) / 200)
    assert np.max(np.abs(np.mean(~kept, axis=0) - rate)) < 5 * np.sqrt(rate * (1 - rate) / 100)


def test_backward_uses_the_mask_of_the_forward_pass() -> None:
    rng = np.random.default_rng(1)
    layer, x, dy = Dropout(0.3), rng.normal(size=(3, 4, 5, 2)), rng.normal(size=(3, 4, 5, 2))
    y = layer.forward(x, training=True)
    assert np.allclose(layer.backward(dy), dy * y / x, rtol=1e-12)


def test_inference_and_rate_zero_change_nothing() -> None:
    x = np.random.default_rng(2).normal(size=(3, 4))
    for layer, training in ((Dropout(0.5), False), (Dropout(0.0), True)):
        assert np.array_equal(layer.forward(x, training=training), x)
        assert np.array_equal(layer.backward(2 * x), 2 * x)


def test_a_step_has_its_mask() -> None:
    layer, x = Dropout(0.5), np.ones((4, 50))
    layer.build((50,), dtype="float64")
    first, second = layer.forward(x, training=True), layer.forward(x, training=True)
    assert layer.clock.step == 2
    assert not np.array_equal(first, second)
    layer.clock.step = 0
    assert np.array_equal(layer.forward(x, training=True), first)
    assert layer.clock.step == 1


def test_rows_do_not_depend_on_the_batch() -> None:
    def masks(batch: int) -> np.ndarray:
        return Dropout(0.5, seed=3).forward(np.ones((batch, 11)), training=True)

    assert np.array_equal(masks(4), masks(9)[:4])


def test_seeds_and_layers_have_their_masks() -> None:
    x = np.ones((4, 500))
    assert not np.array_equal(Dropout(0.5, seed=1).forward(x, True), Dropout(0.5, seed=2).forward(x, True))
    twice = Sequential([Dropout(0.5), Dropout(0.5)]).forward(x, training=True)
    assert abs(np.mean(twice != 0) - 0.25) < 0.05  # 0.5 if both drew the same mask


@pytest.mark.parametrize("rate", [1.0, 1.5, -0.1, float("nan")])
def test_bad_rates(rate: float) -> None:
    with pytest.raises(ValueError, match=r"(?i)dropout"):
        Dropout(rate).build((3,))


def test_a_rate_that_would_keep_nothing_is_refused() -> None:
    for rate in (1 - 1e-8, np.nextafter(1, 0)):
        with pytest.raises(ValueError, match="dropout: rate is .* so close to 1"):
            Dropout(rate)
    layer = Dropout(1 - 2.0**-22)
    y = layer.forward(np.ones((4, 1 << 22), np.float32), training=True)
    assert 0 < np.count_nonzero(y) < 100
