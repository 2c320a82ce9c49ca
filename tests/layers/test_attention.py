"""Multi-head attention: one token, pieces of a batch, noise of each image, Keras's and PyTorch's own layers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchnet import Adam, Dense, Flatten, Reshape, Sequential, SoftmaxCrossEntropy
from scratchnet.layers import MultiHeadAttention, attention
from scratchnet.layers.layer import Layer
from scratchnet.training import Trainer
from tests.layers import catalogue
from tests.reference.checks import assert_close, gradients_of, randomize
from tests.training.problem import dataset

NOISES = {"softmax": {}, "dropout": {"dropout": 0.3}, "gumbel": {"temperature": 0.5}}
BOTH = {"dropout": 0.3, "temperature": 0.5}


def built(heads: int, key_dim: int, shape: tuple[int, int], dtype: str = "float64", **options: Any) -> Any:
    layer = MultiHeadAttention(heads, key_dim, **options)
    assert layer.build(shape, dtype=dtype) == shape
    randomize(layer, np.random.default_rng(1))
    return layer


def step(layer: Any, x: np.ndarray, dy: np.ndarray) -> list[np.ndarray]:
    layer.clock.step = 3
    return [layer.forward(x, training=True), layer.backward(dy), *(gradient.copy() for gradient in gradients_of(layer))]


@given(
    sizes=st.tuples(*[st.integers(1, 4)] * 5),
    use_bias=st.booleans(),
    noise=st.sampled_from([*NOISES.values(), BOTH]),
    piece=st.integers(1, 2000),
)
@settings(max_examples=30, deadline=None)
def test_it_is_the_plain_loops(sizes: Any, use_bias: bool, noise: Any, piece: int) -> None:
    """However many images are done at once."""
    (images, tokens, features, heads, key_dim), source = sizes, np.random.default_rng(0)
    layer = built(heads, key_dim, (tokens, features), use_bias=use_bias, **noise)
    x, dy = source.normal(size=(2, images, tokens, features))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "PIECE", piece)
        found = step(layer, x, dy)
    assert len(layer._plan.nodes[0][0].pieces) == min(images, -(-images // max(piece // (heads * tokens**2 * 8), 1)))
    for ours, wanted in zip(found, [catalogue.forward(layer, x), *catalogue.backward(layer, x, dy)], strict=True):
        assert_close(ours, wanted)


# --- one token


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("noise", [*NOISES.values(), BOTH], ids=[*NOISES, "both"])
def test_with_one_token_queries_and_keys_get_no_gradient_bit_for_bit(noise: Any, dtype: str) -> None:
    source, layer = np.random.default_rng(0), built(8, 16, (1, 24), dtype, **noise)
    x, dy = source.normal(size=(2, 40, 1, 24)).astype(dtype)
    _, dx, dkernel, _, dbias, _ = step(layer, x, dy)
    assert not dkernel[:, :2].any()
    assert not dbias[:2].any()
    assert all(values.all() for values in (dx, dkernel[:, 2], dbias[2]))


def test_with_one_token_all_heads_are_one_linear_map_and_gumbel_is_softmax() -> None:
    source, layer, noisy = np.random.default_rng(0), built(3, 4, (1, 6)), built(3, 4, (1, 6), temperature=0.1)
    x, dy = source.normal(size=(2, 5, 1, 6))
    values, back = layer.kernel[:, 2].reshape(6, -1), layer.output_kernel.reshape(-1, 6)
    shift = layer.bias[2].reshape(-1) @ back + layer.output_bias
    found = step(layer, x, dy)
    assert_close(found[0], x @ (values @ back) + shift)
    assert_close(found[1], dy @ (values @ back).T)
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(found, step(noisy, x, dy), strict=True))


# --- noise


@pytest.mark.parametrize("noise", [NOISES["dropout"], NOISES["gumbel"], BOTH], ids=["dropout", "gumbel", "both"])
def test_an_image_has_its_noise_whoever_is_beside_it(noise: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source, layer = np.random.default_rng(0), built(2, 3, (5, 6), **noise)
    x, dy = source.normal(size=(2, 7, 5, 6))
    (y, dx, *_), (fewer, dfewer, *_) = step(layer, x, dy), step(built(2, 3, (5, 6), **noise), x[:2], dy[:2])
    assert_close(fewer, y[:2])
    assert_close(dfewer, dx[:2])
    monkeypatch.setattr(attention, "PIECE", 1)
    alone = step(built(2, 3, (5, 6), **noise), x, dy)
    assert_close(alone[0], y)
    twice = np.repeat(x[:1], 2, axis=0)
    both = layer.forward(twice, training=True)
    assert not np.allclose(both[0], both[1]), "two images have the same noise"
    assert not np.allclose(layer.forward(twice, training=True), both), "two steps have the same noise"


def test_dropout_is_for_training_and_gumbel_noise_for_all_passes() -> None:
    x = np.random.default_rng(0).normal(size=(3, 5, 6))
    plain, dropping, noisy = (built(2, 3, (5, 6), **options) for options in NOISES.values())
    assert np.array_equal(dropping.forward(x), plain.forward(x))
    assert not np.allclose(dropping.forward(x, training=True), plain.forward(x))
    assert not np.allclose(noisy.forward(x), plain.forward(x))
    assert not np.allclose(noisy.forward(x), noisy.forward(x))


def test_dropout_and_gumbel_noise_are_drawn_apart_and_for_each_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    streams: list[int] = []

    class Spy:
        def __init__(self, seed: int, stream: int, *others: Any) -> None:
            streams.append(stream)

        def draw(self, out: Any) -> None:
            out.fill(0.5)

    monkeypatch.setattr("scratchnet.layers.layer.Noise", Spy)
    Sequential([MultiHeadAttention(2, 3, **BOTH), MultiHeadAttention(2, 3, **BOTH)]).forward(np.zeros((2, 5, 6)))
    assert len(set(streams)) == len(streams) == 4


def attending(**options: Any) -> Sequential:
    network = Sequential(
        [Flatten(), Dense(30), Reshape((5, 6)), MultiHeadAttention(2, 3, **options), Flatten(), Dense(5)]
    )
    network.build((8, 8, 3), dtype="float64")
    return network


def trained(workers: int, **options: Any) -> tuple[list[float], dict[str, np.ndarray]]:
    network = attending(**options)
    with Trainer(network, SoftmaxCrossEntropy(), Adam(), dataset(61, 31), batch_size=31, workers=workers) as trainer:
        assert trainer.workers == workers
        return [trainer.train_epoch(epoch).loss for epoch in (1, 2)], network.weights()


def test_two_workers_compute_what_one_does_with_the_same_noise() -> None:
    (losses, weights), (shared, shared_weights) = trained(1, **BOTH), trained(2, **BOTH)
    assert shared == pytest.approx(losses, rel=1e-10)
    for name, array in weights.items():
        np.testing.assert_allclose(shared_weights[name], array, rtol=1e-7, atol=1e-9)
    again, again_weights = trained(2, **BOTH)
    assert again == shared
    assert all(np.array_equal(again_weights[name], shared_weights[name]) for name in weights)


def test_it_comes_back_from_a_file(tmp_path: Path) -> None:
    network, x = attending(use_bias=False, **BOTH), np.random.default_rng(0).normal(size=(3, 8, 8, 3))
    network.save(tmp_path / "network.safetensors")
    again = Sequential.load(tmp_path / "network.safetensors")
    assert np.array_equal(again.forward(x, training=True), network.forward(x, training=True))


# --- the same as others


def test_a_layer_of_pytorch_with_its_own_weights() -> None:
    torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'scratchnet[test]'")
    source, layer = np.random.default_rng(0), built(4, 2, (5, 8))
    theirs = torch.nn.MultiheadAttention(8, 4, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.tensor(layer.kernel.reshape(8, -1).T))
        theirs.in_proj_bias.copy_(torch.tensor(layer.bias.reshape(-1)))
        theirs.out_proj.weight.copy_(torch.tensor(layer.output_kernel.reshape(-1, 8).T))
        theirs.out_proj.bias.copy_(torch.tensor(layer.output_bias))
    x, dy = source.normal(size=(2, 3, 5, 8))
    point = torch.tensor(x, requires_grad=True)
    y = theirs(point, point, point, need_weights=False)[0]
    y.backward(torch.tensor(dy))
    first, back = theirs.in_proj_weight.grad.numpy().T, theirs.out_proj.weight.grad.numpy().T
    wanted = [y.detach(), point.grad, first, back, theirs.in_proj_bias.grad, theirs.out_proj.bias.grad]
    for ours, other in zip(step(layer, x, dy), wanted, strict=True):
        assert_close(ours.reshape(other.shape), other, 1e-10)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_layer_of_keras_with_its_own_weights() -> None:
    """With another key_dim than D / heads, which PyTorch's has not; Keras rounds 1 / sqrt(key_dim) to float32."""
    tf: Any = pytest.importorskip("tensorflow", reason="Keras is not installed: pip install 'scratchnet[bench]'")
    import keras

    source, layer = np.random.default_rng(0), built(2, 4, (4, 6))
    theirs: Any = keras.layers.MultiHeadAttention(2, 4, dtype="float64")
    x, dy = source.normal(size=(2, 3, 4, 6))
    point = tf.constant(x)
    theirs.build(x.shape, x.shape)
    ours = [array for i in range(3) for array in (layer.kernel[:, i], layer.bias[i])]
    theirs.set_weights([*ours, layer.output_kernel, layer.output_bias])
    with tf.GradientTape() as tape:
        tape.watch(point)
        y = theirs(point, point, training=True)
        loss = tf.reduce_sum(y * dy)
    dx, *gradients = (value.numpy() for value in tape.gradient(loss, [point, *theirs.trainable_variables]))
    found = step(layer, x, dy)
    wanted = y.numpy(), dx, np.stack(gradients[0:6:2], 1), gradients[6], np.stack(gradients[1:6:2]), gradients[7]
    for mine, other in zip(found, wanted, strict=True):
        assert_close(mine, other, 1e-10)


def test_each_kernel_starts_as_kerass() -> None:
    """Of its own fans: those of an array (D, heads, key_dim), and of (heads, key_dim, D)."""
    layer: Layer = MultiHeadAttention(8, 16)
    layer.build((4, 128))
    for array, fans in ((layer.kernel, 128 * (8 + 16)), (layer.output_kernel, 8 * (16 + 128))):
        limit = np.sqrt(6 / fans)
        assert 0.99 * limit < np.abs(array).max() <= limit
        assert array.var() == pytest.approx(limit**2 / 3, rel=0.05)
    assert len(np.unique(layer.kernel)) > 0.99 * layer.kernel.size
    assert not layer.bias.any()


# --- errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_heads": 0, "key_dim": 3}, "num_heads is 0 where a positive integer is wanted"),
        ({"num_heads": 2, "key_dim": 0}, "key_dim is 0 where a positive integer is wanted"),
        ({"num_heads": 2, "key_dim": 1.5}, "key_dim is 1.5 where a positive integer is wanted"),
        ({"num_heads": 2, "key_dim": 3, "dropout": 1}, "dropout is 1 where a number from 0 up to"),
        ({"num_heads": 2, "key_dim": 3, "dropout": 1 - 1e-9}, "so close to 1 that next to nothing would be kept"),
        (
            {"num_heads": 2, "key_dim": 3, "temperature": 0},
            "temperature is 0 where a positive, finite number is wanted",
        ),
        ({"num_heads": 2, "key_dim": 3, "use_bias": 1}, "use_bias is 1 where True or False is wanted"),
    ],
)
def test_bad_arguments(arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"multi_head_attention: .*{words}"):
        MultiHeadAttention(**arguments)


@pytest.mark.parametrize("shape", [(6,), (8, 8, 3)])
def test_an_input_that_is_no_tokens(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"multi_head_attention: the input shape is \(.*\) where \(T, D\) is wanted"):
        MultiHeadAttention(2, 3).build(shape)
