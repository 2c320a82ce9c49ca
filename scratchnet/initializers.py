"""How parameters start: zeros, ones, Glorot and He, drawn in float64 from the counter-based generator."""

from collections.abc import Callable
from math import prod, sqrt

import numpy as np

Initializer = Callable[[tuple[int, ...], np.random.Generator], np.ndarray]


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Inputs and outputs of one unit: (in, out) for a dense kernel, times the window's size for a convolution's.

    A bias counts as square, as in Keras.
    """
    if len(shape) == 1:
        return shape[0], shape[0]
    window = prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


def zeros(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    return np.zeros(shape)


def ones(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    return np.ones(shape)


def glorot_uniform(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Uniform in +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010, equation 16)."""
    limit = sqrt(6 / sum(fans(shape)))
    return generator.uniform(-limit, limit, shape)


def glorot_normal(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Normal with variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010, equation 12)."""
    return generator.normal(0, sqrt(2 / sum(fans(shape))), shape)


def he_uniform(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Uniform with variance 2 / fan_in: within +-sqrt(6 / fan_in) (He et al. 2015, equation 10)."""
    limit = sqrt(6 / fans(shape)[0])
    return generator.uniform(-limit, limit, shape)


def he_normal(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Normal with variance 2 / fan_in (He et al. 2015, equation 10)."""
    return generator.normal(0, sqrt(2 / fans(shape)[0]), shape)


INITIALIZERS: dict[str, Initializer] = {
    function.__name__: function for function in (zeros, ones, glorot_uniform, glorot_normal, he_uniform, he_normal)
}


def get_initializer(name: str | Initializer) -> Initializer:
    """The initializer of this name, or the given function (shape, generator) -> array; ValueError for another name."""
    if callable(name):
        return name
    if name not in INITIALIZERS:
        raise ValueError(f"unknown initializer {name!r}: choose one of {', '.join(INITIALIZERS)}, or pass a function")
    return INITIALIZERS[name]
