"""Counter-based noise: end points, independence of how a batch is split, and no repetition."""

import numpy as np
import pytest

from scratchnet.backend import BatchSlice, Memory, Noise, StepCounter, get_device
from scratchnet.backend.noise import gumbel, open_interval, uniform


def in_the_interval(*bits: int) -> np.ndarray:
    k = np.array(bits, np.uint32).astype(np.float32)
    open_interval(k)
    return k


def test_the_end_points_stay_inside_the_open_interval() -> None:
    u = in_the_interval(0, 1, 2, 2**32 - 300, 2**32 - 2, 2**32 - 1)
    assert u.tolist() == [2.0**-33, 3 * 2.0**-33, 5 * 2.0**-33, 1 - 2.0**-24, 1 - 2.0**-24, 1 - 2.0**-24]
    g = gumbel(u)
    assert g.dtype == np.float32
    assert np.isfinite(g).all()
    assert g[-1] == pytest.approx(-np.log(24 * np.log(2)), rel=1e-6)  # -2.81
    assert g[0] == pytest.approx(33 * np.log(2), rel=1e-6)  # 22.87


def test_every_value_is_rounded_no_more_than_float32_must() -> None:
    k = np.unique(np.r_[0:5000, 2 ** np.arange(0, 32, 0.001)].astype(np.uint32))
    u, exact = in_the_interval(*k.tolist()).astype(np.float64), (k + 0.5) / 2**32
    assert np.all(np.abs(u / exact - 1) <= 2.0**-23)  # k and the half are rounded one after the other
    assert np.all(np.diff(u) >= 0)
    assert np.all(np.diff(u[k < 2**23]) > 0)  # where float32 tells the numbers apart, so does u


def test_many_classes_hardly_ever_tie() -> None:
    """Of 100,000 classes, two with 23 bits share the largest noise once in 84 draws."""
    ties = sum(np.ptp(np.sort(gumbel(uniform(0, 0, step, 0, 1, 100_000)[0]))[-2:]) == 0 for step in range(300))
    assert ties == 0


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
