"""Where each array of each layer stands in PyTorch and in Keras 3: by which name, and with which axes.

A letter is an axis, letters in brackets are one axis of theirs, a digit is one place of an axis of ours, and `i` is the
axis of the features that the layer reads.
"""

import re
from collections import Counter
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from scratchnet.layers import (
    BatchNormalization,
    Conv2D,
    Dense,
    Flatten,
    LayerNormalization,
    MultiHeadAttention,
    PositionEmbedding,
    Reshape,
)
from scratchnet.layers.flow import Add, Concatenate, Network
from scratchnet.layers.layer import Layer
from scratchnet.layers.module import Module

Shape = tuple[int, ...]
Place = tuple[str, str, Shape | None]  # the name of ours, its axes > theirs, and an image that was flattened
Table = dict[type, tuple[tuple[str, str, str], ...]]

TORCH: Table = {
    Conv2D:             (("kernel",          "hwio > oihw",   "weight"),
                         ("bias",            "o > o",         "bias")),
    Dense:              (("kernel",          "io > oi",       "weight"),
                         ("bias",            "o > o",         "bias")),
    BatchNormalization: (("gamma",           "i > i",         "weight"),
                         ("beta",            "i > i",         "bias"),
                         ("moving_mean",     "i > i",         "running_mean"),
                         ("moving_variance", "i > i",         "running_var")),
    LayerNormalization: (("gamma",           "i > i",         "weight"),
                         ("beta",            "i > i",         "bias")),
    PositionEmbedding:  (("embedding",       "td > td",       "weight"),),
    MultiHeadAttention: (("kernel",          "dthk > (thk)d", "in_proj_weight"),
                         ("bias",            "thk > (thk)",   "in_proj_bias"),
                         ("output_kernel",   "hkd > d(hk)",   "out_proj.weight"),
                         ("output_bias",     "d > d",         "out_proj.bias")),
}  # fmt: skip

KERAS: Table = {  # in the order of get_weights; all but an attention's have our axes
    layer: tuple((ours, "{0} > {0}".format(axes.split()[0]), f"vars/{i}") for i, (ours, axes, _) in enumerate(rows))
    for layer, rows in TORCH.items()
} | {
    MultiHeadAttention: (("kernel",          "d0hk > dhk",    "query_dense/vars/0"),
                         ("bias",            "0hk > hk",      "query_dense/vars/1"),
                         ("kernel",          "d1hk > dhk",    "key_dense/vars/0"),
                         ("bias",            "1hk > hk",      "key_dense/vars/1"),
                         ("kernel",          "d2hk > dhk",    "value_dense/vars/0"),
                         ("bias",            "2hk > hk",      "value_dense/vars/1"),
                         ("output_kernel",   "hkd > hkd",     "output_dense/vars/0"),
                         ("output_bias",     "d > d",         "output_dense/vars/1")),
}  # fmt: skip


def seen(array: np.ndarray, axes: str, image: Shape | None) -> tuple[np.ndarray, Shape]:
    """A contiguous array of ours as a view with their axes, and the shape it has there, with axes put together."""
    ours, theirs = axes.split(" > ")
    if image and "i" in ours:
        array = array.reshape(*image, *array.shape[1:])
        ours, theirs = ours.replace("i", "HWC"), theirs.replace("i", "(CHW)")
    sizes = dict(zip(ours, array.shape, strict=True))
    part = array[tuple(int(axis) if axis.isdigit() else slice(None) for axis in ours)]
    kept = re.sub(r"\d", "", ours)
    shape = tuple(prod(sizes[axis] for axis in group.strip("()")) for group in re.findall(r"\(\w+\)|\w", theirs))
    return part.transpose([kept.index(axis) for axis in theirs if axis.isalpha()]), shape


def places(network: Module, framework: str) -> dict[str, Place]:
    """By their names, in their order; ValueError that names a layer without a counterpart."""
    network._needs_build(f"an exchange with {framework}")
    table, images = (TORCH, flattened(network)) if framework == "PyTorch" else (KERAS, {})
    found: dict[str, Place] = {}
    for layer, torch, keras in named(network):
        check(layer, table, framework)
        for ours, axes, theirs in table.get(type(layer), ()):
            if ours in layer.shapes_of_arrays():
                key = (torch if table is TORCH else keras) + theirs
                found[key] = f"{layer.name}/{ours}", axes, images.get(layer.name)
    return found


def named(module: Module, torch: str = "", keras: str = "") -> Iterator[tuple[Layer, str, str]]:
    """The layers with what stands before their arrays' names: 2.0. and layers/sequential/layers/dense_1/, say."""
    if isinstance(module, Layer):
        yield module, torch, keras
    elif isinstance(module, Network):
        counts: Counter[str] = Counter()
        for index, layer in enumerate(module.layers):
            kind = layer.kind if isinstance(layer, Layer) else type(layer).__name__.lower()
            number = f"_{counts[kind]}" if counts[kind] else ""
            counts[kind] += 1
            yield from named(layer, f"{torch}{index}.", f"{keras}layers/{kind}{number}/")


def check(layer: Any, table: Table, framework: str) -> None:
    if layer.shapes_of_arrays() and type(layer) not in table:
        raise ValueError(f"{layer.name}: {framework} has no counterpart of {type(layer).__name__}, or none is known")
    if isinstance(layer, MultiHeadAttention):
        if layer.temperature is not None:
            raise ValueError(f"{layer.name}: {framework} has no counterpart of an attention with Gumbel noise")
        if table is TORCH and layer.num_heads * layer.key_dim != layer.input_shape[1]:
            raise ValueError(
                f"{layer.name}: PyTorch has no counterpart of {layer.num_heads} heads with key_dim {layer.key_dim} for "
                f"{layer.input_shape[1]} features, as its heads share the features: num_heads * key_dim must be that"
            )


def flattened(network: Module) -> dict[str, Shape]:
    """By the name of each layer that reads flattened images, their shape: PyTorch has them in the order C, H, W.

    ValueError where no order of one layer's weights makes up for that.
    """
    images: dict[str, Shape] = {}
    of_edge: dict[Any, Shape | None] = {}
    for node in network.graph.nodes:
        layer, (image, *others) = node.layer, [of_edge.get(edge) for edge in node.inputs]
        if image:
            images[layer.name] = image
        mixed = isinstance(layer, Add) and any(other != image for other in others)
        joined = isinstance(layer, Concatenate) and any((image, *others))
        if mixed or joined or (image and isinstance(layer, Reshape) and not isinstance(layer, Flatten)):
            raise ValueError(
                f"{layer.name}: PyTorch has no counterpart, as it flattens images in another order and no Dense layer "
                f"stands between the Flatten and this {type(layer).__name__}"
            )
        if isinstance(layer, Flatten) and len(layer.input_shape) == 3:
            image = layer.input_shape
        elif isinstance(layer, Dense):
            image = None
        of_edge |= dict.fromkeys(node.outputs, image)
    return images
