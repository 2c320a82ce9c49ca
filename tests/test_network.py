"""Networks: flat vectors, fusion, summary, weights."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest

from scratchnet import (
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePooling2D,
    MaxPooling2D,
    ReLU,
    Sequential,
    check_gradients,
)


def small() -> Sequential:
    return Sequential(
        [
            Conv2D(16, 3, padding="same"), ReLU(), MaxPooling2D(),
            Conv2D(5, 3), ReLU(), MaxPooling2D(), Flatten(), Dense(7), ReLU(), Dense(4),
        ]
    )  # fmt: skip


def test_fused_and_layer_by_layer_are_the_same() -> None:
    network, source = small(), np.random.default_rng(3)
    network.build((13, 12, 3), dtype="float64", seed=1)
    x, dy = source.standard_normal((5, 13, 12, 3)), source.standard_normal((5, 4))
    assert len(network.plan(5).nodes) == 6  # ten layers, four of them done by the one before
    y, dx = network.forward(x), network.backward(dy)
    fused = [{name: array.copy() for name, array in layer.gradients.items()} for layer in network.layers]
    network.gradients.fill(np.nan)
    value = x
    for layer in network.layers:
        value = layer.forward(value)
    gradient = dy
    for layer in reversed(network.layers):
        gradient = layer.backward(gradient)
    np.testing.assert_allclose(value, y, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(gradient, dx, rtol=1e-11, atol=1e-12)
    for layer, gradients in zip(network.layers, fused, strict=True):
        for name, array in gradients.items():
            np.testing.assert_allclose(layer.gradients[name], array, rtol=1e-11, atol=1e-12)


def test_gradients_of_whole_networks() -> None:
    x = np.random.default_rng(2).standard_normal((4, 9, 9, 3))
    assert check_gradients(small(), x) < 1e-7
    varied = Sequential(
        [
            Conv2D(6, 3, strides=2), BatchNormalization(), ReLU(), Dropout(0.3), Conv2D(16, 2),
            GlobalAveragePooling2D(), Dense(3),
        ]
    )  # fmt: skip
    assert check_gradients(varied, x) < 1e-7
    assert check_gradients(varied, x, training=False) < 1e-7


def test_a_new_batch_size_changes_nothing_else() -> None:
    network, source = small(), np.random.default_rng(0)
    network.build((12, 12, 3), dtype="float64")
    x = source.standard_normal((6, 12, 12, 3))
    together = network.forward(x)
    apart = np.concatenate([network.forward(x[:1]), network.forward(x[1:4]), network.forward(x[4:])])
    np.testing.assert_allclose(apart, together, rtol=1e-12, atol=1e-13)


def test_results_are_the_callers() -> None:
    network, source = small(), np.random.default_rng(0)
    network.build((12, 12, 3))
    x = source.standard_normal((2, 12, 12, 3)).astype("float32")
    first = network.forward(x)
    kept = first.copy()
    network.forward(-x)
    np.testing.assert_array_equal(first, kept)
    assert first.flags.c_contiguous
    assert first.dtype == np.float32


def test_the_layers_hold_views_of_the_flat_vectors() -> None:
    network = small()
    network.build((12, 12, 3))
    assert network.count_parameters() == sum(a.size for layer in network.layers for a in layer.parameters.values())
    network.parameters.fill(0.5)
    assert all((array == 0.5).all() for layer in network.layers for array in layer.parameters.values())
    network.forward(np.ones((1, 12, 12, 3), "float32"))
    network.gradients.fill(7)
    assert (network.layers[0].gradients["kernel"] == 7).all()


def test_the_seed_decides_the_parameters() -> None:
    networks = []
    for seed in (0, 0, 1):
        network = small()
        network.build((12, 12, 3), seed=seed)
        networks.append(network.parameters.copy())
    np.testing.assert_array_equal(networks[0], networks[1])
    assert (networks[0] != networks[2]).any()
    double = small()
    double.build((12, 12, 3), dtype="float64")
    np.testing.assert_array_equal(double.parameters.astype("float32"), networks[0])


def test_summary(capsys: pytest.CaptureFixture[str]) -> None:
    network = Sequential([Conv2D(8, 3), BatchNormalization(), ReLU(), Conv2D(4, 3), Flatten(), Dense(10)])
    with pytest.raises(RuntimeError, match="build"):
        network.summary()
    network.build((8, 8, 3))
    network.summary()
    text = capsys.readouterr().out
    for part in (
        "conv2d (Conv2D)", "conv2d_1 (Conv2D)", "(None, 6, 6, 8)", "(None, 4, 4, 4)", "(None, 64)", "224", "650",
        "Total parameters: 1,198", "Trainable parameters: 1,182", "Non-trainable parameters: 16",
    ):  # fmt: skip
        assert part in text


def test_weights_go_out_and_in() -> None:
    ours = Sequential([Conv2D(8, 3), BatchNormalization(), Flatten(), Dense(10)])
    other = Sequential([Conv2D(8, 3), BatchNormalization(), Flatten(), Dense(10)])
    ours.build((8, 8, 3), seed=1)
    other.build((8, 8, 3), seed=2)
    x = np.random.default_rng(0).standard_normal((3, 8, 8, 3)).astype("float32")
    ours.forward(x, training=True)  # moves the averages
    weights = ours.weights()
    assert set(weights) == {
        "conv2d/kernel", "conv2d/bias", "batch_normalization/gamma", "batch_normalization/beta",
        "batch_normalization/moving_mean", "batch_normalization/moving_variance", "dense/kernel", "dense/bias",
    }  # fmt: skip
    other.set_weights(weights)
    np.testing.assert_array_equal(other.forward(x), ours.forward(x))
    with pytest.raises(ValueError, match="another network"):
        other.set_weights({"dense/kernel": weights["dense/kernel"]})
    with pytest.raises(ValueError, match=r"dense/bias has the shape \(3,\)"):
        other.set_weights(weights | {"dense/bias": np.zeros(3)})


def test_what_cannot_be_a_network_is_refused() -> None:
    layer = Dense(3)
    with pytest.raises(TypeError, match="a NoneType is given where a list of layers is wanted"):
        Sequential(None)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="set_weights needs the shapes"):
        Sequential([Dense(3)]).set_weights({})
    with pytest.raises(ValueError, match="unknown device 0"):
        Sequential([Dense(3)]).build((4,), device=0)  # type: ignore[arg-type]
    for kind in (Dense, partial(Conv2D, kernel_size=3)):
        with pytest.raises(ValueError, match="use_bias is 'no' where True or False is wanted"):
            kind(3, use_bias="no")  # type: ignore[arg-type, operator]
    with pytest.raises(ValueError, match="at least one layer"):
        Sequential([])
    with pytest.raises(TypeError, match="entry 1 is a str"):
        Sequential([layer, "relu"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="twice"):
        Sequential([layer, layer])
    with pytest.raises(ValueError, match=r"dense: the input shape is \(4, 4, 2\)"):
        Sequential([Conv2D(2, 3), Dense(3)]).build((6, 6, 3))
    with pytest.raises(ValueError, match=r"conv2d_1: for the input shape \(2, 2, 2\), a window that spans 3"):
        Sequential([Conv2D(2, 3), Conv2D(2, 3)]).build((4, 4, 3))
    with pytest.raises(TypeError, match="float16"):
        Sequential([layer]).build((4,), dtype="float16")


def test_copies_and_pickles_are_whole_networks() -> None:
    network, x = small(), np.random.default_rng(0).standard_normal((2, 12, 12, 3)).astype("float32")
    assert [type(layer) for layer in copy.deepcopy(network).layers] == [type(layer) for layer in network.layers]
    network.build((12, 12, 3), seed=3)
    network.forward(x, training=True)
    y = network.forward(x)
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        np.testing.assert_array_equal(twin.forward(x), y)
        assert twin.clock.step == 1
        twin.parameters.fill(0)
        assert not twin.forward(x).any()
    np.testing.assert_array_equal(network.forward(x), y)


def test_a_layer_belongs_to_one_network() -> None:
    layer = Dense(3)
    first = Sequential([layer])
    first.build((4,))
    first.build((5,))  # again is fine
    with pytest.raises(ValueError, match=r"layer 0, dense, is in use already"):
        Sequential([layer]).build((4,))
    Sequential([layer.unbuilt()]).build((4,))


def test_a_subclass_is_never_absorbed() -> None:
    class Leaky(ReLU):
        def compute(self, training: bool) -> None:
            self.ops.copy(self.x, out=self.y)

    class Doubled(MaxPooling2D):
        def compute_gradients(self) -> None:
            super().compute_gradients()
            self.ops.add(self.dx, self.dx, out=self.dx)

    x = np.random.default_rng(0).standard_normal((2, 8, 8, 3))
    assert Sequential([Conv2D(4, 3), Leaky()]).forward(x).min() < 0
    assert check_gradients(Sequential([Conv2D(4, 3), Leaky()]), x) > 0.1
    assert check_gradients(Sequential([Conv2D(4, 3), ReLU(), Doubled()]), x) > 0.1


def test_a_dropout_more_leaves_the_start_of_the_other_layers() -> None:
    plain = Sequential([Conv2D(4, 3), ReLU(), Flatten(), Dense(3)])
    other = Sequential([Conv2D(4, 3), ReLU(), Dropout(0.5), Flatten(), Dense(3)])
    for network in (plain, other):
        network.build((6, 6, 3), seed=7)
    for name, array in plain.weights().items():
        np.testing.assert_array_equal(other.weights()[name], array)
    assert (plain.layers[0].kernel.ravel()[:12] != plain.layers[-1].kernel.ravel()[:12]).all()  # type: ignore[attr-defined]


def test_a_failed_build_leaves_it_unbuilt() -> None:
    network = Sequential([Conv2D(4, 3), Conv2D(4, 3)])
    network.build((6, 6, 3))
    with pytest.raises(ValueError, match="does not fit"):
        network.build((4, 4, 3))
    assert not network.built
    network.build((6, 6, 3))
    assert network.forward(np.ones((1, 6, 6, 3), "float32")).shape == (1, 2, 2, 4)


def test_a_subclass_with_arguments_of_its_own() -> None:
    class Classifier(Sequential):
        def __init__(self, classes: int) -> None:
            super().__init__([Flatten(), Dense(classes)])

    x = np.random.default_rng(0).standard_normal((3, 4, 4, 2))
    network = Classifier(5)
    assert check_gradients(network, x) < 1e-7
    assert copy.deepcopy(network).forward(x).shape == (3, 5)
