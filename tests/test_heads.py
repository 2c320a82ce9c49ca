"""Losses and their noise, against the loops that define them and against what probability theory says of them."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from scratchnet import check_gradients
from scratchnet.backend import noise
from scratchnet.heads import AnnealedTemperature, GumbelSoftmaxCrossEntropy, SoftmaxCrossEntropy
from tests.reference import reference
from tests.reference.checks import TOLERANCE, assert_close, slope_error
from tests.reference.strategies import generators

DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])
HEADS = pytest.mark.parametrize(
    "head", [SoftmaxCrossEntropy(), GumbelSoftmaxCrossEntropy(0.5)], ids=["softmax", "gumbel"]
)
SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 12))


def draw(shape: tuple[int, int], rng: np.random.Generator, dtype: Any = "float64") -> tuple[np.ndarray, np.ndarray]:
    return (3 * rng.normal(size=shape)).astype(dtype), rng.integers(0, shape[1], size=shape[0])


# --- values and gradients


@DTYPES
@given(shape=SHAPES, rng=generators())
def test_softmax_cross_entropy(dtype: str, shape: tuple[int, int], rng: np.random.Generator) -> None:
    logits, labels = draw(shape, rng, dtype)
    loss, dlogits = SoftmaxCrossEntropy()(logits, labels)
    expected_loss, expected_dlogits = reference.softmax_cross_entropy(logits, labels)
    assert dlogits.dtype == dtype
    assert_close(loss, expected_loss, TOLERANCE[dtype])
    assert_close(dlogits, expected_dlogits, TOLERANCE[dtype])


@DTYPES
@given(shape=SHAPES, temperature=st.sampled_from([0.2, 0.5, 1, 3.0, 1e3]), step=st.integers(0, 9), rng=generators())
def test_gumbel_softmax_cross_entropy(
    dtype: str, shape: tuple[int, int], temperature: float, step: int, rng: np.random.Generator
) -> None:
    logits, labels = draw(shape, rng, dtype)
    head = GumbelSoftmaxCrossEntropy(temperature, seed=5)
    loss, dlogits = head(logits, labels, step=step)
    expected_loss, expected_dlogits = reference.gumbel_softmax_cross_entropy(
        logits, labels, head.noise(step, *shape), temperature
    )
    # The noise is a float32 number's double logarithm: in float32 the head may round it once more.
    tolerance = TOLERANCE[dtype] * max(1, 5 / temperature**2)
    assert dlogits.dtype == dtype
    assert_close(loss, expected_loss, tolerance)
    assert_close(dlogits, expected_dlogits, tolerance)


@HEADS
def test_gradient_with_the_noise_held(head: Any) -> None:
    rng = np.random.default_rng(1)
    logits, labels = draw((6, 5), rng)
    dlogits = head(logits, labels, step=4)[1]
    assert slope_error(lambda: float(head(logits, labels, step=4)[0]), [logits], [dlogits], rng) < 1e-7
    assert_close(np.sum(dlogits, axis=1), np.zeros(6))


@HEADS
def test_results_are_fresh_and_inputs_left_alone(head: Any) -> None:
    rng = np.random.default_rng(2)
    results = []
    for shape in ((4, 3), (4, 3), (2, 7), (4, 3)):
        logits, labels = draw(shape, rng)
        before = logits.copy(), labels.copy()
        loss, dlogits = head(logits, labels, step=1)
        again = head(np.asfortranarray(logits), labels.astype(np.int32), step=1)
        assert (loss, dlogits.tolist()) == (again[0], again[1].tolist())
        assert np.array_equal(logits, before[0])
        assert np.array_equal(labels, before[1])
        results.append((dlogits, dlogits.copy()))
    assert all(np.array_equal(array, copy) for array, copy in results)


@DTYPES
def test_extreme_logits(dtype: str) -> None:
    logits = np.array([[1e4, -1e4, 0], [1e4, -1e4, 0], [1e4, 1e4, 1e4], [-1e4, -1e4, -1e4]], dtype)
    head = SoftmaxCrossEntropy()
    assert_close(head(logits[:1], np.array([0]))[0], 0)
    assert_close(head(logits[1:2], np.array([1]))[0], 2e4)
    assert_close(head(logits[2:], np.array([0, 2]))[0], np.log(3), TOLERANCE[dtype])
    assert_close(head(logits[1:2], np.array([1]))[1], [[1, -1, 0]])
    for temperature in (1e-3, 1.0, 1e3):
        loss, dlogits = GumbelSoftmaxCrossEntropy(temperature)(logits, np.array([0, 1, 2, 0]))
        assert np.isfinite(loss)
        assert np.all(np.isfinite(dlogits))
        assert np.all(np.abs(dlogits) <= 1.001 / (4 * temperature))


ROUNDING = {"float32": 3e-3, "float64": 1e-11}  # of a number near 1e4, and of the noise added to it
EXTREMES = st.sampled_from([1e4, -1e4, 1e4 + 1, 0.0, 1.0, -3e30, -np.inf])


@DTYPES
@given(
    rows=st.integers(1, 6).flatmap(
        lambda classes: st.lists(st.lists(EXTREMES, min_size=classes, max_size=classes), min_size=1, max_size=4)
    ),
    temperature=st.none() | st.floats(-3, 3).map(lambda power: 10**power),
    seed=st.integers(0, 2**63 - 1),
)
def test_extreme_logits_and_temperatures(
    dtype: str, rows: list[list[float]], temperature: float | None, seed: int
) -> None:
    """Against the same in float64, as near as the rounding of the noisy logits, divided by the temperature, lets."""
    logits = np.array(rows, dtype)
    assume(np.isfinite(logits).any(1).all())  # somebody is to win
    labels, t = np.where(np.isfinite(logits), -logits, -np.inf).argmax(1), temperature or 1.0  # the least that can be
    head = SoftmaxCrossEntropy() if temperature is None else GumbelSoftmaxCrossEntropy(temperature, seed)
    loss, dlogits = head(logits, labels, step=2**31)
    noise = 0 if temperature is None else head.noise(2**31, *logits.shape)  # type: ignore[attr-defined]
    z = (logits.astype(np.float64) + noise) / t
    z -= z.max(1, keepdims=True)
    z -= np.log(np.exp(z).sum(1, keepdims=True))
    losses = -z[np.arange(len(z)), labels]
    assert_allclose(loss, losses.mean(), rtol=1e-6, atol=1e-6 + ROUNDING[dtype] / t)
    expected = (np.exp(z) - (labels[:, None] == np.arange(z.shape[1]))) / (t * len(z))
    assert_allclose(dlogits, expected, rtol=0, atol=(1e-6 + min(1, ROUNDING[dtype] / t)) / (t * len(z)))


def test_temperatures_far_beyond_any_use() -> None:
    late = GumbelSoftmaxCrossEntropy(AnnealedTemperature())
    assert late.temperature_at(10**9) == 0.5
    assert np.isfinite(late(np.zeros((1, 3), np.float32), np.array([0]), step=10**9)[0])
    assert AnnealedTemperature(rate=1e300)(10**9) == 0.5
    with pytest.raises(ValueError, match="seed is"):
        GumbelSoftmaxCrossEntropy(seed=2**63)


@DTYPES
@HEADS
def test_one_class_leaves_nothing_to_learn(head: Any, dtype: str) -> None:
    loss, dlogits = head(np.array([[1e4], [-3.0]], dtype), np.array([0, 0]))
    assert loss == 0
    assert dlogits.tolist() == [[0], [0]]


@pytest.mark.parametrize("temperature", [1e-3, 1e-2, 1e2, 1e3])
def test_far_temperatures(temperature: float) -> None:
    rng = np.random.default_rng(3)
    logits, labels = draw((8, 10), rng)
    head = GumbelSoftmaxCrossEntropy(temperature)
    expected = reference.gumbel_softmax_cross_entropy(logits, labels, head.noise(0, 8, 10), temperature)
    loss, dlogits = head(logits, labels)
    assert_close(loss, expected[0], 1e-9)
    assert_close(dlogits, expected[1], 1e-9)


def test_annealed_temperature_falls_exponentially_to_its_floor() -> None:
    """Jang, Gu and Poole 2016, section 4: max(floor, start exp(-rate step))."""
    rng = np.random.default_rng(4)
    logits, labels = draw((8, 10), rng)
    head = GumbelSoftmaxCrossEntropy(AnnealedTemperature(start=2.0, rate=1e-3, floor=0.25))
    for step, temperature in ((0, 2.0), (500, 2 * np.exp(-0.5)), (2000, 2 * np.exp(-2)), (2080, 0.25), (10**6, 0.25)):
        expected = reference.gumbel_softmax_cross_entropy(logits, labels, head.noise(step, 8, 10), temperature)
        loss, dlogits = head(logits, labels, step=step)
        assert_close(loss, expected[0], 1e-10)
        assert_close(dlogits, expected[1], 1e-10)


def test_annealed_temperature_by_default() -> None:
    rng = np.random.default_rng(5)
    logits, labels = draw((8, 10), rng)
    head = GumbelSoftmaxCrossEntropy(AnnealedTemperature())
    for step, temperature in ((0, 1.0), (5000, np.exp(-0.5)), (6931, np.exp(-0.6931)), (6932, 0.5)):
        fixed = GumbelSoftmaxCrossEntropy(temperature)
        assert_close(head(logits, labels, step=step)[0], fixed(logits, labels, step=step)[0], 1e-10)


# --- the noise


def test_the_ends_of_the_noise_survive_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 the worst numbers that the generator can give still make a finite loss."""

    def worst(seed: int, stream: int, step: int, first_row: int, out: np.ndarray) -> None:
        out[...] = np.where(np.arange(out.size).reshape(out.shape) % 2, 0, 2**32 - 1)
        noise.open_interval(out)

    monkeypatch.setattr(noise, "fill_uniform", worst)
    head = GumbelSoftmaxCrossEntropy(0.5)
    assert np.ptp(head.noise(0, 2, 8)) > 25  # the replacement took effect
    loss, dlogits = head(np.zeros((2, 8), np.float32), np.array([0, 1]))
    assert loss == pytest.approx((2 * 25.686 + 2 * np.log(4)) / 2, rel=1e-3)
    assert np.all(np.isfinite(dlogits))


def test_noise_is_standard_gumbel() -> None:
    """Its distribution is exp(-exp(-g)), so exp(-exp(-g)) is uniform (Kolmogorov and Smirnov, probability 0.001)."""
    g = GumbelSoftmaxCrossEntropy(seed=1).noise(0, 1000, 100)
    assert g.shape == (1000, 100)
    u = np.sort(np.exp(-np.exp(-g.ravel().astype(np.float64))))
    assert np.max(np.abs(u - (np.arange(u.size) + 0.5) / u.size)) < 1.95 / np.sqrt(u.size)
    assert np.mean(g) == pytest.approx(np.euler_gamma, abs=4 * 1.2825 / np.sqrt(g.size))
    # Neighbours in a row, in a column and in consecutive steps have nothing to do with each other.
    following = GumbelSoftmaxCrossEntropy(seed=1).noise(1, 1000, 100)
    for first, second in ((g[:, 1:], g[:, :-1]), (g[1:], g[:-1]), (g, following)):
        assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 4 / np.sqrt(second.size)


def test_noise_is_a_function_of_seed_step_and_position() -> None:
    head = GumbelSoftmaxCrossEntropy(seed=1)
    first = head.noise(3, 8, 10)
    head(np.zeros((8, 10)), np.zeros(8, int), step=7)
    assert np.array_equal(head.noise(3, 8, 10), first)
    assert np.array_equal(GumbelSoftmaxCrossEntropy(0.1, seed=1).noise(3, 8, 10), first)
    assert not np.any(head.noise(4, 8, 10) == first)
    assert not np.any(GumbelSoftmaxCrossEntropy(seed=2).noise(3, 8, 10) == first)
    assert len(np.unique(first)) == first.size


@pytest.mark.parametrize("classes", [1, 8, 10, 100])
def test_rows_do_not_depend_on_how_the_batch_is_split(classes: int) -> None:
    head = GumbelSoftmaxCrossEntropy(seed=1)
    assert np.array_equal(head.noise(2, 32, classes), head.noise(2, 64, classes)[:32])
    whole = noise.uniform(1, 2, 3, first_row=0, rows=64, columns=classes)
    assert np.array_equal(noise.uniform(1, 2, 3, first_row=32, rows=32, columns=classes), whole[32:])
    assert np.array_equal(noise.uniform(1, 2, 3, first_row=13, rows=1, columns=classes), whole[13:14])


def test_streams_and_steps_do_not_overlap() -> None:
    drawn = [noise.uniform(seed, stream, step, 0, 100, 8) for seed in (0, 1) for stream in (0, 1) for step in (0, 1)]
    values = np.concatenate([array.ravel() for array in drawn])
    # Of 6,400 numbers, of which float32 has 2^24 in the upper half, 2 pairs are equal by chance; shared would be 800.
    assert values.size - len(np.unique(values)) < 12


# --- what probability theory says


@pytest.mark.parametrize(
    ("temperature", "expected", "margin"), [(10, 4.61, 0.01), (1, 5.95, 0.03), (0.5, 9.75, 0.06), (0.1, 46.1, 0.3)]
)
def test_expected_loss_at_uniform_logits(temperature: float, expected: float, margin: float) -> None:
    """Margins are about four standard errors of 50,000 draws."""
    logits, labels = np.zeros((50_000, 100), np.float32), np.arange(50_000) % 100
    loss, _ = GumbelSoftmaxCrossEntropy(temperature)(logits, labels)
    assert loss == pytest.approx(expected, abs=margin)


def test_argmax_of_logits_plus_noise_is_a_draw_from_the_softmax() -> None:
    """The Gumbel-max property, by a chi-square test (5 degrees of freedom, probability 0.001)."""
    probabilities, draws = np.array([0.4, 0.3, 0.15, 0.1, 0.04, 0.01]), 100_000
    winners = np.argmax(np.log(probabilities) + GumbelSoftmaxCrossEntropy(seed=3).noise(0, draws, 6), axis=1)
    expected = draws * probabilities
    assert np.sum((np.bincount(winners, minlength=6) - expected) ** 2 / expected) < 20.5


# --- errors


@pytest.mark.parametrize("temperature", [0, -0.5, float("nan"), float("inf"), "1"])
def test_bad_temperatures(temperature: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"(?i)temperature"):
        GumbelSoftmaxCrossEntropy(temperature)


@pytest.mark.parametrize(
    "arguments",
    [
        {"start": 0},
        {"start": -1.0},
        {"start": float("nan")},
        {"floor": 0},
        {"floor": -1.0},
        {"rate": -1e-4},
        {"rate": float("nan")},
    ],
)
def test_bad_annealing(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"(?i)temperature|start|rate|floor"):
        GumbelSoftmaxCrossEntropy(AnnealedTemperature(**arguments))


@HEADS
@pytest.mark.parametrize(
    ("logits", "labels", "error", "message"),
    [
        (np.zeros((2, 3)), np.array([0, 3]), ValueError, "3"),  # NumPy would wrap or clip
        (np.zeros((2, 3)), np.array([0, -1]), ValueError, "-1"),
        (np.zeros((2, 3)), np.array([0]), ValueError, r"\(1,\)"),
        (np.zeros((2, 3)), np.zeros((2, 3), int), ValueError, r"\(2, 3\)"),  # one-hot
        (np.zeros((2, 3, 1)), np.array([0, 1]), ValueError, r"\(2, 3, 1\)"),
        (np.zeros(3), np.array([0]), ValueError, r"\(3,\)"),
        (np.zeros((0, 3)), np.zeros(0, int), ValueError, r"\(0, 3\)"),
        (np.zeros((2, 3)), np.array([0.0, 1.0]), TypeError, "float64"),
        (np.zeros((2, 3), int), np.array([0, 1]), TypeError, "int64"),
    ],
)
def test_bad_inputs(head: Any, logits: np.ndarray, labels: np.ndarray, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        head(logits, labels)


@HEADS
@pytest.mark.parametrize("step", [-1, 1.5, "2", True])
def test_a_step_counts_from_0(head: Any, step: Any) -> None:
    with pytest.raises(ValueError, match=r"step is .* where an integer from 0 on is wanted"):
        head(np.zeros((2, 3)), np.array([0, 1]), step)


def test_a_class_ruled_out_by_minus_infinity() -> None:
    loss, dlogits = SoftmaxCrossEntropy()(np.array([[-np.inf, 0.0, 0.0]]), np.array([1]))
    assert loss == pytest.approx(np.log(2))
    assert_close(dlogits, np.array([[0, -0.5, 0.5]]))
    loss, _ = SoftmaxCrossEntropy()(np.array([[-3e38, 3e38]], np.float32), np.array([1]))
    assert loss == 0


def test_a_temperature_function_is_checked() -> None:
    logits, labels = np.zeros((1, 3)), np.array([0])
    for value in (0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="temperature at step 2"):
            GumbelSoftmaxCrossEntropy(lambda step, value=value: value)(logits, labels, step=2)  # type: ignore[arg-type]


def test_calling_a_head_again_allocates_next_to_nothing() -> None:
    head, logits, labels = GumbelSoftmaxCrossEntropy(), np.zeros((640, 100), np.float32), np.zeros(640, int)
    first, gradient = head(logits, labels, step=1)
    kept = gradient.copy()
    tracemalloc.start()
    head(logits + 1, labels, step=2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * logits.nbytes
    np.testing.assert_array_equal(gradient, kept)
    assert head(logits, labels, step=1)[0] == first


def test_temperatures_that_no_float32_can_divide_by_are_refused() -> None:
    with pytest.raises(ValueError, match="gumbel head: temperature is 1e-40, by which float32 cannot divide"):
        GumbelSoftmaxCrossEntropy(1e-40)
    head = GumbelSoftmaxCrossEntropy(lambda step: 1e-40)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="gumbel head: temperature at step 3 is 1e-40"):
        head(np.zeros((2, 3), np.float32), np.array([0, 1]), step=3)


def test_a_head_is_called_with_labels() -> None:
    head = SoftmaxCrossEntropy()
    for call in (head.forward, head.backward, head.predict):
        with pytest.raises((TypeError, RuntimeError), match="softmax"):
            call(np.zeros((2, 3)))


class PlainLoss(SoftmaxCrossEntropy):
    def compute(self, training: bool) -> None:
        super().compute(training)
        self.loss[...] = self.loss + np.sum(self.x)


class PlainGradient(SoftmaxCrossEntropy):
    def compute(self, training: bool) -> None:
        super().compute(training)
        self.dx[...] = self.dx * np.cos(self.x)


@pytest.mark.parametrize("kind", [PlainLoss, PlainGradient])
def test_a_head_that_computes_beside_the_record_is_refused(kind: Any) -> None:
    logits, labels = np.random.default_rng(0).normal(size=(4, 3)), np.array([0, 1, 2, 0])
    with pytest.raises(TypeError, match=r"softmax: (loss|dx) is another when its step is repeated from the record"):
        kind()(logits, labels)
    with pytest.raises(TypeError, match=r"softmax: (loss|dx) is another when its step is repeated from the record"):
        check_gradients(kind(), logits, labels)
