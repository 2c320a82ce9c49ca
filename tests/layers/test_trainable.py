"""Frozen layers: their parameters and gradients do not move, and what leads only to them is left out."""

from typing import Any

import numpy as np
import pytest

from scratchnet import (
    SGD,
    Adam,
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    MaxPooling2D,
    ReLU,
    Residual,
    Sequential,
    SoftmaxCrossEntropy,
    Trainer,
)
from scratchnet.backend import Memory, whole
from tests.backend.strict_device import StrictDevice
from tests.kernels.gpu.host_cuda import NEEDS_COMPILER, KernelDevice
from tests.training.problem import dataset

OPTIMIZERS = {"adam": lambda: Adam(1e-2), "momentum": lambda: SGD(0.02, 0.9), "nesterov": lambda: SGD(0.02, 0.9, True)}


def convolutional() -> Sequential:
    block = Residual([BatchNormalization(), ReLU(), Conv2D(16, 3, padding="same")], name="block")
    layers = [Conv2D(16, 3, padding="same"), ReLU(), MaxPooling2D(), block, Dropout(0.1), Conv2D(6, 3), ReLU()]
    return Sequential([*layers, Flatten(), Dense(8), ReLU(), Dense(5)])


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("frozen", [["conv2d", "block"], ["dense"], ["conv2d", "block", "conv2d_2", "dense"]], ids=str)
def test_frozen_parameters_stay_and_the_others_move(frozen: list[str], optimizer: str, workers: int) -> None:
    """Bit for bit, and no gradient of theirs is left in the flat vector."""
    network = convolutional()
    network.build((8, 8, 3), seed=2)
    for layer in network.layers:
        if layer.name in frozen:
            layer.trainable = False  # type: ignore[misc]
    before, kept = network.weights(), [layer for layer in network.leaves if not layer.trainable]
    kept_names = {f"{layer.name}/{name}" for layer in kept for name in layer.arrays()}
    with Trainer(
        network, SoftmaxCrossEntropy(), OPTIMIZERS[optimizer](), dataset(), batch_size=32, workers=workers
    ) as trainer:
        losses = [trainer.train_epoch(epoch).loss for epoch in (1, 2, 3)]
        gradients = trainer.engine.arrays["gradients"]
        start = 0
        for layer in network.leaves:
            part = gradients[:, start : (start := start + layer.layout.size)]
            assert part.any() == bool(layer.shapes and layer.trainable), layer.name
    assert losses[-1] < losses[0]
    for name, array in network.weights().items():
        assert np.array_equal(array, before[name]) == (name in kept_names), name


def going_back(network: Any, input_gradient: bool = False) -> list[str]:
    plan = network.bind(whole(2), Memory(network.device, network.dtype), input_gradient=input_gradient)
    return [layer.name for layer in reversed(plan.going_back)]


def test_what_leads_only_to_frozen_layers_is_left_out_of_the_way_back() -> None:
    network = convolutional()
    network.build((8, 8, 3))
    first, *_, dense, _, last = network.layers
    assert going_back(network) == [
        "conv2d", "fork", "batch_normalization", "re_lu_1", "conv2d_1", "add", "dropout", "conv2d_2", "flatten",
        "dense", "re_lu_3", "dense_1",
    ]  # fmt: skip
    first.trainable = False  # type: ignore[misc]
    assert going_back(network)[:3] == ["batch_normalization", "re_lu_1", "conv2d_1"]
    network.layers[3].trainable = False  # type: ignore[misc]
    assert going_back(network) == ["conv2d_2", "flatten", "dense", "re_lu_3", "dense_1"]
    assert going_back(network, input_gradient=True)[:2] == ["conv2d", "fork"]  # where somebody asks for dx
    network.layers[5].trainable = dense.trainable = False  # type: ignore[misc]
    assert going_back(network) == ["dense_1"]
    last.trainable = False  # type: ignore[misc]
    assert going_back(network) == []
    first.trainable = True  # type: ignore[misc]
    assert going_back(network)[0] == "conv2d"
    assert len(going_back(network)) == 12  # the gradient goes through what is frozen


@pytest.mark.parametrize("where", [None, StrictDevice, pytest.param(KernelDevice, marks=NEEDS_COMPILER)])
def test_the_gradients_that_are_left_are_the_same(where: Any) -> None:
    rng, network = np.random.default_rng(0), convolutional()
    network.build((8, 8, 3), dtype="float64", device=where and where())
    to_device, to_host = network.device.to_device, network.device.to_host
    x, dy = rng.normal(size=(4, 8, 8, 3)), rng.normal(size=(4, 5))

    def step() -> dict[str, np.ndarray]:
        network.clock.step = 3
        network.forward(to_device(x), training=True)
        dx = network.backward(to_device(dy))
        named = ((f"{layer.name}/{name}", array) for layer in network.leaves for name, array in layer.gradients.items())
        return {"dx": to_host(dx)} | {name: to_host(array) for name, array in named}

    for index in (0, 5, 8):  # of which two work as one with a ReLU
        expected = step()
        network.layers[index].trainable = False  # type: ignore[misc]
        found = step()
        for name, array in expected.items():
            if name.startswith(f"{network.layers[index].name}/"):
                assert not found[name].any(), name
            else:
                np.testing.assert_array_equal(found[name], array)


def test_a_frozen_batch_normalization_uses_its_moving_averages_in_training() -> None:
    """As in Keras, where it is the one layer that also computes otherwise when it is frozen."""
    rng, layer = np.random.default_rng(1), BatchNormalization(momentum=0.5)
    layer.build((4,), dtype="float64")
    layer.gamma[...], layer.beta[...] = rng.normal(size=(2, 4))
    layer.forward(3 + 2 * rng.normal(size=(9, 4)), training=True)
    x, dy, before = rng.normal(size=(5, 4)), rng.normal(size=(5, 4)), layer.weights()
    layer.trainable = False
    scale = layer.gamma / np.sqrt(layer.moving_variance + 1e-3)
    for training in (True, False):
        np.testing.assert_allclose(layer.forward(x, training), (x - layer.moving_mean) * scale + layer.beta, rtol=1e-12)
        np.testing.assert_allclose(layer.backward(dy), dy * scale, rtol=1e-12)
    assert all(np.array_equal(array, before[name]) for name, array in layer.weights().items())
    layer.trainable = True
    layer.forward(x, training=True)
    assert not np.array_equal(layer.moving_mean, before["batch_normalization/moving_mean"])


def test_setting_it_after_a_forward_takes_effect_in_the_next() -> None:
    """In a loop of one's own too: a gradient that was there must not move what is frozen now."""
    rng, network, optimizer = np.random.default_rng(2), Sequential([Dense(4), ReLU(), Dense(3)]), SGD(0.1)
    network.build((5,), dtype="float64")
    optimizer.build(network.parameters)
    first, _, last = network.layers

    def step() -> list[bool]:
        before = [layer.kernel.copy() for layer in (first, last)]  # type: ignore[attr-defined]
        y = network.forward(rng.normal(size=(6, 5)), training=True)
        network.backward(rng.normal(size=y.shape))
        optimizer.update(network.gradients)
        kernels = [layer.kernel for layer in (first, last)]  # type: ignore[attr-defined]
        return [not np.array_equal(now, then) for now, then in zip(kernels, before, strict=True)]

    assert step() == [True, True]
    first.trainable = False  # type: ignore[misc]
    assert step() == [False, True]
    last.trainable = False  # type: ignore[misc]
    assert step() == [False, False]
    network.trainable = True
    assert step() == [True, True]


def test_a_network_is_frozen_as_a_whole_and_says_so() -> None:
    network = convolutional()
    network.build((8, 8, 3))
    block, printed = network.layers[3], list[str]()
    block.trainable = False  # type: ignore[misc]
    assert [layer.name for layer in network.leaves if layer.shapes and not layer.trainable] == [
        "batch_normalization", "conv2d_1",
    ]  # fmt: skip
    assert not block.trainable
    assert network.trainable
    network.summary(printed.append)
    frozen = 2 * 16 + 9 * 16 * 16 + 16
    moving = 2 * 16
    total = network.count_parameters() + moving
    assert printed[-3:] == [
        f"Total parameters: {total:,}",
        f"Trainable parameters: {total - frozen - moving:,}",
        f"Non-trainable parameters: {frozen + moving:,}",
    ]
    network.trainable = False
    assert not any(layer.trainable for layer in network.leaves if layer.shapes)
    assert not network.trainable
    block.layers[0].layers[0].trainable = True  # type: ignore[attr-defined]
    assert network.trainable


@pytest.mark.parametrize("value", ["no", 0, 1, None, "False"])
def test_another_value_is_refused(value: Any) -> None:
    layer, block = Dense(3), Residual([Dense(3), ReLU()])
    for module in (layer, block):
        with pytest.raises(ValueError, match=rf"dense: trainable is {value!r} where True or False is wanted"):
            module.trainable = value
    assert layer.trainable
    assert block.trainable
    layer.trainable = np.False_  # type: ignore[assignment]
    assert layer.trainable is False


def test_it_is_kept_when_a_network_is_built_copied_or_given_to_a_trainer() -> None:
    network = convolutional()
    network.layers[0].trainable = False  # type: ignore[misc]
    network.build((8, 8, 3))
    network.build((8, 8, 3))
    assert not network.layers[0].trainable
    assert not network.unbuilt().layers[0].trainable
