"""The recipes' float32 gradients at their own batch sizes, against the same step in float64."""

import numpy as np
import pytest

from scratchnet.experiments.recipes import RECIPES
from scratchnet.heads import GumbelSoftmaxCrossEntropy, SoftmaxCrossEntropy


@pytest.mark.parametrize("name", list(RECIPES))
@pytest.mark.parametrize("gumbel", [False, True])
def test_gradients_are_within_5e_6_of_float64(name: str, gumbel: bool) -> None:
    """Relative L2 distance of every parameter's gradient. (A near-tie of pooling may add 1e-4: this batch has none.)"""
    recipe, source = RECIPES[name], np.random.default_rng(1)
    images = source.integers(0, 256, (recipe.batch_size, 32, 32, 3)) / 255
    labels = source.integers(0, 100, recipe.batch_size)
    head = GumbelSoftmaxCrossEntropy(recipe.temperature, seed=1) if gumbel else SoftmaxCrossEntropy()
    networks = [recipe.network(100) for _ in range(2)]
    for network, dtype in zip(networks, ("float32", "float64"), strict=True):
        network.build((32, 32, 3), dtype=dtype)
        network.parameters[...] = networks[0].parameters
        _, dlogits = head(network.forward(images.astype(dtype), training=True), labels)
        network.backward(dlogits)
    for ours, exact in zip(*(network.leaves for network in networks), strict=True):
        for parameter, gradient in ours.gradients.items():
            wanted = exact.gradients[parameter]
            error = np.linalg.norm(gradient - wanted) / np.linalg.norm(wanted)
            assert error < 5e-6, f"{ours.name}/{parameter}: {error:.1e}"
