"""Comparisons that the tests share."""

from collections.abc import Callable
from typing import Any

import numpy as np

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}


def assert_close(actual: Any, expected: Any, tolerance: float = 1e-12) -> None:
    """Shapes equal and every element within tolerance, relative to the largest expected one (or to 1)."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    if expected.size == 0:
        return
    error = np.max(np.abs(actual.astype(np.float64) - expected)) / max(1.0, float(np.max(np.abs(expected))))
    assert error <= tolerance, f"relative error {error:.1e}, tolerance {tolerance:.0e}"


def randomize(layer: Any, rng: np.random.Generator) -> None:
    """Give every parameter random values, so that none is at a special place such as a bias of zero."""
    for parameter in parameters_of(layer):
        parameter[...] = rng.normal(size=parameter.shape)


def parameters_of(module: Any) -> list[np.ndarray]:
    """Of a built layer or network, in their order: views."""
    return [array for layer in module.leaves for array in layer.parameters.values()]


def gradients_of(module: Any) -> list[np.ndarray]:
    return [array for layer in module.leaves for array in layer.gradients.values()]


def distinct(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Values in (-2, 2) no two of which, and no one and zero, are close: kinks stay far from a finite difference."""
    size = int(np.prod(shape))
    return (rng.permutation(size).reshape(shape) + 0.5 - (size // 2)) * (4 / (size + 1))


def slope_error(
    function: Callable[[], float], arrays: list[np.ndarray], gradients: list[np.ndarray], rng: np.random.Generator
) -> float:
    """Relative error of the gradients along one random direction in all arrays at once, by a central difference."""
    directions, step = [rng.normal(size=array.shape) for array in arrays], 1e-5
    values = []
    for sign in (1, -2):
        for array, direction in zip(arrays, directions, strict=True):
            array += sign * step * direction
        values.append(function())
    for array, direction in zip(arrays, directions, strict=True):
        array += step * direction
    numeric = (values[0] - values[1]) / (2 * step)
    analytic = sum(float(np.sum(g * direction)) for g, direction in zip(gradients, directions, strict=True))
    return abs(numeric - analytic) / max(abs(numeric), abs(analytic), 1e-3)
