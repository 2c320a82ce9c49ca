"""Checks of arguments: each returns the value in its plain form, or raises an error that says what was wanted."""

from contextlib import suppress
from math import inf
from typing import Any

import numpy as np


def _checked(value: Any, right: bool, wanted: str, what: str, owner: str) -> Any:
    if not right:
        raise ValueError(f"{owner}: {what} is {value!r} where {wanted} is wanted")
    return value


def is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def are_sizes(values: Any) -> bool:
    return isinstance(values, tuple | list) and all(is_integer(value) and value > 0 for value in values)


def positive_integer(value: Any, what: str, owner: str) -> int:
    return int(_checked(value, is_integer(value) and value > 0, "a positive integer", what, owner))


def natural(value: Any, what: str, owner: str) -> int:
    return int(_checked(value, is_integer(value) and value >= 0, "an integer from 0 on", what, owner))


def boolean(value: Any, what: str, owner: str) -> bool:
    return bool(_checked(value, isinstance(value, bool | np.bool_), "True or False", what, owner))


def pair(value: Any, what: str, owner: str) -> tuple[int, int]:
    """One positive integer, or two of them, as two."""
    values = (value, value) if is_integer(value) else value
    _checked(value, are_sizes(values) and len(values) == 2, "a positive integer or a pair of them", what, owner)
    return int(values[0]), int(values[1])


def positive_number(value: Any, what: str, owner: str) -> float:
    return float(_checked(value, is_number(value) and 0 < value < inf, "a positive, finite number", what, owner))


def fraction(value: Any, what: str, owner: str) -> float:
    wanted = "a number from 0 up to, but not including, 1"
    return float(_checked(value, is_number(value) and 0 <= value < 1, wanted, what, owner))


def shape(value: Any, owner: str) -> tuple[int, ...]:
    """The shape of one image or vector, without the batch axis."""
    wanted = "a tuple of positive integers (without the batch axis)"
    return tuple(map(int, _checked(value, are_sizes(value) and len(value) > 0, wanted, "the input shape", owner)))


def seed(value: Any, owner: str) -> int:
    right = is_integer(value) and 0 <= value < 1 << 63
    return int(_checked(value, right, "an integer from 0 to 2^63 - 1", "seed", owner))


def dtype(value: Any, owner: str) -> np.dtype[Any]:
    """float32 or float64; TypeError for anything else."""
    with suppress(TypeError):
        if np.dtype(value) in (np.float32, np.float64):
            return np.dtype(value)
    raise TypeError(f"{owner}: the dtype {value!r} is not supported: use float32 or float64")


def one_of(value: Any, choices: tuple[str, ...], what: str, owner: str) -> Any:
    return _checked(value, value in choices, " or ".join(map(repr, choices)), what, owner)
