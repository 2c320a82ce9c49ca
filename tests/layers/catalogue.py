"""The one list of layers: what the tests know of each type, from which all tests of all layers are made.

A new layer is one `Kind` here: its page in docs/derivations, its definition by plain loops, its words in PyTorch, and
examples. The contract, reference, finite differences, PyTorch, replay, device, capture and documentation tests follow.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scratchnet import layers
from scratchnet.layers.flow import Pass
from tests.reference import in_torch
from tests.reference import layers as loops

Array = np.ndarray
Make, Shape = Callable[[], Any], tuple[int, ...]
Forward = Callable[[Any, Array], Array]  # (layer, x) -> y
Backward = Callable[[Any, Array, Array], list[Array]]  # (layer, x, dy) -> dx, and the gradients in their order

IMAGE, TOKENS, FEATURES = (6, 5, 3), (5, 6), (7,)


@dataclass(frozen=True)
class Kind:
    """A type of layer. `in_torch` is (layer, x, its parameters...) -> y, or None where PyTorch has nothing like it."""

    layer: type
    page: str
    forward: Forward
    backward: Backward
    in_torch: Callable[..., Any] | None
    examples: Mapping[str, tuple[Make, Shape]]
    linear: bool = True  # whether y doubles when all its parameters do


@dataclass(frozen=True)
class Example:
    """One layer to test; `input_shape` is without the batch axis."""

    make: Make
    input_shape: Shape
    kind: Kind

    @property
    def smooth(self) -> bool:
        """Whether finite differences have its gradient; a straight-through sample has another one than its own."""
        return not getattr(self.make(), "straight_through", False)


# --- networks are what their layers are, put together


def forward(module: Any, x: Array) -> Array:
    return x if isinstance(module, Pass) else KINDS[type(module)].forward(module, x)


def backward(module: Any, x: Array, dy: Array) -> list[Array]:
    return [dy] if isinstance(module, Pass) else KINDS[type(module)].backward(module, x, dy)


def torch_forward(module: Any, x: Any, tensors: Mapping[str, Any]) -> Any:
    """In PyTorch, with the parameters by the names that `weights` gives them."""
    if isinstance(module, Pass):
        return x
    function = KINDS[type(module)].in_torch
    assert function is not None
    if isinstance(module, layers.Layer):
        return function(module, x, *(tensors[f"{module.name}/{name}"] for name in module.parameters))
    return function(module, x, tensors)


def sequential(module: Any, x: Array) -> Array:
    for layer in module.layers:
        x = forward(layer, x)
    return x


def sequential_backward(module: Any, x: Array, dy: Array) -> list[Array]:
    inputs = [x]
    for layer in module.layers[:-1]:
        inputs.append(forward(layer, inputs[-1]))
    gradients: list[Array] = []
    for layer, read in reversed(list(zip(module.layers, inputs, strict=True))):
        dy, *own = backward(layer, read, dy)
        gradients = own + gradients
    return [dy, *gradients]


def sequential_in_torch(module: Any, x: Any, tensors: Mapping[str, Any]) -> Any:
    for layer in module.layers:
        x = torch_forward(layer, x, tensors)
    return x


def parallel(module: Any, x: Array) -> Array:
    ys = [forward(branch, x) for branch in module.layers]
    return np.sum(ys, axis=0) if module.merge == "add" else np.concatenate(ys, axis=-1)


def parallel_backward(module: Any, x: Array, dy: Array) -> list[Array]:
    widths = [forward(branch, x).shape[-1] for branch in module.layers]
    dys = [dy] * len(widths) if module.merge == "add" else np.split(dy, np.cumsum(widths)[:-1], axis=-1)
    dx, gradients = np.zeros(x.shape), list[Array]()
    for branch, part in zip(module.layers, dys, strict=True):
        of_branch, *own = backward(branch, x, part)
        dx, gradients = dx + of_branch, gradients + own
    return [dx, *gradients]


def parallel_in_torch(module: Any, x: Any, tensors: Mapping[str, Any]) -> Any:
    import torch

    ys = [torch_forward(branch, x, tensors) for branch in module.layers]
    return sum(ys[1:], ys[0]) if module.merge == "add" else torch.cat(ys, -1)


# --- the list


def residual_block() -> layers.Residual:
    """Of He et al. 2016, "Identity mappings in deep residual networks", halved."""
    branch = [layers.BatchNormalization(), layers.ReLU(), layers.Conv2D(3, 3, padding="same"), layers.Dropout(0.3)]
    return layers.Residual([*branch, layers.Conv2D(3, (1, 2), padding="same")])


def projected_block() -> layers.Residual:
    branch = [layers.Conv2D(4, 3, strides=2, padding="same"), layers.ReLU()]
    return layers.Residual([*branch, layers.Conv2D(4, 3, padding="same")], [layers.Conv2D(4, 1, strides=2)])


def three_deep() -> layers.Sequential:
    inner = layers.Parallel([[layers.Dense(3), layers.ReLU()], layers.Dense(4)])
    middle = layers.Residual([inner, layers.BatchNormalization()])
    return layers.Sequential([layers.Residual([middle, layers.Dropout(0.3)]), layers.Dense(5)])


CATALOGUE = (
    Kind(
        layers.Conv2D, "convolution", loops.conv2d, loops.conv2d_backward, in_torch.conv2d,
        {
            "conv2d": (lambda: layers.Conv2D(4, (3, 2), strides=(1, 2), padding="same"), IMAGE),
            "conv2d dilated": (lambda: layers.Conv2D(2, 2, dilation_rate=(3, 2)), IMAGE),
            "conv2d wide": (lambda: layers.Conv2D(3, 3, padding="same"), (6, 5, 16)),
            "conv2d without bias": (lambda: layers.Conv2D(4, (2, 3), strides=2, padding="same", use_bias=False), IMAGE),
        },
    ),
    Kind(
        layers.MaxPooling2D, "pooling", loops.max_pooling2d, loops.max_pooling2d_backward, in_torch.max_pooling2d,
        {
            "max_pooling2d": (lambda: layers.MaxPooling2D(2), IMAGE),
            "max_pooling2d overlapping": (lambda: layers.MaxPooling2D(3, strides=(2, 1), padding="same"), IMAGE),
        },
    ),
    Kind(
        layers.AveragePooling2D, "pooling",
        loops.average_pooling2d, loops.average_pooling2d_backward, in_torch.average_pooling2d,
        {"average_pooling2d": (lambda: layers.AveragePooling2D(3, strides=(2, 1), padding="same"), IMAGE)},
    ),
    Kind(
        layers.GlobalAveragePooling2D, "pooling",
        loops.global_average_pooling2d, loops.global_average_pooling2d_backward, in_torch.global_average_pooling2d,
        {"global_average_pooling2d": (layers.GlobalAveragePooling2D, IMAGE)},
    ),
    Kind(
        layers.GlobalAveragePooling1D, "pooling",
        loops.global_average_pooling1d, loops.global_average_pooling1d_backward, in_torch.global_average_pooling1d,
        {"global_average_pooling1d": (layers.GlobalAveragePooling1D, TOKENS)},
    ),
    Kind(
        layers.Dense, "dense", loops.dense, loops.dense_backward, in_torch.dense,
        {
            "dense": (lambda: layers.Dense(5), FEATURES),
            "dense without bias": (lambda: layers.Dense(5, use_bias=False), FEATURES),
            "dense of tokens": (lambda: layers.Dense(4), TOKENS),
            "dense of tokens without bias": (lambda: layers.Dense(8, use_bias=False), TOKENS),
            "dense of five axes": (lambda: layers.Dense(3), (2, 3, 2, 4)),
        },
    ),
    Kind(
        layers.Flatten, "dense", loops.reshape, loops.reshape_backward, in_torch.reshape,
        {"flatten": (layers.Flatten, IMAGE), "flatten of tokens": (layers.Flatten, TOKENS)},
    ),
    Kind(
        layers.Reshape, "dense", loops.reshape, loops.reshape_backward, in_torch.reshape,
        {
            "reshape": (lambda: layers.Reshape((-1, 3)), IMAGE),
            "reshape of images": (lambda: layers.Reshape((5, 9, 2)), IMAGE),
            "reshape to images": (lambda: layers.Reshape((2, -1, 5)), TOKENS),
            "reshape of features": (lambda: layers.Reshape((1, 7)), FEATURES),
        },
    ),
    Kind(
        layers.ReLU, "activations", loops.relu, loops.relu_backward, in_torch.relu,
        {"relu": (layers.ReLU, IMAGE), "relu of features": (layers.ReLU, FEATURES)},
    ),
    Kind(
        layers.GELU, "activations", loops.gelu, loops.gelu_backward, in_torch.gelu,
        {
            "gelu": (layers.GELU, IMAGE),
            "gelu of tokens": (layers.GELU, TOKENS),
            "gelu approximate": (lambda: layers.GELU(approximate=True), FEATURES),
        },
    ),
    Kind(
        layers.Softmax, "softmax", loops.softmax, loops.softmax_backward, in_torch.softmax,
        {"softmax": (layers.Softmax, FEATURES)},
    ),
    Kind(
        layers.GumbelSoftmax, "gumbel_softmax",
        loops.gumbel_softmax, loops.gumbel_softmax_backward, in_torch.gumbel_softmax,
        {
            "gumbel_softmax": (lambda: layers.GumbelSoftmax(0.5), FEATURES),
            "gumbel_softmax straight through": (lambda: layers.GumbelSoftmax(0.7, True), FEATURES),
        },
    ),
    Kind(
        layers.Dropout, "dropout", loops.dropout, loops.dropout_backward, in_torch.dropout,
        {"dropout": (lambda: layers.Dropout(0.4), IMAGE)},
    ),
    Kind(
        layers.BatchNormalization, "batch_normalization",
        loops.batch_normalization, loops.batch_normalization_backward, in_torch.batch_normalization,
        {
            "batch_normalization": (layers.BatchNormalization, IMAGE),
            "batch_normalization of features": (layers.BatchNormalization, FEATURES),
        },
    ),
    Kind(
        layers.LayerNormalization, "layer_normalization",
        loops.layer_normalization, loops.layer_normalization_backward, in_torch.layer_normalization,
        {
            "layer_normalization": (layers.LayerNormalization, TOKENS),
            "layer_normalization of images": (lambda: layers.LayerNormalization(0.1), IMAGE),
            "layer_normalization of features": (lambda: layers.LayerNormalization(1e-6), FEATURES),
        },
    ),
    Kind(
        layers.PositionEmbedding, "position_embedding",
        loops.position_embedding, loops.position_embedding_backward, in_torch.position_embedding,
        {"position_embedding": (layers.PositionEmbedding, TOKENS)},
        linear=False,
    ),
    Kind(
        layers.MultiHeadAttention, "attention",
        loops.multi_head_attention, loops.multi_head_attention_backward, in_torch.multi_head_attention,
        {
            "multi_head_attention": (lambda: layers.MultiHeadAttention(2, 3), TOKENS),
            "multi_head_attention without bias": (lambda: layers.MultiHeadAttention(3, 2, use_bias=False), TOKENS),
            "multi_head_attention with dropout": (lambda: layers.MultiHeadAttention(2, 4, 0.3), TOKENS),
            "multi_head_attention with noise": (lambda: layers.MultiHeadAttention(3, 1, temperature=0.7), TOKENS),
            "multi_head_attention with both": (lambda: layers.MultiHeadAttention(1, 3, 0.4, True, 1.5), TOKENS),
            "multi_head_attention of one token": (lambda: layers.MultiHeadAttention(2, 3), (1, 6)),
        },
        linear=False,
    ),
    Kind(
        layers.Sequential, "residual", sequential, sequential_backward, sequential_in_torch,
        {
            "sequential": (
                lambda: layers.Sequential(
                    [layers.Conv2D(4, 3, padding="same"), layers.ReLU(), layers.MaxPooling2D(), layers.Dropout(0.2)]
                ),
                IMAGE,
            ),
            "sequential three deep": (three_deep, FEATURES),
            "sequential of tokens": (
                lambda: layers.Sequential([layers.MultiHeadAttention(2, 4), layers.Dense(4), layers.Dropout(0.2)]),
                TOKENS,
            ),
        },
        linear=False,
    ),
    Kind(
        layers.Residual, "residual", parallel, parallel_backward, parallel_in_torch,
        {
            "residual": (residual_block, IMAGE),
            "residual with a convolution as shortcut": (projected_block, IMAGE),
            "residual of features": (lambda: layers.Residual([layers.Dense(7), layers.ReLU()]), FEATURES),
        },
        linear=False,
    ),
    Kind(
        layers.Parallel, "residual", parallel, parallel_backward, parallel_in_torch,
        {
            "parallel": (
                lambda: layers.Parallel(
                    [layers.Conv2D(2, 3, padding="same"), [], [layers.ReLU(), layers.Conv2D(4, 1)]]
                ),
                IMAGE,
            ),
            "parallel that adds": (
                lambda: layers.Parallel([layers.Dense(4), [layers.Dense(4), layers.ReLU()], layers.Dense(4)], "add"),
                FEATURES,
            ),
        },
        linear=False,
    ),
)  # fmt: skip
KINDS = {kind.layer: kind for kind in CATALOGUE}
EXAMPLES = {name: Example(*example, kind) for kind in CATALOGUE for name, example in kind.examples.items()}
