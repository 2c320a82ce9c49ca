"""The recipes' whole training step with the GPU's kernels, run on the host, against the CPU's."""

from typing import Any

import numpy as np
import pytest

from scratchnet import Adam, GumbelSoftmaxCrossEntropy, SoftmaxCrossEntropy
from scratchnet.backend import get_device
from scratchnet.data import Dataset, Split
from scratchnet.experiments.recipes import RECIPES, REPORTED
from scratchnet.training import Trainer
from tests.kernels.gpu.host_cuda import NEEDS_COMPILER, KernelDevice

HEADS = {"same-padding": SoftmaxCrossEntropy(), "valid-padding": GumbelSoftmaxCrossEntropy(1.0, seed=2)}


@NEEDS_COMPILER
@pytest.mark.parametrize("recipe", REPORTED)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_three_steps_are_those_of_the_cpu(recipe: str, dtype: str) -> None:
    source, tolerance = np.random.default_rng(0), {"float64": 1e-9, "float32": 1e-3}[dtype]
    images, labels = source.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8), source.integers(0, 100, 10)
    split = Split(images, labels)
    dataset = Dataset("random", split, split, tuple(map(str, range(100))), (), np.empty(0, np.int64))
    results: list[Any] = []
    for device in (get_device("cpu"), KernelDevice()):
        network = RECIPES[recipe].network(100)
        network.build((32, 32, 3), dtype=dtype, device=device)
        start = network.weights()
        with Trainer(network, HEADS[recipe], Adam(), dataset, batch_size=4, workers=1) as trainer:
            loss = trainer.train_epoch(1).loss
            moves = {name: value - start[name] for name, value in network.weights().items()}
            of_step = trainer.engine.replica.network  # type: ignore[union-attr]
            arrays = [array for layer in of_step.layers for array in layer.gradients.values()]
            gradients = [device.to_host(array).ravel() for array in arrays]
            results.append((loss, moves, np.concatenate(gradients)))
            beside = device.xp.asarray(device.zeros(network.parameters.size, np.float64)) + 1
            places = network.unbuilt()
            places.configure(network.input_shape, dtype, device)
            places.attach(beside, beside, beside[:0])
            for layer in places.layers:
                for array in layer.parameters.values():
                    array[...] = 0
            for vector in (*(trainer.engine.arrays[name] for name in ("parameters", "m", "v")), of_step.gradients):
                assert not (vector * beside).any(), "what lies beside the parameters is no longer 0"
    (loss, moves, gradients), (loss_2, moves_2, gradients_2) = results
    assert loss_2 == pytest.approx(loss, rel=tolerance)
    assert np.linalg.norm(gradients_2 - gradients) < tolerance * np.linalg.norm(gradients)
    for name, move in moves.items():
        assert np.linalg.norm(moves_2[name] - move) < 10 * tolerance * np.linalg.norm(move), name
