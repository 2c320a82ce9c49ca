"""A layer of one's own needs nothing that is private: here, layer normalisation and a running mean."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from scratchnet import (
    Adam,
    Conv2D,
    Dense,
    Flatten,
    Layer,
    ReLU,
    Residual,
    Sequential,
    SoftmaxCrossEntropy,
    Trainer,
    check_gradients,
)
from scratchnet.backend import get_device
from scratchnet.layers.recorded import check_replay
from tests.backend.strict_device import StrictDevice
from tests.kernels.gpu.host_cuda import NEEDS_COMPILER, KernelDevice
from tests.reference.checks import assert_close, gradients_of, randomize
from tests.training.problem import dataset


class LayerNormalization(Layer):
    """y = gamma (x - mean) / sqrt(variance + epsilon) + beta, of each position over its channels (the last axis)."""

    def __init__(self, epsilon: float = 1e-3) -> None:
        super().__init__()
        self.epsilon = epsilon

    def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self.parameter("gamma", input_shape[-1:], "ones")
        self.parameter("beta", input_shape[-1:])
        return input_shape

    def allocate(self) -> None:
        super().allocate()
        self.normal, self.row = self.activation(), self.activation(self.input_shape[:-1])
        self.inverse = self.activation(self.input_shape[:-1])
        self.tiny, self.one = self.memory.constant(self.epsilon), self.memory.constant(1)
        self.per_channel = self.memory.constant(1 / self.input_shape[-1])

    def compute(self, training: bool) -> None:
        ops, normal, inverse = self.ops, self.normal, self.inverse
        self.mean_of(self.x)
        ops.subtract(self.x, self.row[..., None], out=normal)
        with self.scratch() as square:
            ops.multiply(normal, normal, out=square)
            self.mean_of(square)
        ops.add(self.row, self.tiny, out=inverse)
        ops.sqrt(inverse, out=inverse)
        ops.divide(self.one, inverse, out=inverse)
        ops.multiply(normal, inverse[..., None], out=normal)
        ops.multiply(normal, self.gamma, out=self.y)
        ops.add(self.y, self.beta, out=self.y)

    def compute_gradients(self) -> None:
        """dx = inverse (dn - mean(dn) - normal mean(dn normal)) with dn = gamma dy."""
        ops, normal = self.ops, self.normal
        self.sum_to_last(self.dy, out=self.dbeta)
        with self.scratch() as part:
            ops.multiply(self.dy, normal, out=part)
            self.sum_to_last(part, out=self.dgamma)
            ops.multiply(part, self.gamma, out=part)
            self.mean_of(part)
            ops.multiply(normal, self.row[..., None], out=part)
            ops.multiply(self.dy, self.gamma, out=self.dx)
            self.mean_of(self.dx)
            ops.subtract(self.dx, part, out=self.dx)
        ops.subtract(self.dx, self.row[..., None], out=self.dx)
        ops.multiply(self.dx, self.inverse[..., None], out=self.dx)

    def mean_of(self, values: Any) -> None:
        self.ops.sum(values, axis=-1, out=self.row)
        self.ops.multiply(self.row, self.per_channel, out=self.row)


class Centred(Layer):
    """y = x - the running mean of each feature, which follows the batches in training."""

    by_image = False

    def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self.moving_average("mean", input_shape)
        self.moving_average("seen", (1,), "ones")
        return input_shape

    def allocate(self) -> None:
        super().allocate()
        self.of_batch, self.rate = self.memory.buffer(*self.input_shape), self.memory.constant(0.1)
        self.per_row, self.one = self.memory.constant(1 / self.batch.total), self.memory.constant(1)

    def compute(self, training: bool) -> None:
        self.ops.subtract(self.x, self.mean, out=self.y)
        if training:
            self.sum_to_last(self.y, out=self.of_batch)
            self.ops.multiply(self.of_batch, self.per_row, out=self.of_batch)
            self.ops.multiply(self.of_batch, self.rate, out=self.of_batch)
            self.ops.add(self.mean, self.of_batch, out=self.mean)
            self.ops.add(self.seen, self.one, out=self.seen)

    def compute_gradients(self) -> None:
        self.ops.copy(self.dy, out=self.dx)


SHAPES = [(7,), (4, 5, 3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("training", [True, False])
def test_layer_normalization_is_right(shape: tuple[int, ...], training: bool) -> None:
    rng, layer = np.random.default_rng(0), LayerNormalization()
    x = 3 + 2 * rng.normal(size=(6, *shape))
    layer.build(shape, dtype="float64")
    assert layer.gamma.tolist() == [1] * shape[-1]
    randomize(layer, rng)
    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-3)
    assert_close(layer.forward(x, training), normal * layer.gamma + layer.beta)
    assert check_gradients(layer, x, training=training) < 1e-7
    check_replay(layer)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("where", [StrictDevice, pytest.param(KernelDevice, marks=NEEDS_COMPILER)])
def test_it_is_the_same_on_a_gpu(shape: tuple[int, ...], where: Any) -> None:
    results, rng = [], np.random.default_rng(1)
    x, dy = rng.normal(size=(2, 6, *shape))
    for device in (get_device("cpu"), where()):
        layer = LayerNormalization()
        layer.build(shape, dtype="float64", device=device)
        check_replay(layer)
        y, dx = layer.forward(device.to_device(x)), layer.backward(device.to_device(dy))
        results.append([device.to_host(array) for array in (y, dx, *gradients_of(layer))])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-9, atol=1e-11)


def test_two_workers_compute_what_one_does() -> None:
    results = []
    for workers in (1, 2):
        block = Residual([LayerNormalization(), ReLU(), Conv2D(4, 3, padding="same")])
        network = Sequential([Conv2D(4, 3), block, LayerNormalization(), Flatten(), Dense(5)])
        network.build((8, 8, 3), dtype="float64", seed=1)
        with Trainer(network, SoftmaxCrossEntropy(), Adam(), dataset(), batch_size=31, workers=workers) as trainer:
            losses = [trainer.train_epoch(epoch).loss for epoch in (1, 2)]
            results.append((losses, trainer.predict(), network.weights()))
    (loss, logits, weights), (loss_2, logits_2, weights_2) = results
    assert loss_2 == pytest.approx(loss, rel=1e-10)
    np.testing.assert_allclose(logits_2, logits, rtol=1e-6, atol=1e-8)
    for name, array in weights.items():
        np.testing.assert_allclose(weights_2[name], array, rtol=1e-6, atol=1e-8)


def test_a_moving_average_of_ones_own_is_kept_with_the_weights() -> None:
    rng, network = np.random.default_rng(2), Sequential([Centred(), Dense(2)])
    network.build((3,), dtype="float64")
    layer: Any = network.layers[0]
    mean, x = np.zeros(3), np.empty((0, 3))
    for _ in range(4):
        x = 5 + rng.normal(size=(6, 3))
        y = network.forward(x, training=True)
        mean = mean + 0.1 * (x.mean(0) - mean)
    assert_close(layer.mean, mean)
    assert layer.seen.tolist() == [5]
    assert list(network.weights()) == ["centred/mean", "centred/seen", "dense/kernel", "dense/bias"]
    assert network.count_parameters() == 8
    y = network.forward(x)
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        np.testing.assert_array_equal(twin.forward(x), y)
    other = Sequential([Centred(), Dense(2)])
    other.build((3,), dtype="float64")
    other.set_weights(network.weights())
    np.testing.assert_array_equal(other.forward(x), y)


def test_the_sum_of_many_small_numbers_keeps_its_digits() -> None:
    """As one long sum, nine times as much would be lost."""
    layer = LayerNormalization()
    layer.build((64, 64, 2))
    bound, _ = layer.plan(32).nodes[0]
    values = (100 + np.random.default_rng(3).normal(size=(32, 64, 64, 2))).astype("float32")
    bound.x[...] = values
    total = np.zeros(2, "float32")
    bound.sum_to_last(bound.x, out=total)
    np.testing.assert_allclose(total, values.sum((0, 1, 2), dtype="float64"), rtol=1e-6)


def test_scratch_is_used_again_and_activations_are_not() -> None:
    layer = LayerNormalization()
    layer.build((5,))
    bound, _ = layer.plan(4).nodes[0]
    with bound.scratch() as first, bound.scratch((9,)) as inner:
        assert first.shape == (4, 5)
        assert inner.shape == (4, 9)
        assert not np.shares_memory(first, inner)
    with bound.scratch() as second:
        assert np.shares_memory(first, second)
        assert not any(np.shares_memory(second, array) for array in (bound.x, bound.dx, bound.normal, bound.row))
    assert bound.activation().shape == (4, 5)
    assert bound.activation((2, 3), dtype=bool).dtype == bool
