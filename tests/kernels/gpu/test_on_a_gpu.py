"""What only a GPU can show: the step is captured, as a graph it gives the same bits, and TF32 rounds as it should."""

from typing import Any

import numpy as np
import pytest

from scratchnet import Adam, GumbelSoftmaxCrossEntropy, SoftmaxCrossEntropy
from scratchnet.backend import get_device
from scratchnet.data import Dataset, Split
from scratchnet.experiments.recipes import RECIPES
from scratchnet.training import Trainer

pytestmark = pytest.mark.gpu
HEADS = {"softmax": SoftmaxCrossEntropy, "gumbel": lambda: GumbelSoftmaxCrossEntropy(0.5)}


def images() -> Dataset:
    source = np.random.default_rng(0)
    train, test = (
        Split(source.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), source.integers(0, 100, count))
        for count in (300, 100)
    )
    return Dataset("random", train, test, tuple(map(str, range(100))), (), np.empty(0, np.int64))


def trained(recipe: str, head: str, dtype: str = "float32", device: str = "gpu", epochs: int = 2) -> Any:
    """Losses and weights, and the trainer's programs."""
    network = RECIPES[recipe].network(100)
    network.build((32, 32, 3), dtype=dtype, device=device)
    batch_size = RECIPES[recipe].batch_size
    with Trainer(network, HEADS[head](), Adam(), images(), batch_size=batch_size, workers=1) as trainer:
        losses = [trainer.train_epoch(epoch).loss for epoch in range(1, epochs + 1)]
        return losses, network.weights(), trainer.engine.replica.programs  # type: ignore[union-attr]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_whole_step_is_one_graph_with_the_bits_of_the_eager_step(
    recipe: str, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, weights, programs = trained(recipe, head)
    full = programs["train", RECIPES[recipe].batch_size]
    assert len(full.calls) == len(full.preparations) + 1, "a call of the step could not be captured"
    monkeypatch.setattr(get_device("gpu"), "capture", None)
    eager_losses, eager_weights, eager = trained(recipe, head)
    assert len(eager["train", RECIPES[recipe].batch_size].calls) > 30
    assert losses == eager_losses
    for name in weights:
        np.testing.assert_array_equal(weights[name], eager_weights[name])


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_trains_as_on_the_cpu(recipe: str, head: str) -> None:
    losses, weights, _ = trained(recipe, head, "float64", epochs=1)
    ours, theirs, _ = trained(recipe, head, "float64", "cpu", epochs=1)
    assert losses == pytest.approx(ours, rel=1e-9)
    for name in weights:
        np.testing.assert_allclose(weights[name], theirs[name], rtol=1e-6, atol=1e-8)


def test_the_same_seed_gives_the_same_bits() -> None:
    (losses, weights, _), (again, weights_again, _) = (trained("same-padding", "gumbel") for _ in range(2))
    assert losses == again
    assert all((weights[name] == weights_again[name]).all() for name in weights)
    assert losses[0] != losses[1]


def test_tf32_rounds_factors_to_ten_bits() -> None:
    device, source = get_device("gpu"), np.random.default_rng(0)
    a, b = (source.standard_normal((256, 256)).astype(np.float32) for _ in range(2))
    exact, errors, before = a.astype(np.float64) @ b, {}, device.precision
    for device.precision in ("fp32", "tf32"):
        out = device.zeros((256, 256), np.float32)
        device.ops.matmul(device.to_device(a), device.to_device(b), out=out)
        errors[device.precision] = np.linalg.norm(device.to_host(out) - exact) / np.linalg.norm(exact)
    device.precision = before
    assert errors["fp32"] < 1e-6
    assert errors["fp32"] < errors["tf32"] < 1e-3
