"""The layers: what each computes, forward and backward."""

from scratchnet.layers.activations import ReLU
from scratchnet.layers.attention import MultiHeadAttention
from scratchnet.layers.convolution import Conv2D
from scratchnet.layers.dense import Dense, Flatten
from scratchnet.layers.dropout import Dropout
from scratchnet.layers.flow import Parallel, Residual, Sequential
from scratchnet.layers.layer import Layer
from scratchnet.layers.normalization import BatchNormalization
from scratchnet.layers.pooling import AveragePooling2D, GlobalAveragePooling2D, MaxPooling2D
from scratchnet.layers.softmax import GumbelSoftmax, Softmax

__all__ = [
    "AveragePooling2D", "BatchNormalization", "Conv2D", "Dense", "Dropout", "Flatten", "GlobalAveragePooling2D",
    "GumbelSoftmax", "Layer", "MaxPooling2D", "MultiHeadAttention", "Parallel", "ReLU", "Residual", "Sequential", "Softmax",
]  # fmt: skip
