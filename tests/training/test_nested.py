"""Nested networks and frozen layers in the trainer: one worker and two, and the plain loop, take the same steps."""

from collections.abc import Callable
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
    GlobalAveragePooling2D,
    MaxPooling2D,
    Parallel,
    ReLU,
    Residual,
    Sequential,
    SoftmaxCrossEntropy,
    Trainer,
)
from scratchnet.backend.noise import SHUFFLE, generator
from tests.training.problem import dataset

SIZE = 31  # of which the second of two workers has 15, as of the 28 that are left


def residual() -> Sequential:
    """Normalised in its blocks, one of them wider inside than the block's output and one with a convolution around."""
    narrow = Residual([BatchNormalization(), ReLU(), Conv2D(24, 1), BatchNormalization(), Conv2D(4, 3, padding="same")])
    wider = Residual([ReLU(), Conv2D(6, 3, padding="same"), Dropout(0.2)], [Conv2D(6, 1)])
    return Sequential([Residual([Conv2D(3, 3, padding="same")]), Conv2D(4, 3), narrow, wider, Flatten(), Dense(5)])


def branched() -> Sequential:
    """A fork first, both ways to put together, and no batch normalisation: the batch is worked through in groups."""
    ways = [[Conv2D(4, 3, padding="same"), ReLU(), MaxPooling2D()], [MaxPooling2D(), Dropout(0.3), Conv2D(4, 1)]]
    both = Parallel([GlobalAveragePooling2D(), [Conv2D(2, 2), Flatten(), Dense(6), ReLU()]])
    return Sequential([Parallel(ways, "add"), both, Residual([Dense(10), Dropout(0.3)]), Dense(5)])


def wide() -> Sequential:
    """More channels than workers sum at once."""
    return Sequential([Flatten(), Dense(2100), BatchNormalization(), ReLU(), Dense(5)])


def frozen() -> Sequential:
    network = residual()
    network.layers[1].trainable = network.layers[2].trainable = False  # type: ignore[misc]
    return network


def built(make: Callable[[], Sequential]) -> Sequential:
    network, source = make(), np.random.default_rng(0)
    network.build((8, 8, 3), dtype="float64", seed=1)
    for layer in network.leaves:  # as after another training
        for array in layer.moving.values():
            array[...] = source.uniform(0.5, 1.5, array.shape)
    return network


def trained(make: Callable[[], Sequential], workers: int) -> Any:
    network = built(make)
    optimizer = Adam(1e-3)
    with Trainer(network, SoftmaxCrossEntropy(), optimizer, dataset(90), batch_size=SIZE, workers=workers) as trainer:
        trainer.predict("test")
        losses = [trainer.train_epoch(epoch).loss for epoch in (1, 2)]
        return losses, trainer.predict("test"), network.weights()


def by_hand(make: Callable[[], Sequential]) -> Any:
    network, data, losses, step = built(make), dataset(90), [], 0
    head, optimizer, train = SoftmaxCrossEntropy(), Adam(1e-3), data.train
    optimizer.build(network.parameters)
    for epoch in (1, 2):
        order, total = generator(0, SHUFFLE, epoch).permutation(90), 0.0
        for start in range(0, 90, SIZE):
            rows = order[start : start + SIZE]
            network.clock.step = step
            loss, dlogits = head(network.forward(train.images[rows] / 255, training=True), train.labels[rows], step)
            network.backward(dlogits)
            optimizer.update(network.gradients)
            total, step = total + loss * len(rows), step + 1
        losses.append(total / 90)
    assert data.test is not None
    return losses, network.forward(data.test.images / 255), network.weights()


@pytest.mark.parametrize("make", [residual, branched, wide, frozen])
def test_one_worker_two_and_the_plain_loop_take_the_same_steps(make: Callable[[], Sequential]) -> None:
    losses, logits, weights = by_hand(make)
    for workers in (1, 2):
        found, scores, found_weights = trained(make, workers)
        np.testing.assert_allclose(found, losses, rtol=1e-9)
        np.testing.assert_allclose(scores, logits, rtol=1e-6, atol=1e-8)
        for name, array in weights.items():
            np.testing.assert_allclose(found_weights[name], array, rtol=1e-6, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_restored_goes_on_to_the_same_bits(workers: int) -> None:
    """Moving averages that training reads included, which every worker has for itself."""
    results = []
    for pause in (False, True):
        network = built(frozen)
        arguments: dict[str, Any] = {"batch_size": SIZE, "workers": workers}
        with Trainer(network, SoftmaxCrossEntropy(), SGD(0.01, 0.9), dataset(90), **arguments) as trainer:
            trainer.train_epoch(1)
            state, progress = trainer.state(), trainer.progress
            if not pause:
                trainer.train_epoch(2)
        if pause:
            network = built(frozen)
            for layer in network.leaves:
                for array in layer.arrays().values():
                    array.fill(0.5)
            with Trainer(network, SoftmaxCrossEntropy(), SGD(0.01, 0.9), dataset(90), **arguments) as trainer:
                trainer.restore(state, progress)
                trainer.train_epoch(2)
        results.append(network.weights())
    for name, array in results[0].items():
        np.testing.assert_array_equal(results[1][name], array)


def test_an_epoch_of_a_residual_network_learns() -> None:
    network = residual()
    network.build((8, 8, 3))
    with Trainer(network, SoftmaxCrossEntropy(), Adam(1e-2), dataset(), batch_size=16, workers=1) as trainer:
        records = [trainer.train_epoch(epoch) for epoch in range(1, 13)]
    assert records[-1].accuracy > 0.9
    assert records[-1].loss < 0.5 * records[0].loss
