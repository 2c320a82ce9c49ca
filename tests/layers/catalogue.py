"""One of each kind of layer, with the input shape (without the batch axis) that the tests give it."""

from collections.abc import Callable
from typing import Any

from scratchnet import layers

IMAGE, FEATURES = (6, 5, 3), (7,)
LAYERS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "conv2d": (lambda: layers.Conv2D(4, (3, 2), strides=(1, 2), padding="same"), IMAGE),
    "conv2d dilated": (lambda: layers.Conv2D(2, 2, dilation_rate=(3, 2)), IMAGE),
    "conv2d wide": (lambda: layers.Conv2D(3, 3, padding="same"), (6, 5, 16)),
    "max_pooling2d": (lambda: layers.MaxPooling2D(2), IMAGE),
    "max_pooling2d overlapping": (lambda: layers.MaxPooling2D(3, strides=(2, 1), padding="same"), IMAGE),
    "average_pooling2d": (lambda: layers.AveragePooling2D(3, strides=(2, 1), padding="same"), IMAGE),
    "global_average_pooling2d": (lambda: layers.GlobalAveragePooling2D(), IMAGE),
    "dense": (lambda: layers.Dense(5), FEATURES),
    "flatten": (lambda: layers.Flatten(), IMAGE),
    "relu": (lambda: layers.ReLU(), IMAGE),
    "softmax": (lambda: layers.Softmax(), FEATURES),
    "gumbel_softmax": (lambda: layers.GumbelSoftmax(0.5), FEATURES),
    "dropout": (lambda: layers.Dropout(0.4), IMAGE),
    "batch_normalization": (lambda: layers.BatchNormalization(), IMAGE),
    "batch_normalization of features": (lambda: layers.BatchNormalization(), FEATURES),
}
