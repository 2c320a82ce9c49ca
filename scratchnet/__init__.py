"""Convolutional networks from scratch on NumPy and CuPy, with every backward pass written by hand."""

from scratchnet.gradcheck import NotDifferentiableError, check_gradients
from scratchnet.heads import AnnealedTemperature, GumbelSoftmaxCrossEntropy, SoftmaxCrossEntropy
from scratchnet.layers import (
    AveragePooling2D,
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePooling2D,
    GumbelSoftmax,
    MaxPooling2D,
    ReLU,
    Softmax,
)
from scratchnet.network import Sequential
from scratchnet.optimizers import SGD, Adam

__version__ = "0.1.0"

__all__ = [
    "SGD", "Adam", "AnnealedTemperature", "AveragePooling2D", "BatchNormalization", "Conv2D", "Dense", "Dropout",
    "Flatten", "GlobalAveragePooling2D", "GumbelSoftmax", "GumbelSoftmaxCrossEntropy", "MaxPooling2D",
    "NotDifferentiableError", "ReLU", "Sequential", "Softmax", "SoftmaxCrossEntropy", "check_gradients",
]  # fmt: skip
