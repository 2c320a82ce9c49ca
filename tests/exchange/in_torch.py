"""A network in PyTorch's modules: what docs/exchange.md says is its counterpart."""

from typing import Any

import torch
from torch import nn

from scratchnet import layers
from scratchnet.layers.flow import Pass
from tests.reference.in_torch import average_pooling2d, nchw, nhwc, padded


class Conv2d(nn.Conv2d):
    """With Keras's padding at any stride."""

    def forward(self, x: Any) -> Any:
        return super().forward(padded(x, self.kernel_size, self.stride, "same", self.dilation))


class TokensBatchNorm(nn.BatchNorm1d):
    def forward(self, x: Any) -> Any:
        return super().forward(x.mT).mT


class ImagesLayerNorm(nn.LayerNorm):
    def forward(self, x: Any) -> Any:
        return nchw(super().forward(nhwc(x)))


class SelfAttention(nn.MultiheadAttention):
    def forward(self, x: Any) -> Any:
        return super().forward(x, x, x, need_weights=False)[0]


class Positions(nn.Embedding):
    def forward(self, x: Any) -> Any:
        return x + self.weight


class Add(nn.ModuleList):
    def forward(self, x: Any) -> Any:
        return sum(branch(x) for branch in self)


class Concatenate(nn.ModuleList):
    """NCHW images along their channels, all else along the last axis."""

    def forward(self, x: Any) -> Any:
        return torch.cat([branch(x) for branch in self], dim=1 if x.ndim == 4 else -1)


class Function(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x)


def module(layer: Any) -> nn.Module:
    """Of a built layer or network."""
    if isinstance(layer, Pass):
        return nn.Identity()
    if isinstance(layer, layers.Sequential):
        return nn.Sequential(*map(module, layer.layers))
    if isinstance(layer, layers.Parallel):
        return (Add if layer.merge == "add" else Concatenate)(map(module, layer.layers))
    images, last = len(layer.input_shape) == 3, layer.input_shape[-1]
    match layer:
        case layers.Conv2D():
            own = layer.padding == "same" and layer.strides != (1, 1)
            sizes = layer.kernel_size, layer.strides, 0 if own else layer.padding, layer.dilation_rate
            return (Conv2d if own else nn.Conv2d)(last, layer.filters, *sizes, bias=layer.use_bias)
        case layers.Dense():
            return nn.Linear(last, layer.units, layer.use_bias)
        case layers.BatchNormalization():
            kind = {1: nn.BatchNorm1d, 2: TokensBatchNorm, 3: nn.BatchNorm2d}[len(layer.input_shape)]
            return kind(last, eps=layer.epsilon)
        case layers.LayerNormalization():
            return (ImagesLayerNorm if images else nn.LayerNorm)(last, eps=layer.epsilon)
        case layers.MultiHeadAttention():
            return SelfAttention(last, layer.num_heads, bias=layer.use_bias, batch_first=True)
        case layers.PositionEmbedding():
            return Positions(*layer.input_shape)
        case layers.MaxPooling2D():
            window = layer.pool_size, layer.strides
            pool = nn.MaxPool2d(*window)
            return Function(lambda x: pool(padded(x, *window, layer.padding, value=-torch.inf)))
        case layers.AveragePooling2D():
            return Function(lambda x: nchw(average_pooling2d(layer, nhwc(x))))
        case layers.GlobalAveragePooling2D():
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case layers.GlobalAveragePooling1D():
            return Function(lambda x: x.mean(1))
        case layers.Flatten():
            return nn.Flatten()
        case layers.Reshape():
            ours, back = (
                (nhwc if images else torch.as_tensor),
                nchw if len(layer.output_shape) == 3 else torch.as_tensor,
            )
            return Function(lambda x: back(ours(x).reshape(len(x), *layer.output_shape)))
        case layers.ReLU():
            return nn.ReLU()
        case layers.GELU():
            return nn.GELU("tanh" if layer.approximate else "none")
        case layers.Softmax():
            return nn.Softmax(1 if images else -1)
        case layers.Dropout():
            return nn.Dropout(layer.rate)
    raise NotImplementedError(type(layer))


def outputs(model: nn.Module, x: Any) -> Any:
    """For N, H, W, C images too, and such again where the outputs are images."""
    with torch.no_grad():
        y = model(nchw(torch.tensor(x)) if x.ndim == 4 else torch.tensor(x))
    return (nhwc(y) if y.ndim == 4 else y).numpy()
