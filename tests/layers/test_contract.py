"""What all layers promise: fresh arrays, gradients that finite differences confirm, and errors that name the layer."""

import copy
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from tests.layers.catalogue import EXAMPLES, IMAGE
from tests.reference.checks import assert_close, distinct, gradients_of, parameters_of, randomize, slope_error

EVERY_LAYER = pytest.mark.parametrize("kind", EXAMPLES)
SMOOTH = pytest.mark.parametrize("kind", [kind for kind, example in EXAMPLES.items() if example.smooth])


def build(kind: str, dtype: str = "float64") -> Any:
    layer = EXAMPLES[kind].make()
    layer.build(EXAMPLES[kind].input_shape, dtype=dtype)
    randomize(layer, np.random.default_rng(1))
    return layer


def batch_for(kind: str, rows: int, rng: np.random.Generator, dtype: str = "float64") -> np.ndarray:
    return distinct((rows, *EXAMPLES[kind].input_shape), rng).astype(dtype)


def step(layer: Any, x: np.ndarray, dy: np.ndarray | None = None) -> list[np.ndarray]:
    """All that one forward and backward pass gives, with the noise of step 3; the gradients are views, so copies."""
    layer.clock.step = 3
    y = layer.forward(x, training=True)
    dx = layer.backward(np.cos(np.arange(y.size, dtype=y.dtype)).reshape(y.shape) if dy is None else dy)
    return [y, dx, *(gradient.copy() for gradient in gradients_of(layer))]


def equal(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@SMOOTH
def test_gradients_agree_with_finite_differences(kind: str) -> None:
    rng, layer = np.random.default_rng(2), build(kind)
    x = batch_for(kind, 4, rng)
    dy = rng.normal(size=(4, *layer.output_shape))
    _, dx, *gradients = step(layer, x, dy)

    def loss() -> float:
        layer.clock.step = 3
        return float(np.sum(layer.forward(x, training=True) * dy))

    assert slope_error(loss, [x], [dx], rng) < 1e-7
    for parameter, gradient in zip(parameters_of(layer), gradients, strict=True):
        assert slope_error(loss, [parameter], [gradient], rng) < 1e-7


@SMOOTH
def test_inference_gradients_agree_with_finite_differences(kind: str) -> None:
    rng, layer = np.random.default_rng(3), build(kind)
    x = batch_for(kind, 2, rng)
    layer.forward(x, training=True)  # so that moving averages are not at their start
    dy = rng.normal(size=(2, *layer.output_shape))

    def loss() -> float:
        layer.clock.step = 3
        return float(np.sum(layer.forward(x) * dy))

    loss()
    dx = layer.backward(dy)
    assert slope_error(loss, [x], [dx], rng) < 1e-7


@EVERY_LAYER
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_and_shape_are_kept(kind: str, dtype: str) -> None:
    layer, rng = build(kind, dtype), np.random.default_rng(4)
    for rows in (1, 3):
        x = batch_for(kind, rows, rng, dtype)
        y, dx, *gradients = step(layer, x)
        assert all(isinstance(array, np.ndarray) and array.dtype == dtype for array in (y, dx, *gradients))
        assert y.shape == (rows, *layer.output_shape)
        assert dx.shape == x.shape
        assert y.flags.c_contiguous
        assert dx.flags.c_contiguous
        assert [gradient.shape for gradient in gradients] == [array.shape for array in parameters_of(layer)]


@EVERY_LAYER
def test_returned_arrays_never_change_and_inputs_are_left_alone(kind: str) -> None:
    layer, rng = build(kind), np.random.default_rng(5)
    returned: list[tuple[np.ndarray, np.ndarray]] = []
    for rows in (2, 2, 5, 1, 2):
        x = batch_for(kind, rows, rng)
        before = x.copy()
        y, dx, *_ = step(layer, x)
        assert np.array_equal(x, before)
        returned += [(y, y.copy()), (dx, dx.copy())]
    assert all(np.array_equal(array, copy) for array, copy in returned)
    assert not any(np.shares_memory(a, b) for i, (a, _) in enumerate(returned) for b, _ in returned[:i])


@EVERY_LAYER
def test_nothing_is_left_over_from_the_passes_before(kind: str) -> None:
    """A used layer gives bit by bit what a fresh one gives, whatever it saw before."""
    rng, used = np.random.default_rng(6), build(kind)
    for rows in (3, 5, 3):
        x, dy = batch_for(kind, rows, rng), rng.normal(size=(rows, *used.output_shape))
        step(used, 100 * x, -50 * dy)
        used.forward(-x)
        assert equal(step(used, x, dy), step(build(kind), x, dy))


@EVERY_LAYER
def test_backward_twice_does_not_add_up(kind: str) -> None:
    rng, layer = np.random.default_rng(7), build(kind)
    x, other, dy = batch_for(kind, 3, rng), *(rng.normal(size=(3, *layer.output_shape)) for _ in range(2))
    expected = step(layer, x, dy)
    layer.backward(other)
    dx = layer.backward(dy)
    assert equal([expected[0], dx, *gradients_of(layer)], expected)


@EVERY_LAYER
def test_any_memory_order_is_taken(kind: str) -> None:
    rng = np.random.default_rng(8)
    x, dy = batch_for(kind, 3, rng), rng.normal(size=(3, *build(kind).output_shape))
    for odd in (
        np.asfortranarray,
        lambda array: np.flip(np.flip(array).copy()),
        lambda a: np.repeat(a, 2, -1)[..., ::2],
    ):
        odd_x, odd_dy = odd(x), odd(dy)
        odd_x.flags.writeable = odd_dy.flags.writeable = False
        assert equal(step(build(kind), odd_x, odd_dy), step(build(kind), x, dy))


@EVERY_LAYER
def test_an_unbuilt_layer_is_built_by_its_first_forward(kind: str) -> None:
    make, input_shape = EXAMPLES[kind].make, EXAMPLES[kind].input_shape
    for dtype in ("float32", "float64"):
        layer, built = make(), make()
        built.build(input_shape, dtype=dtype)
        x = batch_for(kind, 2, np.random.default_rng(9), dtype)
        y = layer.forward(x)
        assert y.dtype == dtype
        assert np.array_equal(y, built.forward(x))


@EVERY_LAYER
def test_parameters_are_views_and_attributes(kind: str) -> None:
    module = build(kind)
    for layer in module.leaves:
        assert set(layer.parameters) == set(layer.gradients)
        for name, parameter in layer.parameters.items():
            assert getattr(layer, name) is parameter
            assert getattr(layer, f"d{name}") is layer.gradients[name]
    if parameters_of(module) and EXAMPLES[kind].kind.linear:
        x = batch_for(kind, 2, np.random.default_rng(10))
        first = module.forward(x, training=True)
        for parameter in parameters_of(module):
            parameter[...] *= 2
        assert_close(module.forward(x, training=True), 2 * first)


@EVERY_LAYER
def test_a_second_build_starts_anew(kind: str) -> None:
    make, input_shape = EXAMPLES[kind].make, EXAMPLES[kind].input_shape
    layer = make()
    layer.build(input_shape, dtype="float32")
    layer.forward(batch_for(kind, 2, np.random.default_rng(11), "float32"))
    layer.build(input_shape, dtype="float64", seed=4)
    fresh = make()
    fresh.build(input_shape, dtype="float64", seed=4)
    x = batch_for(kind, 2, np.random.default_rng(11))
    assert equal(step(layer, x), step(fresh, x))


# --- errors: each names the layer and says what it got and what it wanted


@contextmanager
def refused(error: type[Exception], kind: str, *parts: Any) -> Iterator[None]:
    """The error's message is short and names the layer and these parts."""
    with pytest.raises(error) as raised:
        yield
    message = str(raised.value)
    assert kind.split()[0].replace("_", "") in message.lower().replace("_", ""), message
    for part in parts:
        assert str(part) in message, message
    assert len(message) < 300


@EVERY_LAYER
def test_backward_before_forward(kind: str) -> None:
    layer = build(kind)
    with refused(RuntimeError, kind, "forward"):
        layer.backward(np.zeros((2, *layer.output_shape)))


@EVERY_LAYER
def test_a_gradient_of_the_wrong_shape_or_dtype(kind: str) -> None:
    layer = build(kind)
    x = batch_for(kind, 3, np.random.default_rng(12))
    shape = (3, *layer.output_shape)
    layer.forward(x)
    for wrong in ((2, *shape[1:]), shape[1:], (*shape[:-1], shape[-1] + 1), (*shape, 1), (1,) * len(shape)):
        with refused(ValueError, kind, wrong, shape):
            layer.backward(np.zeros(wrong))
    for dtype in ("float32", "int64", "complex128"):
        with refused(TypeError, kind, dtype, "float64"):
            layer.backward(np.zeros(shape, dtype))


@EVERY_LAYER
def test_an_input_of_the_wrong_shape(kind: str) -> None:
    layer, shape = build(kind), (3, *EXAMPLES[kind].input_shape)
    wanted = ", ".join(str(size) for size in shape[1:])
    for wrong in ((*shape[:-1], shape[-1] + 1), shape[:-1], (*shape, 1), (3, shape[1] + 1, *shape[2:]), ()):
        with refused(ValueError, kind, wrong, wanted):
            layer.forward(np.zeros(wrong))


@EVERY_LAYER
def test_an_input_of_the_wrong_dtype(kind: str) -> None:
    shape = (3, *EXAMPLES[kind].input_shape)
    for built, dtype in (("float64", "float32"), ("float32", "float64"), ("float32", "int64"), ("float32", "uint8")):
        with refused(TypeError, kind, dtype, built):
            build(kind, built).forward(np.zeros(shape, dtype))


@EVERY_LAYER
def test_an_unbuilt_layer_refuses_integers(kind: str) -> None:
    make, input_shape = EXAMPLES[kind].make, EXAMPLES[kind].input_shape
    with refused(TypeError, kind, "int64", "float32"):
        make().forward(np.zeros((3, *input_shape), np.int64))


@EVERY_LAYER
def test_a_bad_build(kind: str) -> None:
    make, input_shape = EXAMPLES[kind].make, EXAMPLES[kind].input_shape
    with refused(TypeError, kind, "int32"):
        make().build(input_shape, dtype="int32")
    with refused(ValueError, kind, (*input_shape[:-1], 0)):
        make().build((*input_shape[:-1], 0))
    with pytest.raises(ValueError, match="toaster"):
        make().build(input_shape, device="toaster")


@pytest.mark.parametrize("kind", [kind for kind in EXAMPLES if "2d" in kind])
@pytest.mark.parametrize("input_shape", [(), (6,), (6, 5), (6, 5, 3, 2)])
def test_image_layers_refuse_other_ranks(kind: str, input_shape: tuple[int, ...]) -> None:
    with refused(ValueError, kind, input_shape):
        EXAMPLES[kind].make().build(input_shape)


def test_dense_refuses_images() -> None:
    with refused(ValueError, "dense", IMAGE):
        EXAMPLES["dense"].make().build(IMAGE)


@EVERY_LAYER
def test_a_shape_that_is_none(kind: str) -> None:
    for shape in (3, (3.5,), (), "3"):
        with refused(ValueError, kind, shape):
            EXAMPLES[kind].make().build(shape)  # type: ignore[arg-type]


@EVERY_LAYER
def test_a_seed_that_is_none(kind: str) -> None:
    make, input_shape = EXAMPLES[kind].make, EXAMPLES[kind].input_shape
    for seed in (-1, 1.5, 1 << 63):
        with refused(ValueError, kind, "seed", seed):
            make().build(input_shape, seed=seed)  # type: ignore[arg-type]


@EVERY_LAYER
def test_a_pickled_layer_is_whole(kind: str) -> None:
    """Its parameters are views of its flat vectors again: a GPU's products take those."""
    layer, x = build(kind), batch_for(kind, 3, np.random.default_rng(8))
    for twin in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert equal(step(twin, x), step(layer, x))
        twin.flat[0][...], twin.flat[1][...] = 2, 3
        assert all((array == 2).all() for array in parameters_of(twin))
        assert all((array == 3).all() for array in gradients_of(twin))
        assert not any((array == 2).all() for array in parameters_of(layer))
        for leaf in twin.leaves:
            assert all(getattr(leaf, f"d{name}") is gradient for name, gradient in leaf.gradients.items())
