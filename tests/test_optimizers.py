"""Adam and SGD against their published formulas, written out number by number."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchnet import optimizers
from scratchnet.backend import get_device
from scratchnet.optimizers import PIECE, SGD, Adam
from tests.kernels.gpu.host_cuda import NEEDS_COMPILER, KernelDevice
from tests.reference.checks import assert_close
from tests.reference.strategies import generators

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])


class KerasAdam:
    """Kingma and Ba 2015, the efficient form at the end of section 2: epsilon is outside of the bias correction."""

    def __init__(self, learning_rate: float, beta_1: float, beta_2: float, epsilon: float) -> None:
        self.learning_rate, self.beta_1, self.beta_2, self.epsilon = learning_rate, beta_1, beta_2, epsilon
        self.m = self.v = 0.0
        self.step = 0

    def __call__(self, parameter: float, gradient: float) -> float:
        self.step += 1
        self.m = self.beta_1 * self.m + (1 - self.beta_1) * gradient
        self.v = self.beta_2 * self.v + (1 - self.beta_2) * gradient**2
        rate = self.learning_rate * math.sqrt(1 - self.beta_2**self.step) / (1 - self.beta_1**self.step)
        return parameter - rate * self.m / (math.sqrt(self.v) + self.epsilon)


class PyTorchAdam(KerasAdam):
    """Kingma and Ba 2015, algorithm 1: epsilon is added to the corrected deviation."""

    def __call__(self, parameter: float, gradient: float) -> float:
        self.step += 1
        self.m = self.beta_1 * self.m + (1 - self.beta_1) * gradient
        self.v = self.beta_2 * self.v + (1 - self.beta_2) * gradient**2
        mean, variance = self.m / (1 - self.beta_1**self.step), self.v / (1 - self.beta_2**self.step)
        return parameter - self.learning_rate * mean / (math.sqrt(variance) + self.epsilon)


class ByHandSGD:
    """Keras: v = momentum v - rate g; w += v, or with Nesterov's momentum w += momentum v - rate g."""

    def __init__(self, learning_rate: float, momentum: float, nesterov: bool) -> None:
        self.learning_rate, self.momentum, self.nesterov, self.v = learning_rate, momentum, nesterov, 0.0

    def __call__(self, parameter: float, gradient: float) -> float:
        self.v = self.momentum * self.v - self.learning_rate * gradient
        return parameter + (self.momentum * self.v - self.learning_rate * gradient if self.nesterov else self.v)


def compare(optimizer: Any, by_hand: list[Any], dtype: str, rng: np.random.Generator, steps: int = 20) -> None:
    """Both go the same way from the same start, with gradients from tiny to large and some zero."""
    size = len(by_hand)
    parameters = rng.normal(size=size).astype(dtype)
    expected = parameters.astype(np.float64)
    optimizer.build(parameters)
    for _ in range(steps):
        gradients = (rng.normal(size=size) * 10.0 ** rng.integers(-6, 3, size=size) * (rng.random(size) > 0.1)).astype(
            dtype
        )
        before = gradients.copy()
        optimizer.update(gradients)
        assert np.array_equal(gradients, before)
        expected = np.array([rule(w, g) for rule, w, g in zip(by_hand, expected, gradients.tolist(), strict=True)])
        assert parameters.dtype == dtype
        assert_close(parameters, expected, TOLERANCE[dtype])


@DTYPES
@pytest.mark.parametrize(("placement", "rule"), [("keras", KerasAdam), ("pytorch", PyTorchAdam)])
@given(
    size=st.integers(1, 40),
    learning_rate=st.sampled_from([1e-3, 0.1]),
    betas=st.sampled_from([(0.9, 0.999), (0.5, 0.9), (0.0, 0.9)]),
    epsilon=st.sampled_from([1e-7, 1e-3]),
    rng=generators(),
)
def test_adam(
    placement: Any, rule: Any, dtype: str, size: int, learning_rate: float, betas: Any, epsilon: float, rng: Any
) -> None:
    options = learning_rate, *betas, epsilon
    compare(Adam(*options, epsilon_placement=placement), [rule(*options) for _ in range(size)], dtype, rng, steps=5)


@DTYPES
@given(size=st.integers(1, 40), momentum=st.sampled_from([0.0, 0.5, 0.9]), nesterov=st.booleans(), rng=generators())
def test_sgd(dtype: str, size: int, momentum: float, nesterov: bool, rng: np.random.Generator) -> None:
    nesterov = nesterov and momentum > 0
    by_hand = [ByHandSGD(0.05, momentum, nesterov) for _ in range(size)]
    compare(SGD(0.05, momentum=momentum, nesterov=nesterov), by_hand, dtype, rng, steps=5)


def test_defaults_are_those_of_keras() -> None:
    rng = np.random.default_rng(1)
    compare(Adam(), [KerasAdam(1e-3, 0.9, 0.999, 1e-7) for _ in range(10)], "float64", rng)
    compare(SGD(), [ByHandSGD(0.01, 0.0, False) for _ in range(10)], "float64", rng)


@pytest.mark.parametrize("make", [Adam, lambda: SGD(momentum=0.9), lambda: SGD(momentum=0.9, nesterov=True), SGD])
def test_long_vectors_are_updated_to_the_last_number(make: Any) -> None:
    """Each number by itself: a long vector changes as its pieces would."""
    rng = np.random.default_rng(2)
    parameters, gradients = rng.normal(size=200_003), rng.normal(size=(3, 200_003))
    whole = parameters.copy()
    optimizer = make()
    optimizer.build(whole)
    for step in range(3):
        optimizer.update(gradients[step])
    for piece in (slice(0, 1), slice(70_000, 70_010), slice(200_000, 200_003)):
        part, other = parameters[piece].copy(), make()
        other.build(part)
        for step in range(3):
            other.update(gradients[step, piece])
        assert_close(whole[piece], part, 1e-14)
    assert np.all(whole != parameters)


@pytest.mark.parametrize("make", [Adam, lambda: SGD(momentum=0.9)])
@pytest.mark.parametrize("size", [5, 40_000])
def test_several_gradients_add_up(make: Any, size: int) -> None:
    """One vector a worker."""
    rng = np.random.default_rng(3)
    parts, together, apart = rng.normal(size=(3, size)), rng.normal(size=size), make()
    separate, total = together.copy(), make()
    total.build(together)
    apart.build(separate)
    for _ in range(2):
        total.update(parts.sum(axis=0))
        apart.update(*parts)
    assert_close(separate, together, 1e-13)


def test_the_first_step_of_adam_is_the_learning_rate() -> None:
    """Whatever the gradient's size (well above epsilon): Adam's best known property."""
    parameters = np.zeros(4)
    optimizer = Adam(learning_rate=0.1)
    optimizer.build(parameters)
    optimizer.update(np.array([1e-2, -3.0, 1e8, 0.0]))
    assert np.allclose(parameters, [-0.1, 0.1, -0.1, 0], rtol=1e-3)


def test_epsilon_placement_matters_and_is_not_mixed_up() -> None:
    """At the first step and g = epsilon: keras divides by sqrt(0.001) g + epsilon, pytorch by g + epsilon."""
    results = []
    for placement in ("keras", "pytorch"):
        parameters = np.zeros(1)
        optimizer = Adam(learning_rate=1.0, epsilon=1e-3, epsilon_placement=placement)
        optimizer.build(parameters)
        optimizer.update(np.array([1e-3]))
        results.append(-parameters[0])
    root = math.sqrt(0.001)
    assert_close(results, [root / (root + 1), 0.5])


@DTYPES
@pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=NEEDS_COMPILER)])
@pytest.mark.parametrize(
    "make", [lambda: Adam(beta_2=0.9), lambda: SGD(momentum=0.9), lambda: SGD(momentum=0.9, nesterov=True)]
)
def test_no_decaying_sum_is_ever_denormal(make: Any, device: Any, dtype: str) -> None:
    """Half of the gradients, of many sizes, stop: their units have died."""
    rng = np.random.default_rng(4)
    size, steps = (PIECE + 9, 1500) if dtype == "float32" else (9, 15_000)
    gradients = (rng.normal(size=size) * 10.0 ** rng.integers(-12, 3, size=size)).astype(dtype)
    optimizer, device = make(), KernelDevice() if device == "gpu" else get_device("cpu")
    optimizer.build(device.to_device(rng.normal(size=size).astype(dtype)), device=device)
    for step in range(steps):
        optimizer.update(device.to_device(gradients))
        if step == 5:
            gradients[::2] = 0
        if step % 10 == 0:
            for vector in map(device.to_host, optimizer.moments.values()):
                assert not ((vector != 0) & (np.abs(vector) < np.finfo(dtype).tiny)).any(), f"after step {step + 1}"
    for vector in map(device.to_host, optimizer.moments.values()):
        assert vector[1::2].all()
        assert not vector[::2].any()


@DTYPES
@pytest.mark.parametrize("beta_1", [0.0, 0.5, 0.9])
def test_a_sweep_moves_no_parameter(dtype: str, beta_1: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit the same without it, as docs/derivations/adam.md proves."""
    rng = np.random.default_rng(5)
    size, results = 5000, []
    start = rng.normal(size=size).astype(dtype)
    sizes = 10.0 ** rng.uniform(-40 if dtype == "float32" else -300, 0, size=size)
    for sweep in (optimizers.SWEEP, 10**9):
        monkeypatch.setattr(optimizers, "SWEEP", sweep)
        source, parameters, optimizer = np.random.default_rng(6), start.copy(), Adam(beta_1=beta_1)
        optimizer.build(parameters)
        for step in range(200):
            alive = source.random(size) < (1.0 if step < 20 else 0.02)
            optimizer.update((source.normal(size=size) * sizes * alive).astype(dtype))
        results.append((parameters, optimizer.moments["v"]))
    (swept, v), (unswept, v_unswept) = results
    assert np.array_equal(swept, unswept)
    assert not np.array_equal(v, v_unswept)


def test_a_sweep_keeps_what_is_not_finite() -> None:
    """The trainer finds divergence there."""
    optimizer = Adam()
    optimizer.build(np.zeros(4, np.float32))
    optimizer.step = optimizers.SWEEP - 1
    optimizer.moments["m"][...] = [np.nan, np.inf, -np.inf, 1e-32]
    with np.errstate(all="ignore"):
        optimizer.update(np.zeros(4, np.float32))
    assert np.array_equal(np.isfinite(optimizer.moments["m"]), [False, False, False, True])
    assert optimizer.moments["m"][3] == 0


@NEEDS_COMPILER
def test_an_optimizer_leaves_the_gpu_for_the_cpu() -> None:
    device, gradients = KernelDevice(), np.array([1.0, -2.0])
    optimizer, fresh, parameters, others = Adam(), Adam(), np.ones(2), np.ones(2)
    optimizer.build(device.to_device(np.ones(2)), device=device)
    optimizer.update(device.to_device(gradients))
    for each, of_each in ((optimizer, parameters), (fresh, others)):
        each.build(of_each)
        each.update(gradients)
    assert np.array_equal(parameters, others)


@pytest.mark.parametrize("make", [Adam, lambda: SGD(momentum=0.9)])
def test_a_second_build_starts_anew(make: Any) -> None:
    used, fresh = make(), make()
    used.build(np.ones(3))
    used.update(np.full(3, 7.0))
    first, second = np.ones(2), np.ones(2)
    used.build(first)
    fresh.build(second)
    for _ in range(2):
        used.update(np.array([1.0, -2.0]))
        fresh.update(np.array([1.0, -2.0]))
    assert np.array_equal(first, second)


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (Adam, {"learning_rate": 0}),
        (Adam, {"learning_rate": -1e-3}),
        (Adam, {"learning_rate": float("nan")}),
        (Adam, {"beta_1": 1.0}),
        (Adam, {"beta_1": -0.1}),
        (Adam, {"beta_2": 1.0}),
        (Adam, {"epsilon": 0}),
        (Adam, {"epsilon": -1e-7}),
        (Adam, {"epsilon_placement": "keras2"}),
        (SGD, {"learning_rate": 0}),
        (SGD, {"learning_rate": float("inf")}),
        (SGD, {"momentum": 1.0}),
        (SGD, {"momentum": -0.5}),
        (SGD, {"momentum": float("nan")}),
    ],
)
def test_bad_options(optimizer: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"(?i){optimizer.__name__}.*{next(iter(options))}"):
        optimizer(**options)


@pytest.mark.parametrize("optimizer", [Adam, SGD])
def test_bad_gradients(optimizer: Any) -> None:
    built = optimizer()
    with pytest.raises(RuntimeError, match="build"):
        optimizer().update(np.zeros(3))
    built.build(np.zeros(3))
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        built.update(np.zeros(2))


def test_an_epsilon_that_is_0_in_float32_is_refused() -> None:
    with pytest.raises(ValueError, match="Adam: epsilon 1e-60 is 0 in float32"):
        Adam(epsilon=1e-60).build(np.zeros(3, np.float32))
    optimizer, parameters = Adam(epsilon=1e-60), np.ones(3)
    optimizer.build(parameters)
    optimizer.update(np.zeros(3))
    assert (parameters == 1).all()
