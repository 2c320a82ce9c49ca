"""The transformer of the first report: what its one token does to its attention, and that its block is PyTorch's."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from scratchnet import Adam, Sequential, SoftmaxCrossEntropy, Trainer
from scratchnet.data import Dataset, Split, load_dataset
from scratchnet.experiments import RECIPES, configure, recipes, run, run_experiment
from scratchnet.experiments.run import Observer
from scratchnet.layers import MultiHeadAttention
from tests.reference.checks import assert_close, randomize


def attention_of(network: Sequential) -> Any:
    (found,) = (layer for layer in network.leaves if isinstance(layer, MultiHeadAttention))
    return found


def digits(count: int) -> Dataset:
    full = load_dataset("digits")
    train, test = (Split(split.images[:count], split.labels[:count]) for split in (full.train, full.test))
    return replace(full, train=train, test=test)


def gradients_of_a_step(network: Sequential) -> Any:
    """The attention after one forward and backward pass of training, on as many images as the recipe takes."""
    network.build((32, 32, 3), seed=1)
    data = digits(128)
    images = np.divide(data.train.images, 255, dtype=np.float32)
    _, dlogits = SoftmaxCrossEntropy()(network.forward(images, training=True), data.train.labels)
    network.backward(dlogits)
    return attention_of(network)


def trained(network: Sequential, workers: int, steps: int) -> list[dict[str, np.ndarray]]:
    """The arrays of the attention before and after some steps of training."""
    network.build((32, 32, 3), seed=1)
    parameters = attention_of(network).parameters
    before, data = {name: array.copy() for name, array in parameters.items()}, digits(128 * steps)
    with Trainer(network, SoftmaxCrossEntropy(), Adam(), data, batch_size=128, seed=1, workers=workers) as trainer:
        trainer.train_epoch(1)
    return [before, {name: array.copy() for name, array in attention_of(network).parameters.items()}]


PARTS = pytest.mark.parametrize(("name", "axis"), [("kernel", 1), ("bias", 0)])  # where query, key and value stand


@PARTS
def test_with_one_token_the_gradients_of_queries_and_keys_are_0_bit_for_bit(name: str, axis: int) -> None:
    """The softmax of one score is 1 whatever the score is."""
    gradient = np.moveaxis(gradients_of_a_step(RECIPES["transformer"].network(10)).gradients[name], axis, 0)
    assert not gradient[:2].any()
    assert gradient[2].all()


@pytest.mark.parametrize("workers", [1, 2])
def test_with_one_token_queries_and_keys_stay_where_they_started(workers: int) -> None:
    before, after = trained(RECIPES["transformer"].network(10), workers, 3)
    for name, axis in ("kernel", 1), ("bias", 0):
        old, new = (np.moveaxis(arrays[name], axis, 0) for arrays in (before, after))
        assert np.array_equal(old[:2], new[:2]), name
        assert (old[2] != new[2]).all(), name
    assert (before["output_kernel"] != after["output_kernel"]).all()


@pytest.mark.parametrize("recipe", ["transformer-tokens", "transformer-tokens-gumbel"])
def test_with_many_tokens_they_learn(recipe: str) -> None:
    attention = gradients_of_a_step(RECIPES[recipe].network(10))
    assert attention.dkernel.any(axis=(0, 3)).all()  # of query, key and value, and in every head


@pytest.mark.parametrize("name", ["transformer", "transformer-tokens"])
def test_gumbel_softmax_inside_is_softmax_for_one_token_and_for_no_more(name: str) -> None:
    rng, results = np.random.default_rng(0), []
    x, dy = rng.random((8, 32, 32, 3), dtype=np.float32), rng.normal(size=(8, 10)).astype(np.float32)
    for temperature in (None, 0.5):
        network = RECIPES[name].network(10)
        inner = network.layers[9].layers[0].layers[0]  # type: ignore[attr-defined]
        assert isinstance(inner, MultiHeadAttention)
        inner.temperature = temperature
        network.build((32, 32, 3), seed=1)
        results.append([network.forward(x, training=True), network.backward(dy), network.gradients.copy()])
    equal = [np.array_equal(softmax, gumbel) for softmax, gumbel in zip(*results, strict=True)]
    assert equal == [name == "transformer"] * 3


# --- the block against PyTorch's


@pytest.mark.parametrize("tokens", [1, 7])
def test_the_block_is_pytorchs_encoder_layer(tokens: int) -> None:
    """Output and every gradient, in float64; without dropout, whose noise is each library's own."""
    torch = pytest.importorskip("torch", reason="this test compares with PyTorch: pip install 'scratchnet[test]'")
    rng, width, heads = np.random.default_rng(0), recipes.WIDTH, recipes.HEADS
    size = width // heads
    attention = MultiHeadAttention(heads, size)
    block = Sequential([layer for layer in recipes._encoder(attention, 0)])
    for layer in block.layers[::2]:
        layer.layers[0].layers[-1].rate = 0.0  # type: ignore[attr-defined]
    block.build((tokens, width), dtype="float64")
    randomize(block, rng)
    x, dy = rng.normal(size=(2, 5, tokens, width))
    y, dx = block.forward(x, training=True), block.backward(dy)

    judge = torch.nn.TransformerEncoderLayer(
        width, heads, width, dropout=0.0, layer_norm_eps=1e-6, batch_first=True, dtype=torch.float64
    )
    (norm1, norm2), (dense1, dense2) = (
        [layer for layer in block.leaves if layer.kind == kind] for kind in ("layer_normalization", "dense")
    )
    of = {
        "self_attn.in_proj_weight": lambda a: a["kernel"].reshape(width, -1).T,
        "self_attn.in_proj_bias": lambda a: a["bias"].ravel(),
        "self_attn.out_proj.weight": lambda a: a["output_kernel"].reshape(-1, width).T,
        "self_attn.out_proj.bias": lambda a: a["output_bias"],
        "linear1.weight": lambda a: a["kernel"].T,
        "linear1.bias": lambda a: a["bias"],
        "linear2.weight": lambda a: a["kernel"].T,
        "linear2.bias": lambda a: a["bias"],
        "norm1.weight": lambda a: a["gamma"],
        "norm1.bias": lambda a: a["beta"],
        "norm2.weight": lambda a: a["gamma"],
        "norm2.bias": lambda a: a["beta"],
    }
    layers = {"self_attn": attention, "linear1": dense1, "linear2": dense2, "norm1": norm1, "norm2": norm2}
    judge.load_state_dict({name: torch.tensor(get(layers[name.split(".")[0]].parameters)) for name, get in of.items()})
    point = torch.tensor(x, requires_grad=True)
    expected = judge(point)
    expected.backward(torch.tensor(dy))
    assert_close(y, expected.detach(), 1e-10)
    assert_close(dx, point.grad, 1e-10)
    for name, get in of.items():
        gradient = get(layers[name.split(".")[0]].gradients)
        assert_close(gradient, judge.get_parameter(name).grad, 1e-10)


# --- runs


class Stop(Observer):
    def __init__(self, after: int) -> None:
        self.left = after

    def step(self, epoch: int, step: int, steps: int, loss: float, accuracy: float) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_a_resumed_run_has_the_bits_of_one_that_was_not_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "transformer-tokens-gumbel"  # which has noise in dropout, in attention and in its head
    for module in "matplotlib", "matplotlib.figure":  # figures would take most of the time
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(run, "load_dataset", lambda *arguments, **options: digits(64))
    make: Callable[..., Any] = lambda **options: configure(  # noqa: E731
        name,
        "gumbel",
        data="digits",
        device="cpu",
        workers=1,
        batch_size=16,
        epochs=2,
        checkpoint_every="1steps",
        **options,
    )
    whole = run_experiment(make(output=tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        run_experiment(make(output=tmp_path / "parts"), Stop(6))
    resumed = run_experiment(make(output=tmp_path / "parts", resume=True))
    assert resumed.final == whole.final
    weights = [load_file(tmp_path / folder / "weights.safetensors") for folder in ("whole", "parts")]
    assert all(np.array_equal(weights[0][each], weights[1][each]) for each in weights[0])


def test_two_workers_train_what_one_does() -> None:
    """But for the order of sums: the noise of dropout, and inside attention, is the same."""
    found = [trained(RECIPES["transformer-tokens-gumbel"].network(10), workers, 1)[1] for workers in (1, 2)]
    for name, array in found[0].items():
        assert_close(found[1][name], array, 2e-4)
