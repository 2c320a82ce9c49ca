"""check_gradients: small for right gradients, large for wrong ones, and honest where there is no gradient."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from scratchnet import NotDifferentiableError, Sequential, check_gradients
from scratchnet.backend import run
from scratchnet.experiments.recipes import RECIPES
from scratchnet.heads import GumbelSoftmaxCrossEntropy, SoftmaxCrossEntropy
from scratchnet.layers import (
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GumbelSoftmax,
    MaxPooling2D,
    ReLU,
    Softmax,
)
from tests.layers.catalogue import EXAMPLES
from tests.reference.checks import distinct
from tests.reference.strategies import Convolution, convolutions

HEADS = [SoftmaxCrossEntropy(), GumbelSoftmaxCrossEntropy(0.5)]


def network() -> Sequential:
    return Sequential(
        [Conv2D(4, 3, padding="same"), BatchNormalization(), ReLU(), MaxPooling2D(), Dropout(0.2), Flatten(), Dense(5)]
    )


# --- right gradients


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("training", [True, False])
def test_every_layer_is_right(name: str, training: bool) -> None:
    for seed in range(3):
        x = distinct((3, *EXAMPLES[name].input_shape), np.random.default_rng(seed))
        assert check_gradients(EXAMPLES[name].make(), x, training=training, seed=seed) < 1e-7


@given(case=convolutions())
@settings(max_examples=15)
def test_every_convolution_is_right(case: Convolution) -> None:
    layer = Conv2D(case.filters, case.kernel_size, case.strides, case.padding, case.dilation_rate)
    x = np.random.default_rng(case.seed).normal(size=(case.batch, *case.input_shape))
    assert check_gradients(layer, x) < 1e-7


def test_a_network_is_right() -> None:
    assert check_gradients(network(), np.random.default_rng(1).normal(size=(3, 8, 6, 2))) < 1e-7


@pytest.mark.parametrize("head", HEADS)
def test_heads_are_right(head: Any) -> None:
    rng = np.random.default_rng(2)
    assert check_gradients(head, 3 * rng.normal(size=(6, 5)), rng.integers(0, 5, 6)) < 1e-7


def test_straight_through_has_the_gradient_of_its_soft_version() -> None:
    x = np.random.default_rng(3).normal(size=(6, 5))
    assert check_gradients(GumbelSoftmax(0.7, straight_through=True), x) < 1e-7
    assert check_gradients(Sequential([Dense(4), GumbelSoftmax(0.7, straight_through=True)]), x) < 1e-7


# --- wrong gradients


class WrongInputGradient(Dense):
    def compute_gradients(self) -> None:
        super().compute_gradients()
        run(np.multiply, self.dx[0, :1], 1.01, self.dx[0, :1])


class WrongBiasGradient(Dense):
    def compute_gradients(self) -> None:
        super().compute_gradients()
        run(np.add, self.dbias[-1:], 1e-3, self.dbias[-1:])


class ForgottenKernelGradient(Dense):
    def compute_gradients(self) -> None:
        super().compute_gradients()
        self.ops.fill(0, out=self.dkernel)


class TransposedKernelGradient(Dense):
    def compute_gradients(self) -> None:
        super().compute_gradients()
        with self.memory.scratch() as take:
            straight = take(*self.kernel.shape)
            self.ops.copy(self.dkernel, out=straight)
            self.ops.copy(straight.T, out=self.dkernel)


class NoSoftmaxGradient(Softmax):
    """The sum of a softmax is constant: a check with an output gradient of ones would find nothing wrong."""

    def compute_gradients(self) -> None:
        self.ops.fill(0, out=self.dx)


class ReLUThatLetsEverythingThrough(ReLU):
    def compute_gradients(self) -> None:
        self.ops.copy(self.dy, out=self.dx)


class ForgetsTheTemperature(GumbelSoftmax):
    def compute_gradients(self) -> None:
        Softmax.compute_gradients(self)


class WrongWhereLarge(Dense):
    def compute_gradients(self) -> None:
        super().compute_gradients()
        run(self._spoil)

    def _spoil(self) -> None:
        self.dx *= 1 + 0.01 * (abs(self.kernel).max() > 50)


class ForgetsGamma(BatchNormalization):
    """Which is 1 when the layer is new."""

    def compute_gradients(self) -> None:
        super().compute_gradients()
        self.ops.divide(self.dx, self.gamma, out=self.dx)


class ForgetsTheVariance(BatchNormalization):
    """In inference it is the moving one, which is 1 when the layer is new."""

    def compute_gradients(self) -> None:
        super().compute_gradients()
        self.ops.divide(self.dx, self.inverse, out=self.dx)


class SquaredBias(Dense):
    """y = x kernel + bias^2 without the factor 2; the bias is 0 when the layer is new."""

    def compute(self, training: bool) -> None:
        self.ops.matmul(self.x, self.kernel, out=self.y)
        self.ops.multiply(self.bias, self.bias, out=self.dbias)
        self.ops.add(self.y, self.dbias, out=self.y)

    def compute_gradients(self) -> None:
        super().compute_gradients()
        self.ops.multiply(self.dbias, self.bias, out=self.dbias)


class AddsToWhatWasThere(Dense):
    def compute_gradients(self) -> None:
        with self.scratch() as before:
            self.ops.copy(self.dx, out=before)
            super().compute_gradients()
            self.ops.add(self.dx, before, out=self.dx)


class KeepsTheFirstInput(Dense):
    first: Any = None

    def compute(self, training: bool) -> None:
        super().compute(training)
        run(self._keep)

    def _keep(self) -> None:
        if self.first is None:
            self.first = self.x.copy()

    def compute_gradients(self) -> None:
        super().compute_gradients()
        run(lambda: np.matmul(self.first.T, self.dy, self.dkernel))


class DrawsItsOwnNumbers(ReLU):
    source = np.random.default_rng(0)

    def compute(self, training: bool) -> None:
        super().compute(training)
        run(lambda: np.multiply(self.y, self.source.random(self.y.shape), self.y))


class ForgetsTheMean(SoftmaxCrossEntropy):
    def __call__(self, logits: Any, labels: Any, step: int = 0) -> tuple[float, Any]:
        loss, dlogits = super().__call__(logits, labels, step)
        return loss, dlogits * len(logits)


@pytest.mark.parametrize(
    "layer",
    [
        WrongInputGradient(5),
        WrongBiasGradient(5),
        ForgottenKernelGradient(5),
        TransposedKernelGradient(5),
        NoSoftmaxGradient(),
        ReLUThatLetsEverythingThrough(),
        ForgetsTheTemperature(0.5),
        ForgetsGamma(),
        SquaredBias(5),
        AddsToWhatWasThere(5),
        KeepsTheFirstInput(5),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_wrong_gradients_are_found(layer: Any) -> None:
    x = distinct((4, 5), np.random.default_rng(4))
    assert check_gradients(layer, x) > 1e-4
    assert check_gradients(Sequential([layer]), x) > 1e-4


def test_a_wrong_layer_is_found_in_inference() -> None:
    assert check_gradients(ForgetsTheVariance(), distinct((4, 5), np.random.default_rng(4)), training=False) > 1e-4


def test_own_randomness_is_not_taken_for_a_kink() -> None:
    with pytest.raises(TypeError, match=r"differs between two computations of one step.*self\.noise"):
        check_gradients(DrawsItsOwnNumbers(), distinct((4, 5), np.random.default_rng(4)))


def test_a_wrong_head_is_found() -> None:
    rng = np.random.default_rng(5)
    assert check_gradients(ForgetsTheMean(), rng.normal(size=(6, 5)), rng.integers(0, 5, 6)) > 0.1


def test_a_wrong_layer_is_found_within_a_network() -> None:
    layers = [Conv2D(4, 3, padding="same"), ReLU(), MaxPooling2D(), Flatten(), WrongBiasGradient(6), ReLU(), Dense(5)]
    assert check_gradients(Sequential(layers), np.random.default_rng(6).normal(size=(3, 6, 4, 2))) > 1e-5


# --- points without a gradient


def test_a_relu_at_zero_is_refused() -> None:
    x = distinct((4, 5), np.random.default_rng(7))
    x[2, 3] = 0
    with pytest.raises(NotDifferentiableError, match=r"(?i)re_?lu: x"):
        check_gradients(ReLU(), x)


@pytest.mark.parametrize("strides", [2, 1])
def test_a_tie_in_max_pooling_is_refused(strides: int) -> None:
    x = distinct((2, 4, 4, 3), np.random.default_rng(8))
    x[1, 2:, 2:, 1] = 5  # the largest of its window, four times
    with pytest.raises(NotDifferentiableError, match=r"max_pooling2d: x"):
        check_gradients(MaxPooling2D(2, strides=strides), x)


def test_a_kink_inside_a_network_is_refused() -> None:
    """No bias and an image of zeros: every ReLU stands at zero, whatever the kernel."""
    with pytest.raises(NotDifferentiableError, match="a ReLU at 0"):
        check_gradients(Sequential([Conv2D(4, 3, use_bias=False), ReLU()]), np.zeros((2, 5, 5, 3)))


def test_ties_that_do_not_matter_are_no_kink() -> None:
    x = distinct((2, 4, 4, 3), np.random.default_rng(9))
    x[0, 0, 0, 0] = 5
    x[0, 1, :2, 0] = -5  # equal, but not the largest of their window
    assert check_gradients(MaxPooling2D(2), x) < 1e-7
    assert check_gradients(ReLU(), x) < 1e-7


@pytest.mark.parametrize("distance", [1e-2, 1e-3, 1e-4])
def test_a_kink_nearby_is_stepped_around(distance: float) -> None:
    x = distinct((4, 5), np.random.default_rng(10))
    x[1, 1], x[2, 2] = distance, -distance
    assert check_gradients(ReLU(), x) < 1e-7


# --- manners


def test_the_target_is_left_as_it_was() -> None:
    target, x = network(), np.random.default_rng(11).normal(size=(3, 8, 6, 2)).astype(np.float32)
    target.build(x.shape[1:], seed=3)
    target.forward(x, training=True)
    target.backward(np.ones((3, 5), np.float32))
    before = {name: array.copy() for name, array in target.weights().items()}
    gradients, step, x_before = target.gradients.copy(), target.clock.step, x.copy()
    assert check_gradients(target, x) < 1e-7
    assert all(np.array_equal(array, before[name]) for name, array in target.weights().items())
    assert np.array_equal(target.gradients, gradients)
    assert (target.clock.step, target.dtype) == (step, np.float32)
    assert np.array_equal(x, x_before)


def test_the_targets_own_parameters_are_checked() -> None:
    """Wrong where a kernel is large, which that of a fresh layer is not."""
    target, x = WrongWhereLarge(4), np.random.default_rng(12).normal(size=(5, 6))
    assert check_gradients(target, x) < 1e-7
    target.build((6,))
    assert check_gradients(target, x) < 1e-7
    target.kernel[...] = 100
    assert check_gradients(target, x) > 1e-3


def test_an_unbuilt_target_stays_unbuilt() -> None:
    layer = Dense(3)
    assert check_gradients(layer, np.random.default_rng(13).normal(size=(2, 4))) < 1e-7
    assert not layer.built


def test_a_wrong_call_gets_one_sentence() -> None:
    with pytest.raises(ValueError, match="labels"):
        check_gradients(SoftmaxCrossEntropy(), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="labels are for a head"):
        check_gradients(ReLU(), np.ones((2, 3)), np.array([0, 1]))
    with pytest.raises(TypeError, match=r"Dense is not a layer.*make one"):
        check_gradients(Dense, np.ones((2, 3)))  # type: ignore[arg-type]
    layer = Dense(3)
    layer.build((1,))
    with pytest.raises(ValueError, match=r"dense: x has the shape \(2, 6\) where \(N, 1,\) is wanted"):
        check_gradients(layer, np.ones((2, 6)))


@pytest.mark.parametrize("name", list(RECIPES))
def test_networks_of_full_size_have_kinks_close_by_and_are_checked_all_the_same(name: str) -> None:
    x = np.random.default_rng(0).random((2, 32, 32, 3))
    assert check_gradients(RECIPES[name].network(100), x, directions=1) < 1e-7


def test_a_large_relu() -> None:
    x = np.random.default_rng(0).standard_normal((64, 32, 32, 32))
    assert check_gradients(ReLU(), x, directions=1) < 1e-7
    x[0, 0, 0, 0] = 0
    with pytest.raises(NotDifferentiableError):
        check_gradients(ReLU(), x, directions=1)


def test_points_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        check_gradients(ReLU(), np.array([[1.0, np.nan]]))
