"""The layers: what each computes, forward and backward."""

from scratchnet.layers.activations import GELU, ReLU
from scratchnet.layers.attention import MultiHeadAttention
from scratchnet.layers.convolution import Conv2D
from scratchnet.layers.dense import Dense, Flatten, Reshape
from scratchnet.layers.dropout import Dropout
from scratchnet.layers.flow import Parallel, Residual, Sequential
from scratchnet.layers.layer import Layer
from scratchnet.layers.normalization import BatchNormalization, LayerNormalization
from scratchnet.layers.pooling import AveragePooling2D, GlobalAveragePooling1D, GlobalAveragePooling2D, MaxPooling2D
from scratchnet.layers.position import PositionEmbedding
from scratchnet.layers.softmax import GumbelSoftmax, Softmax

__all__ = [
    "GELU", "AveragePooling2D", "BatchNormalization", "Conv2D", "Dense", "Dropout", "Flatten", "GlobalAveragePooling1D",
    "GlobalAveragePooling2D", "GumbelSoftmax", "Layer", "LayerNormalization", "MaxPooling2D", "MultiHeadAttention",
    "Parallel", "PositionEmbedding", "ReLU", "Reshape", "Residual", "Sequential", "Softmax",
]  # fmt: skip
