"""Counter-based noise: end points, independence of how a batch is split, and no repetition."""

import numpy as np
import pytest

from scratchnet.backend import BatchSlice, Memory, Noise, StepCounter, get_device
from scratchnet.backend.noise import gumbel, open_interval, uniform


def test_the_end_points_stay_inside_the_open_interval() -> None:
    k = np.array([0, 1, 2, (1 << 24) - 2, (1 << 24) - 1], np.float64)
    u = (k / (1 << 24)).astype(np.float32)
    open_interval(u)
    assert u.tolist() == [2.0**-24, 2.0**-24, 3 * 2.0**-24, 1 - 2.0**-24, 1 - 2.0**-24]
    g = gumbel(u)
    assert g.dtype == np.float32
    assert np.isfinite(g).all()
    assert g[0] == pytest.approx(-np.log(24 * np.log(2)), rel=1e-6)  # -2.81
    assert g[-1] == pytest.approx(24 * np.log(2), rel=1e-6)  # 16.64


def test_every_value_is_exact_in_float32() -> None:
    """((bits >> 9) + 1/2) / 2^23, from the 24 bits that NumPy gives: k and k + 1 of a pair give the same."""
    k = np.arange(0, 1 << 24, 4099, dtype=np.int64)
    u = (k.astype(np.float64) / (1 << 24)).astype(np.float32)
    open_interval(u)
    np.testing.assert_array_equal(u.astype(np.float64), ((k >> 1) + 0.5) / (1 << 23))


@pytest.mark.parametrize("columns", [1, 7, 8, 100])
def test_rows_do_not_depend_on_the_split(columns: int) -> None:
    whole = uniform(3, 5, 11, 0, 10, columns)
    assert whole.shape == (10, columns)
    for first, rows in ((0, 4), (4, 6), (9, 1)):
        np.testing.assert_array_equal(uniform(3, 5, 11, first, rows, columns), whole[first : first + rows])


def test_seed_stream_and_step_each_change_everything() -> None:
    base = uniform(0, 0, 0, 0, 50, 100)
    for other in (uniform(1, 0, 0, 0, 50, 100), uniform(0, 1, 0, 0, 50, 100), uniform(0, 0, 1, 0, 50, 100)):
        assert np.mean(base == other) < 1e-3
    rows = base.reshape(50, 100)
    assert np.unique(rows[:, :8], axis=0).shape[0] == 50


def test_noise_follows_the_clock() -> None:
    clock = StepCounter()
    memory = Memory(get_device("cpu"), "float32")
    noise, out = Noise(1, 2, clock, BatchSlice(3, 4, 7), (2, 5), memory), memory.buffer(4, 2, 5)
    noise.draw(out)
    first = out.copy()
    np.testing.assert_array_equal(first.reshape(4, 10), uniform(1, 2, 0, 3, 4, 10))
    clock.step = 1
    noise.draw(out)
    assert not np.any(out == first)
    clock.step, clock.row = 0, 2
    noise.draw(out)
    np.testing.assert_array_equal(out[:2], first[2:])
    clock.row = 0
    noise.draw(out)
    np.testing.assert_array_equal(out, first)


def test_the_distribution_is_gumbels() -> None:
    g = gumbel(uniform(0, 0, 0, 0, 1000, 1000).astype(np.float64))
    assert g.mean() == pytest.approx(0.5772157, abs=6e-3)  # Euler's constant
    assert g.var() == pytest.approx(np.pi**2 / 6, abs=0.015)  # four standard errors
    assert g.min() >= -2.82
    assert g.max() <= 16.64
