"""Layers by the loops of reference.py: `name(layer, x) -> y` and `name_backward(layer, x, dy) -> [dx, *gradients]`.

All are training steps on the whole batch, at step STEP of the noise.
"""

from math import prod
from typing import Any

import numpy as np

from scratchnet.backend.noise import gumbel, uniform
from tests.reference import reference

Array = np.ndarray
STEP = 3


def _drawn(layer: Any, rows: int, shape: tuple[int, ...] | None = None, source: int = 0) -> Array:
    """The uniform numbers of a layer, or of one of its sources, for the first rows of a batch."""
    shape, stream = shape or layer.input_shape, layer.noise_stream + (source << 48)
    return uniform(layer.seed, stream, STEP, 0, rows, prod(shape)).reshape(rows, *shape).astype(np.float64)


def mask(layer: Any, rows: int) -> Array:
    return (_drawn(layer, rows) >= layer.rate) / (1 - layer.rate)


def noise(layer: Any, rows: int) -> Array:
    return gumbel(_drawn(layer, rows))


def _bias(layer: Any, size: int) -> Array:
    return layer.bias if layer.use_bias else np.zeros(size)


def conv2d(layer: Any, x: Array) -> Array:
    options = layer.strides, layer.padding, layer.dilation_rate
    return reference.conv2d(x, layer.kernel, _bias(layer, layer.filters), *options)


def conv2d_backward(layer: Any, x: Array, dy: Array) -> list[Array]:
    options = layer.strides, layer.padding, layer.dilation_rate
    return [*reference.conv2d_backward(x, layer.kernel, dy, *options)][: 2 + layer.use_bias]


def dense(layer: Any, x: Array) -> Array:
    return reference.dense(x, layer.kernel, _bias(layer, layer.units))


def dense_backward(layer: Any, x: Array, dy: Array) -> list[Array]:
    return [*reference.dense_backward(x, layer.kernel, dy)][: 2 + layer.use_bias]


def reshape(layer: Any, x: Array) -> Array:
    """Number after number."""
    y = np.zeros((len(x), *layer.output_shape))
    for n in range(len(x)):
        for there, here in zip(np.ndindex(y.shape[1:]), np.ndindex(x.shape[1:]), strict=True):
            y[n][there] = x[n][here]
    return y


def reshape_backward(layer: Any, x: Array, dy: Array) -> list[Array]:
    dx = np.zeros(x.shape)
    for n in range(len(x)):
        for there, here in zip(np.ndindex(dy.shape[1:]), np.ndindex(x.shape[1:]), strict=True):
            dx[n][here] = dy[n][there]
    return [dx]


def max_pooling2d(layer: Any, x: Array) -> Array:
    return reference.max_pooling2d(x, layer.pool_size, layer.strides, layer.padding)


def max_pooling2d_backward(layer: Any, x: Array, dy: Array) -> list[Array]:
    return [reference.max_pooling2d_backward(x, dy, layer.pool_size, layer.strides, layer.padding)]


def average_pooling2d(layer: Any, x: Array) -> Array:
    return reference.average_pooling2d(x, layer.pool_size, layer.strides, layer.padding)


def average_pooling2d_backward(layer: Any, x: Array, dy: Array) -> list[Array]:
    return [reference.average_pooling2d_backward(x, dy, layer.pool_size, layer.strides, layer.padding)]


def global_average_pooling2d(layer: Any, x: Array) -> Array:
    """One window, as large as the image."""
    return reference.average_pooling2d(x, x.shape[1:3], 1)[:, 0, 0]


def global_average_pooling2d_backward(layer: Any, x: Array, dy: Array) -> list[Array]:
    return [reference.average_pooling2d_backward(x, dy[:, None, None], x.shape[1:3], 1)]


def global_average_pooling1d(layer: Any, x: Array) -> Array:
    return global_average_pooling2d(layer, x[:, None])


def global_average_pooling1d_backward(layer: Any, x: Array, dy: Array) -> list[Array]:
    return [global_average_pooling2d_backward(layer, x[:, None], dy)[0][:, 0]]


def relu(layer: Any, x: Array) -> Array:
    return reference.relu(x)


def relu_backward(layer: Any, x: Array, dy: Array) -> list[Array]:
    return [reference.relu_backward(x, dy)]


def gelu(layer: Any, x: Array) -> Array:
    return reference.gelu(x, layer.approximate)


def gelu_backward(layer: Any, x: Array, dy: Array) -> list[Array]:
    return [reference.gelu_backward(x, dy, layer.approximate)]


def softmax(layer: Any, x: Array) -> Array:
    return reference.softmax(x)


def softmax_backward(layer: Any, x: Array, dy: Array) -> list[Array]:
    return [reference.softmax_backward(x, dy)]


def gumbel_softmax(layer: Any, x: Array) -> Array:
    soft = reference.softmax((x + noise(layer, len(x))) / layer.temperature)
    return np.eye(x.shape[-1])[soft.argmax(-1)] if layer.straight_through else soft


def gumbel_softmax_backward(layer: Any, x: Array, dy: Array) -> list[Array]:
    scaled = (x + noise(layer, len(x))) / layer.temperature
    return [reference.softmax_backward(scaled, dy) / layer.temperature]


def dropout(layer: Any, x: Array) -> Array:
    return x * mask(layer, len(x))


def dropout_backward(layer: Any, x: Array, dy: Array) -> list[Array]:
    return [dy * mask(layer, len(x))]


def batch_normalization(layer: Any, x: Array) -> Array:
    return reference.batch_normalization(x, layer.gamma, layer.beta, layer.epsilon)[0]


def batch_normalization_backward(layer: Any, x: Array, dy: Array) -> list[Array]:
    return [*reference.batch_normalization_backward(x, layer.gamma, dy, layer.epsilon)]


def layer_normalization(layer: Any, x: Array) -> Array:
    return reference.layer_normalization(x, layer.gamma, layer.beta, layer.epsilon)[0]


def layer_normalization_backward(layer: Any, x: Array, dy: Array) -> list[Array]:
    return [*reference.layer_normalization_backward(x, layer.gamma, dy, layer.epsilon)]


def position_embedding(layer: Any, x: Array) -> Array:
    y = np.zeros(x.shape)
    for n, t, d in np.ndindex(x.shape):
        y[n, t, d] = x[n, t, d] + layer.embedding[t, d]
    return y


def position_embedding_backward(layer: Any, x: Array, dy: Array) -> list[Array]:
    dembedding = np.zeros(x.shape[1:])
    for n, t, d in np.ndindex(x.shape):
        dembedding[t, d] += dy[n, t, d]
    return [dy, dembedding]


def attention_noise(layer: Any, rows: int) -> tuple[Array, float, Array]:
    """Gumbel noise, the temperature and the mask of the weights by (image, head, query, key); drawn key by key."""
    tokens, heads = layer.input_shape[0], layer.num_heads
    uniforms = [_drawn(layer, rows, (tokens, heads, tokens), source).transpose(0, 2, 3, 1) for source in (1, 2)]
    none = np.zeros(uniforms[0].shape)
    noise = none if layer.temperature is None else gumbel(uniforms[1])
    mask = (uniforms[0] >= layer.dropout) / (1 - layer.dropout) if layer.dropout else none + 1
    return noise, layer.temperature or 1.0, mask


def multi_head_attention(layer: Any, x: Array) -> Array:
    biases = (
        (layer.bias, layer.output_bias) if layer.use_bias else (np.zeros(layer.kernel[0].shape), np.zeros(x.shape[2]))
    )
    drawn = attention_noise(layer, len(x))
    return reference.attention(x, layer.kernel, biases[0], layer.output_kernel, biases[1], *drawn)[0]


def multi_head_attention_backward(layer: Any, x: Array, dy: Array) -> list[Array]:
    bias, drawn = layer.bias if layer.use_bias else np.zeros(layer.kernel[0].shape), attention_noise(layer, len(x))
    found = reference.attention_backward(x, layer.kernel, bias, layer.output_kernel, dy, *drawn)
    return [*found][: 3 + 2 * layer.use_bias]
