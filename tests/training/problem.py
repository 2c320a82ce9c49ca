"""A small problem that trains in a second, importable by worker processes."""

import numpy as np

from scratchnet import Conv2D, Dense, Flatten, MaxPooling2D, ReLU, Sequential
from scratchnet.data import Dataset, Split
from scratchnet.layers.layer import Layer


def dataset(train: int = 90, test: int = 37, classes: int = 5, size: int = 8) -> Dataset:
    """Images whose brightest corner tells the class, with noise."""
    source = np.random.default_rng(0)

    def split(count: int) -> Split:
        labels = source.integers(0, classes, count)
        images = source.integers(0, 120, (count, size, size, 3))
        images[np.arange(count), labels % size, labels // 2, :] = 255
        return Split(images.astype(np.uint8), labels.astype(np.int64))

    names = tuple(f"class {number}" for number in range(classes))
    return Dataset("corners", split(train), split(test), names, (), np.empty(0, np.int64))


def network(*extra: Layer, classes: int = 5, size: int = 8, dtype: str = "float32") -> Sequential:
    layers = [Conv2D(6, 3, padding="same"), ReLU(), MaxPooling2D(), Conv2D(16, 3, padding="same"), ReLU()]
    built = Sequential([*layers, *extra, Flatten(), Dense(classes)])
    built.build((size, size, 3), dtype=dtype)
    return built
