"""A network in Keras's layers: what docs/exchange.md says is its counterpart."""

from math import pi, sqrt
from typing import Any

import keras
import numpy as np
from keras import layers as theirs

from scratchnet import layers
from scratchnet.layers.flow import Pass


class MultiHeadAttention(theirs.MultiHeadAttention):
    """For one input, as a Sequential has."""

    def build(self, shape: Any) -> None:
        super().build(shape, shape)
        self._inverse_sqrt_key_dim = np.float64(self._inverse_sqrt_key_dim)  # else it is rounded to float32 in float64

    def call(self, x: Any, training: Any = None) -> Any:
        return super().call(x, x, training=training)

    def compute_output_spec(self, x: Any, training: Any = None) -> Any:
        return keras.KerasTensor(x.shape, self.compute_dtype)


class PositionEmbedding(theirs.Layer):
    def build(self, shape: Any) -> None:
        self.embedding = self.add_weight(shape=shape[1:])

    def call(self, x: Any) -> Any:
        return x + self.embedding


class Parallel(theirs.Layer):
    """A list of branches that all read x, and a function of the list of what they give."""

    def __init__(self, branches: Any, merge: Any, **options: Any) -> None:
        super().__init__(**options)
        self.layers, self.merge = branches, merge

    def call(self, x: Any) -> Any:
        return self.merge([branch(x) for branch in self.layers])


class Residual(Parallel):
    pass


def gelu(layer: Any, x: Any) -> Any:
    """Keras's own rounds its constants to float32, in float64 too."""
    if layer.approximate:
        return x * (1 + keras.ops.tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x))) / 2
    return x * (1 + keras.ops.erf(x * sqrt(0.5))) / 2


def in_keras(layer: Any) -> Any:
    """Of a built layer or network."""
    if isinstance(layer, Pass):
        return theirs.Identity()
    match layer:
        case layers.Sequential():
            return keras.Sequential([in_keras(each) for each in layer.layers])
        case layers.Residual():
            return Residual([in_keras(each) for each in layer.layers], theirs.Add())
        case layers.Parallel():
            merge = theirs.Add() if layer.merge == "add" else theirs.Concatenate()
            return Parallel([in_keras(each) for each in layer.layers], merge)
        case layers.Conv2D():
            sizes = layer.filters, layer.kernel_size, layer.strides, layer.padding
            return theirs.Conv2D(*sizes, dilation_rate=layer.dilation_rate, use_bias=layer.use_bias)
        case layers.Dense():
            return theirs.Dense(layer.units, use_bias=layer.use_bias)
        case layers.BatchNormalization():
            return theirs.BatchNormalization(epsilon=layer.epsilon)
        case layers.LayerNormalization():
            return theirs.LayerNormalization(epsilon=layer.epsilon)
        case layers.MultiHeadAttention():
            return MultiHeadAttention(layer.num_heads, layer.key_dim, use_bias=layer.use_bias)
        case layers.PositionEmbedding():
            return PositionEmbedding()
        case layers.MaxPooling2D():
            return theirs.MaxPooling2D(layer.pool_size, layer.strides, layer.padding)
        case layers.AveragePooling2D():
            return theirs.AveragePooling2D(layer.pool_size, layer.strides, layer.padding)
        case layers.GlobalAveragePooling2D():
            return theirs.GlobalAveragePooling2D()
        case layers.GlobalAveragePooling1D():
            return theirs.GlobalAveragePooling1D()
        case layers.Flatten():
            return theirs.Flatten()
        case layers.Reshape():
            return theirs.Reshape(layer.output_shape)
        case layers.ReLU():
            return theirs.ReLU()
        case layers.GELU():
            return theirs.Activation(lambda x: gelu(layer, x))
        case layers.Softmax():
            return theirs.Softmax()
        case layers.Dropout():
            return theirs.Dropout(layer.rate)
    raise NotImplementedError(type(layer))


def model(network: Any) -> Any:
    """Built, with random weights of its own."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(str(network.dtype))
    try:
        built = in_keras(network)
        built.build((None, *network.input_shape))
        built(keras.ops.zeros((1, *network.input_shape), str(network.dtype)))
    finally:
        keras.config.set_dtype_policy(before)
    return built
