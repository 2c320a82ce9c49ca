"""What layers compute, in PyTorch's words and with Keras's layout: (layer, x, its parameters...) -> y."""

from typing import Any

import numpy as np

from tests.reference.layers import attention_noise, mask, noise
from tests.reference.reference import window_axis

Tensor = Any


def nchw(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def nhwc(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def functional() -> Any:
    import torch  # which not every machine that runs the other tests has

    return torch.nn.functional


def constant(values: np.ndarray) -> Tensor:
    import torch

    return torch.tensor(values)


def padded(x: Tensor, window: Any, strides: Any, padding: str, dilation: Any = (1, 1), value: float = 0.0) -> Tensor:
    """NCHW images with Keras's padding: what is odd comes after."""
    margins: list[int] = []
    for size, k, stride, step in reversed(list(zip(x.shape[2:], window, strides, dilation, strict=True))):
        positions, before = window_axis(size, k, stride, padding, step)
        after = (positions - 1) * stride + (k - 1) * step + 1 - before - size
        margins += [before, max(after, 0)] if padding == "same" else [0, 0]
    return functional().pad(x, margins, value=value)


def conv2d(layer: Any, x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    images = padded(nchw(x), layer.kernel_size, layer.strides, layer.padding, layer.dilation_rate)
    kernel = kernel.permute(3, 2, 0, 1).contiguous()
    return nhwc(functional().conv2d(images, kernel, bias, stride=layer.strides, dilation=layer.dilation_rate))


def max_pooling2d(layer: Any, x: Tensor) -> Tensor:
    images = padded(nchw(x), layer.pool_size, layer.strides, layer.padding, value=-np.inf)
    return nhwc(functional().max_pool2d(images, layer.pool_size, layer.strides))


def average_pooling2d(layer: Any, x: Tensor) -> Tensor:
    def mean(x: Tensor) -> Tensor:
        images = padded(nchw(x), layer.pool_size, layer.strides, layer.padding)
        return functional().avg_pool2d(images, layer.pool_size, layer.strides)

    return nhwc(mean(x) / mean(x * 0 + 1))  # the mean of ones and padding zeros is the part of the window that counts


def global_average_pooling2d(layer: Any, x: Tensor) -> Tensor:
    return x.mean((1, 2))


def global_average_pooling1d(layer: Any, x: Tensor) -> Tensor:
    return x.mean(1)


def dense(layer: Any, x: Tensor, kernel: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    return x @ kernel + bias


def reshape(layer: Any, x: Tensor) -> Tensor:
    return x.reshape(len(x), *layer.output_shape)


def relu(layer: Any, x: Tensor) -> Tensor:
    return functional().relu(x)


def gelu(layer: Any, x: Tensor) -> Tensor:
    return functional().gelu(x, approximate="tanh" if layer.approximate else "none")


def softmax(layer: Any, x: Tensor) -> Tensor:
    return functional().softmax(x, -1)


def gumbel_softmax(layer: Any, x: Tensor) -> Tensor:
    """`functional.gumbel_softmax` draws noise of its own."""
    soft = functional().softmax((x + constant(noise(layer, len(x)))) / layer.temperature, -1)
    if not layer.straight_through:
        return soft
    return functional().one_hot(soft.argmax(-1), soft.shape[-1]) + soft - soft.detach()


def dropout(layer: Any, x: Tensor) -> Tensor:
    return x * constant(mask(layer, len(x)))


def batch_normalization(layer: Any, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    rows = x.reshape(-1, x.shape[-1])
    return functional().batch_norm(rows, None, None, gamma, beta, training=True, eps=layer.epsilon).reshape(x.shape)


def layer_normalization(layer: Any, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    return functional().layer_norm(x, x.shape[-1:], gamma, beta, layer.epsilon)


def position_embedding(layer: Any, x: Tensor, embedding: Tensor) -> Tensor:
    return x + embedding


def multi_head_attention(
    layer: Any, x: Tensor, kernel: Tensor, output_kernel: Tensor, bias: Tensor = None, output_bias: Tensor = None
) -> Tensor:
    """PyTorch's own where it has the same: heads that share the D features, and no noise, which it would draw."""
    features, heads, size = kernel.shape[0], *kernel.shape[2:]
    if layer.temperature is None and not layer.dropout and heads * size == features:
        first, tokens = kernel.reshape(features, -1).T, x.transpose(0, 1)
        y, _ = functional().multi_head_attention_forward(
            tokens, tokens, tokens, features, heads, first, None if bias is None else bias.flatten(), None, None, False,
            0.0, output_kernel.reshape(-1, features).T, output_bias, need_weights=False,
        )  # fmt: skip
        return y.transpose(0, 1)
    q, k, v = (dense(layer, x, kernel[:, i].flatten(1)).unflatten(-1, (heads, size)).transpose(1, 2) for i in range(3))
    if bias is not None:
        q, k, v = (part + bias[i, :, None] for i, part in enumerate((q, k, v)))
    gumbel, temperature, dropped = attention_noise(layer, len(x))
    p = functional().softmax((q @ k.mT / size**0.5 + constant(gumbel)) / temperature, -1) * constant(dropped)
    return dense(
        layer, (p @ v).transpose(1, 2).flatten(2), output_kernel.flatten(0, 1), 0.0 if bias is None else output_bias
    )
