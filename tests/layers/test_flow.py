"""Networks in networks: what they compute, whose buffers they share, and what does not fit together."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchnet import (
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    MaxPooling2D,
    Parallel,
    ReLU,
    Residual,
    Sequential,
    check_gradients,
)
from scratchnet.backend import Memory, get_device, whole
from tests.backend.strict_device import StrictDevice
from tests.kernels.gpu.host_cuda import NEEDS_COMPILER, KernelDevice
from tests.layers.catalogue import backward, forward
from tests.reference.checks import assert_close, gradients_of, randomize
from tests.reference.layers import STEP
from tests.reference.strategies import seeds

# --- drawn networks: nothing may write where another still reads


@st.composite
def modules(draw: st.DrawFn, reads: int, writes: int, depth: int) -> Any:
    """A layer or a network from vectors of the one length to those of the other."""
    kinds = ["dense"] + ["relu", "dropout", "normalization"] * (reads == writes)
    if depth:
        kinds += ["sequential", "residual", "add"] * 2 + ["concatenate"] * 2 * (writes > 1)
    kind = draw(st.sampled_from(kinds))
    if kind == "dense":
        return Dense(writes, use_bias=draw(st.booleans()))
    if kind == "relu":
        return ReLU()
    if kind == "dropout":
        return Dropout(draw(st.sampled_from([0.2, 0.5])))
    if kind == "normalization":
        return BatchNormalization()
    if kind == "sequential":
        middle = draw(st.integers(1, 4))
        return Sequential([draw(modules(reads, middle, depth - 1)), draw(modules(middle, writes, depth - 1))])
    if kind == "concatenate":
        ends = [0, draw(st.integers(1, writes - 1)), writes]
        return Parallel([draw(branches(reads, ends[i + 1] - ends[i], depth - 1)) for i in (0, 1)])
    made = [draw(branches(reads, writes, depth - 1)) for _ in range(draw(st.integers(2, 3)))]
    return Parallel(made, "add") if kind == "add" else Residual(*made[:2])


@st.composite
def branches(draw: st.DrawFn, reads: int, writes: int, depth: int) -> Any:
    return [] if reads == writes and draw(st.booleans()) else draw(modules(reads, writes, depth))


@st.composite
def networks(draw: st.DrawFn) -> tuple[int, Any]:
    """A module, and the length of the vectors it takes."""
    reads = draw(st.integers(1, 4))
    return reads, draw(modules(reads, draw(st.integers(1, 4)), 3))


@given(drawn=networks(), seed=seeds())
@settings(max_examples=150)
def test_a_drawn_network_is_its_layers_put_together(drawn: tuple[int, Any], seed: int) -> None:
    (features, module), rng = drawn, np.random.default_rng(seed)
    module.build((features,), dtype="float64")
    randomize(module, rng)
    x, (dy, other) = rng.normal(size=(3, features)), rng.normal(size=(2, 3, *module.output_shape))
    module.clock.step = STEP
    y = module.forward(x, training=True)
    module.backward(other)  # whatever it leaves in the buffers
    dx = module.backward(dy)
    assert_close(y, forward(module, x), 1e-9)
    for ours, wanted in zip([dx, *gradients_of(module)], backward(module, x, dy), strict=True):
        assert_close(ours, wanted, 1e-9)


# --- examples


def convolutional(channels: int = 3) -> list[Any]:
    return [BatchNormalization(), ReLU(), Conv2D(channels, 3, padding="same")]


def nested() -> Sequential:
    inner = Residual([*convolutional(), Residual([Dropout(0.3), *convolutional()])], [Conv2D(3, 1)])
    return Sequential([Residual([inner, Dropout(0.3)]), Parallel([[MaxPooling2D(), Flatten()], Flatten()]), Dense(4)])


def test_no_layer_at_all_passes_x_on() -> None:
    x, dy = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 2))
    for module, factor in ((Residual([]), 2), (Parallel([[], [], []], "add"), 3)):
        np.testing.assert_array_equal(module.forward(x), x * factor)
        np.testing.assert_array_equal(module.backward(dy), dy * factor)
    both = Parallel([[], []])
    np.testing.assert_array_equal(both.forward(x), np.concatenate([x, x], -1))
    np.testing.assert_array_equal(both.backward(np.concatenate([dy, 2 * dy], -1)), 3 * dy)


def test_images_lie_in_any_order_in_front_of_a_fork() -> None:
    """The first reader's buffer serves the fork too: with margins, as (C, H, W, N), and as another view of features."""
    x = np.random.default_rng(1).normal(size=(3, 6, 5, 16))
    wide, narrow = (lambda: Conv2D(16, 3, padding="same")), (lambda: Conv2D(16, (1, 2), strides=1, padding="same"))
    for first, second in ((wide, narrow), (narrow, wide)):
        blocks = Residual([ReLU(), second()], first()), Residual(second())
        block = Sequential([first(), *blocks, Flatten(), Residual([])])
        assert check_gradients(block, x) < 1e-7


def flattened() -> Sequential:
    """Flatten in front of a fork, between two, and at the end of a branch: where it is a view, of whose buffer?"""
    ways = [Flatten(), [MaxPooling2D(), Flatten()], [Residual([Conv2D(3, 3, padding="same")]), Flatten(), Residual([])]]
    return Sequential([Conv2D(3, 2), Residual([]), Parallel(ways), Residual([Flatten(), Residual([ReLU()])]), Dense(3)])


@pytest.mark.parametrize("make", [nested, flattened])
@pytest.mark.parametrize("where", [StrictDevice, pytest.param(KernelDevice, marks=NEEDS_COMPILER)])
def test_it_is_the_same_on_a_gpu(make: Any, where: Any) -> None:
    rng, results = np.random.default_rng(6), []
    x, dy = rng.normal(size=(3, 4, 6, 3)), rng.normal(size=(3, make().build((4, 6, 3))[0]))
    for device in (get_device("cpu"), where()):
        network = make()
        network.build((4, 6, 3), dtype="float64", device=device, seed=7)
        y = network.forward(device.to_device(x), training=True)
        dx = network.backward(device.to_device(dy))
        results.append([device.to_host(array) for array in (y, dx, *gradients_of(network))])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-9, atol=1e-11)
    assert check_gradients(make(), x) < 1e-7


def test_the_first_node_has_no_input_gradient_to_compute_in_training() -> None:
    rng, network = np.random.default_rng(2), Sequential([Residual(convolutional()), Flatten(), Dense(4)])
    network.build((4, 5, 3), dtype="float64")
    randomize(network, rng)
    x, dy = rng.normal(size=(3, 4, 5, 3)), rng.normal(size=(3, 4))
    network.forward(x, training=True)
    network.backward(dy)
    expected = network.gradients.copy()
    network.gradients.fill(0)
    plan = network.bind(whole(3), Memory(network.device, network.dtype), input_gradient=False)
    plan.x[...], plan.dy[...] = x, dy
    plan.compute(training=True)
    plan.compute_gradients()
    np.testing.assert_array_equal(network.gradients, expected)
    back = [layer.kind for layer in plan.going_back]
    assert back == ["dense", "flatten", "add", "conv2d", "re_lu", "batch_normalization"]  # and no fork


def test_dropouts_in_two_blocks_have_masks_of_their_own() -> None:
    ones, masks = np.ones((4, 500)), []
    blocks = [Residual([Dropout(0.5)]) for _ in range(3)]
    network = Sequential([Residual([blocks[0], Dropout(0.5)]), *blocks[1:]])
    network.build((500,), dtype="float64")
    plan = network.plan(4)
    plan.x[...] = ones
    plan.memory.record.load()
    plan.compute(training=True)
    for layer, _ in plan.nodes:
        if layer.kind == "dropout":
            masks.append(layer.mask.kept)
    assert len(masks) == 4
    for one in range(4):
        for other in range(one):
            assert 0.45 < np.mean(masks[one] == masks[other]) < 0.55


def test_copies_and_pickles_of_nested_networks_are_whole() -> None:
    network, x = nested(), np.random.default_rng(3).normal(size=(3, 4, 6, 3))
    assert len(copy.deepcopy(network).layers) == 3  # before it is built
    network.build((4, 6, 3), dtype="float64", seed=3)
    network.layers[0].trainable = False
    network.forward(x, training=True)
    y = network.forward(x)
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        np.testing.assert_array_equal(twin.forward(x), y)
        assert list(twin.weights()) == list(network.weights())
        assert [layer.trainable for layer in twin.leaves] == [layer.trainable for layer in network.leaves]
        twin.parameters.fill(0)
        assert not twin.forward(x).any()
    np.testing.assert_array_equal(network.forward(x), y)


def test_a_block_alone_is_the_block_in_a_network() -> None:
    rng, block = np.random.default_rng(4), Residual([Dense(4), ReLU(), Dense(3)])
    network = Sequential([Dense(3), block, Dense(2)])
    network.build((5,), dtype="float64")
    x = rng.normal(size=(6, 5))
    y = network.forward(x)
    first, _, last = network.layers
    hidden = x @ first.kernel + first.bias  # type: ignore[attr-defined]
    inner = block.layers[0]
    up, _, down = inner.layers  # type: ignore[attr-defined]
    hidden = hidden + np.maximum(hidden @ up.kernel + up.bias, 0) @ down.kernel + down.bias
    assert_close(y, hidden @ last.kernel + last.bias, 1e-12)  # type: ignore[attr-defined]


def test_check_gradients_sees_a_wrong_layer_in_a_branch() -> None:
    class Halved(ReLU):
        def compute_gradients(self) -> None:
            super().compute_gradients()
            self.ops.multiply(self.dx, self.memory.constant(0.5), out=self.dx)

    x = np.random.default_rng(5).normal(size=(4, 6))
    assert check_gradients(Residual([Dense(6), ReLU()]), x) < 1e-7
    assert check_gradients(Residual([Dense(6), Halved()]), x) > 1e-3
    assert check_gradients(Residual([], [Halved()]), x) > 1e-3


# --- what is refused


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (lambda: Residual([Dense(4)]), (5,), r"add: the shapes of its inputs differ: \(4,\), \(5,\)"),
        (lambda: Residual([Conv2D(3, 3)]), (6, 6, 3), r"add: .* differ: \(4, 4, 3\), \(6, 6, 3\)"),
        (lambda: Residual([Dense(4)], [Dense(1)]), (5,), "add: the shapes of its inputs differ"),
        (lambda: Parallel([Conv2D(3, 3), []]), (6, 6, 3), r"concatenate: .* differ: \(4, 4, 3\), \(6, 6, 3\)"),
        (lambda: Parallel([Flatten(), []]), (6, 6, 3), "concatenate: the shapes of its inputs differ"),
        (lambda: Sequential([Residual([Dense(4)])]), (6, 6, 3), r"dense: the input shape is \(6, 6, 3\)"),
        (lambda: Sequential([Dense(4), Residual([Dense(4)]), Residual([Dense(3)])]), (2,), r"add_1: .*\(3,\), \(4,\)"),
    ],
)
def test_shapes_that_do_not_fit_are_one_sentence(make: Any, shape: tuple[int, ...], message: str) -> None:
    module = make()
    with pytest.raises(ValueError, match=message) as caught:
        module.build(shape)
    assert "\n" not in str(caught.value)
    assert not module.built


def test_the_same_layer_twice_is_refused_however_deep() -> None:
    layer = Dense(4)
    with pytest.raises(ValueError, match="residual: the same layer stands twice; make a second one"):
        Residual(layer, layer)
    inside = Sequential([layer])
    for network in (
        Sequential([layer, Residual([layer])]),
        Sequential([Residual([layer]), Residual([layer])]),
        Parallel([[layer, ReLU()], layer]),
        Sequential([inside, Residual([ReLU(), inside])]),
    ):
        with pytest.raises(ValueError, match=r"the same layer, dense.*, stands twice; make a second one"):
            network.build((4,))
        assert not network.built


def test_what_is_no_branch_is_refused() -> None:
    with pytest.raises(ValueError, match="parallel: it has one branch where two or more are wanted"):
        Parallel([Dense(3)])
    with pytest.raises(ValueError, match="parallel: merge is 'mean' where 'concatenate' or 'add' is wanted"):
        Parallel([Dense(3), Dense(3)], merge="mean")
    with pytest.raises(TypeError, match="a Dense is given where a list"):
        Parallel(Dense(3))  # type: ignore[arg-type]
    for wrong, what in ("relu", "a str is given"), (3, "a int is given"), (None, "a NoneType is given"):
        with pytest.raises(TypeError, match=f"residual: {what} where a list of layers is wanted"):
            Residual(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="entry 1 is a str, not a layer"):
        Residual([Dense(3), "relu"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="entry 0 is a type, not a layer"):
        Residual([ReLU])  # type: ignore[list-item]
