"""Training that diverges says at which step, in which layer, and between which values."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from scratchnet import Adam, BatchNormalization, GumbelSoftmaxCrossEntropy, Sequential, SoftmaxCrossEntropy
from scratchnet.errors import TrainingError
from scratchnet.training import Progress, Trainer, trainer
from scratchnet.training.diagnosis import first_of_step
from tests.backend.strict_device import StrictDevice
from tests.training.problem import dataset, network

Spoil = Callable[[Sequential], None]


def trainer_of(net: Sequential, head: Any = None, optimizer: Any = None, workers: int = 1) -> Trainer:
    head, optimizer = head or SoftmaxCrossEntropy(), optimizer or Adam()
    return Trainer(net, head, optimizer, dataset(), batch_size=32, workers=workers)


def message(training: Trainer, epoch: int = 1) -> str:
    with pytest.raises(TrainingError) as caught:
        training.train_epoch(epoch)
    return str(caught.value)


def plant(layer: int, name: str, value: float) -> Spoil:
    return lambda net: net.layers[layer].parameters[name].reshape(-1)[:1].fill(value)


def scale(factors: dict[int, float]) -> Spoil:
    def spoil(net: Sequential) -> None:
        for layer, factor in factors.items():
            net.layers[layer].parameters["kernel"][...] *= factor

    return spoil


PLACE = r"training diverged at step 4 \(epoch 2, batch 1 of 3\): "
GRADIENT = scale({0: 1e25, -1: 1e-25})
CASES = {
    "NaN in a kernel": (
        plant(3, "kernel", np.nan),
        r"conv2d_1/kernel went first \(0 infinite and 1 NaN of 864 values, the others from -0",
    ),
    "huge weights": (
        scale({0: 1e20, 3: 1e20}),
        r"the output of conv2d_1 went first \(\d+ infinite and \d+ NaN of 8192 values",
    ),
    "a gradient alone": (
        GRADIENT,
        r"the gradient of dense/kernel went first \(0 infinite and 0 NaN .* to 2\.\d+e\+23, of which the squares",
    ),
    "inf in a bias": (plant(-1, "bias", np.inf), r"dense/bias went first \(1 infinite and 0 NaN of 5 values"),
    "huge weights of the last layer": (scale({0: 1e20, -1: 1e20}), "the output of dense went first"),
}


@pytest.mark.parametrize("workers", [1, 2])
def test_names_step_layer_and_range_and_undoes_the_step(workers: int) -> None:
    with trainer_of(net := network(), workers=workers) as training:
        training.train_epoch(1)
        state = training.state()
        for spoil, what in CASES.values():
            spoil(net)
            before = net.parameters.copy()
            assert re.fullmatch(f"{PLACE}{what}.*; try a smaller learning rate than 0.001", message(training, 2))
            np.testing.assert_array_equal(net.parameters, before)
            training.restore(state, Progress())
        training.train_epoch(2)


@pytest.mark.parametrize("case", CASES)
def test_on_a_gpu(case: str) -> None:
    """There the steps after the one that diverged are done before anybody looks."""
    spoil, what = CASES[case]
    net = network().unbuilt()
    net.build((8, 8, 3), device=StrictDevice())
    with trainer_of(net) as training:
        training.train_epoch(1)
        spoil(net)
        assert re.match(PLACE + what, message(training, 2))


def test_a_gradient_that_overflows_is_found_though_no_loss_tells() -> None:
    losses: list[float] = []
    with trainer_of(net := network()) as training:
        GRADIENT(net)
        with pytest.raises(TrainingError, match=r"step 1 .* the gradient of dense/kernel went first"):
            training.train_epoch(1, lambda step, steps, loss, accuracy: losses.append(loss))
    assert len(losses) == 2
    assert np.isfinite(losses).all()


def test_moving_averages_that_overflow_alone() -> None:
    with trainer_of(net := network(BatchNormalization())) as training:
        scale({0: 1e20})(net)
        assert "the new batch_normalization/moving_variance went first" in message(training)


def test_a_state_that_is_not_finite_is_not_given_out() -> None:
    given: list[Any] = []
    with trainer_of(net := network()) as training:
        GRADIENT(net)
        with pytest.raises(TrainingError, match=r"step 1 .* the gradient of dense/kernel went first"):
            training.train_epoch(1, lambda *_: given.append(training.state()))
    assert given == []


def test_the_step_is_found_again_between_two_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for look in (1, 2, 50):
        monkeypatch.setattr(trainer, "LOOK", look)
        with trainer_of(network(), optimizer=Adam(1e9)) as training:
            found.append(message(training))
    assert found[0] == found[1] == found[2]
    assert re.match(r"training diverged at step 2 .*: the gradient of dense/kernel went first .* 1e\+09$", found[0])


@pytest.mark.parametrize(
    ("rate", "what"),
    [
        (1e30, r"step 2 \(epoch 1, batch 2 of 3\): the output of conv2d_1 went first"),
        (1e300, r"step 1 \(epoch 1, batch 1 of 3\): the new conv2d/kernel went first \(\d+ infinite"),
    ],
)
def test_absurd_learning_rates(rate: float, what: str) -> None:
    with trainer_of(network(), GumbelSoftmaxCrossEntropy(), Adam(rate)) as training:
        assert re.match(f"training diverged at {what}.* or a higher temperature$", message(training))


def test_a_loss_that_overflows_by_itself() -> None:
    with trainer_of(net := network()) as training:
        net.layers[-1].parameters["bias"][:2] = 3e38, -3e38
        assert re.search(r"the loss of finite logits \(0 .* from -3e\+38 to 3e\+38\) went first", message(training))


def test_logits_of_a_prediction() -> None:
    with trainer_of(net := network()) as training:
        training.train_epoch(1)
        scale({0: 1e20, 3: 1e20})(net)
        with pytest.raises(TrainingError, match=r"after step 3: the logits of test image 0 .* the output of conv2d_1 "):
            training.predict()


def test_a_step_that_is_finite_when_computed_again() -> None:
    net, train, head = network(), dataset().train, SoftmaxCrossEntropy()
    head.build(net.output_shape)
    text = first_of_step(net, net, head, train.images[:4], train.labels[:4], 0)
    assert text == "all is finite when it is computed once more, so the machine may have erred"
