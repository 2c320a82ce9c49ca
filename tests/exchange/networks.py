"""Random networks that have a counterpart in PyTorch and Keras, with weights that keep their values near 1."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from scratchnet import layers
from scratchnet.backend import get_device
from scratchnet.experiments.recipes import RECIPES
from scratchnet.layers import Sequential
from tests.reference.strategies import seeds

Draw, Shape = st.DrawFn, tuple[int, ...]
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


@dataclass(frozen=True)
class Case:
    """Layers, the shape of one input, and the seed of all values."""

    layers: list[Any]
    input_shape: Shape
    seed: int

    def network(self, dtype: str) -> Sequential:
        network = Sequential([layer.unbuilt() for layer in self.layers])
        network.build(self.input_shape, dtype=dtype)
        randomize(network, np.random.default_rng(self.seed))
        return network

    def x(self, dtype: str) -> np.ndarray:
        return np.random.default_rng(self.seed + 1).normal(size=(3, *self.input_shape)).astype(dtype)

    def __repr__(self) -> str:
        return f"{[(type(x).__name__, x.arguments()) for x in self.layers]} of {self.input_shape}, {self.seed}"


def case_of(recipe: str) -> Case:
    return Case(RECIPES[recipe].layers(100, 0), (32, 32, 3), 0)


def randomize(network: Sequential, rng: np.random.Generator) -> None:
    """Kernels by the number of their inputs, variances from 0.5 to 2, all else normal."""
    weights = network.weights()
    for name, array in weights.items():
        values = rng.normal(size=array.shape)
        if name.endswith("variance"):
            values = rng.uniform(0.5, 2, array.shape)
        elif name.endswith("kernel"):
            inputs = array.shape[:1] if array.ndim == 4 and "attention" in name else array.shape[:-1]
            values /= np.sqrt(np.prod(inputs))
        weights[name] = values
    network.set_weights(weights)


@st.composite
def networks(draw: Draw) -> Case:
    """Images, tokens or features, some layers, and what makes the next of them."""
    if (start := draw(st.sampled_from([3, 3, 2, 2, 1]))) == 3:
        shape: Shape = draw(st.tuples(*[st.integers(2, 7)] * 2, st.sampled_from([1, 2, 3, 17])))
    else:
        shape = draw(st.tuples(*[st.integers(1, 6)] * start))
    found, now = list[Any](), shape
    for stage in range(4):
        parts = some(draw, now, depth=2)
        now = after(parts, now)
        bridge: list[Any] = []
        if len(now) == 3 and stage:
            bridge = draw(st.sampled_from([flat, flat, tokens, mean]))(draw, now)
        elif len(now) == 2 and stage:
            bridge = draw(st.sampled_from([[], [layers.GlobalAveragePooling1D()], [layers.Flatten()]]))
        found, now = found + parts + bridge, after(bridge, now)
    if len(now) < 3:
        found.append(layers.Dense(draw(st.integers(1, 5))))
    return Case(found, shape, draw(seeds()))


def after(parts: list[Any], shape: Shape) -> Shape:
    if parts:
        network = Sequential([layer.unbuilt() for layer in parts])
        network.configure(shape, "float32", get_device("cpu"))
        return network.output_shape
    return shape


def flat(draw: Draw, shape: Shape) -> list[Any]:
    """With layers between the flattening and the dense layer that makes up for its order."""
    between = [pointwise(draw, 1) for _ in range(draw(st.integers(0, 2)))]
    if draw(st.booleans()):
        between.append(layers.Residual([pointwise(draw, 1)]))
    return [layers.Flatten(), *between, layers.Dense(draw(st.integers(1, 5)), draw(st.booleans()))]


def tokens(draw: Draw, shape: Shape) -> list[Any]:
    return [layers.Reshape((-1, shape[-1]))]


def mean(draw: Draw, shape: Shape) -> list[Any]:
    return [layers.GlobalAveragePooling2D()]


def some(draw: Draw, shape: Shape, depth: int, keep: bool = False) -> list[Any]:
    found: list[Any] = []
    for _ in range(draw(st.integers(int(keep), 2))):
        layer = any_layer(draw, shape, depth, keep)
        found, shape = [*found, layer], after([layer], shape)
    return found


def any_layer(draw: Draw, shape: Shape, depth: int, keep: bool) -> Any:
    """One that keeps the shape, if asked to."""
    kind = draw(st.sampled_from(["weights", "weights", "pointwise", "network"]))
    if kind == "pointwise":
        return pointwise(draw, len(shape))
    if kind == "network" and depth:
        branches = [some(draw, shape, depth - 1, keep=True) for _ in range(2)]
        if (which := draw(st.sampled_from(["residual", "add", "concatenate", "sequential"]))) == "sequential":
            return Sequential(branches[0])
        if which == "residual":
            return layers.Residual(branches[0], draw(st.sampled_from([[], branches[1]])))
        return layers.Parallel(branches, "add" if keep else which)
    if len(shape) == 3:
        return draw(st.sampled_from([convolution, convolution, pooling]))(draw, shape, keep)
    if len(shape) == 2 and draw(st.booleans()):
        if draw(st.booleans()):
            return layers.PositionEmbedding()
        # Keras on TensorFlow adds a bias of shape (heads, 1) along the tokens where there are as many of them
        wrong = shape[0] if shape[0] == shape[1] > 1 else None
        heads = draw(st.sampled_from([n for n in range(1, 7) if shape[1] % n == 0 and n != wrong]))
        return layers.MultiHeadAttention(heads, shape[1] // heads, use_bias=draw(st.booleans()))
    return layers.Dense(shape[-1] if keep else draw(st.integers(1, 6)), draw(st.booleans()))


def pointwise(draw: Draw, axes: int) -> Any:
    """A layer for any shape."""
    epsilon = draw(st.sampled_from([1e-3, 0.1]))
    kinds = [
        layers.ReLU, layers.GELU, lambda: layers.GELU(approximate=True), layers.Softmax, lambda: layers.Dropout(0.3),
        lambda: layers.BatchNormalization(epsilon=epsilon), lambda: layers.LayerNormalization(epsilon),
    ]  # fmt: skip
    return draw(st.sampled_from(kinds))()


def convolution(draw: Draw, shape: Shape, keep: bool) -> Any:
    size, filters = draw(st.tuples(*[st.integers(1, 3)] * 2)), draw(st.integers(1, 4))
    if keep:
        return layers.Conv2D(shape[2], size, padding="same", use_bias=draw(st.booleans()))
    padding = draw(st.sampled_from(["valid", "same"])) if size <= (min(shape[:2]),) * 2 else "same"
    stride, dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 1)] + [(1, 2)] * (padding == "same")))
    if max(size) > min(shape[:2]):
        padding = "same"
    return layers.Conv2D(filters, size, stride, padding, dilation, use_bias=draw(st.booleans()))


def pooling(draw: Draw, shape: Shape, keep: bool) -> Any:
    kind = draw(st.sampled_from([layers.MaxPooling2D, layers.AveragePooling2D]))
    stride = 1 if keep else draw(st.integers(1, 2))
    return kind(draw(st.integers(1, 3)), stride, "same")
