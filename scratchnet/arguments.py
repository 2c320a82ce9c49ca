"""Checks of arguments: each returns the value in its plain form, or raises an error that says what was wanted."""

from math import inf
from typing import Any

import numpy as np


def _complain(value: Any, what: str, owner: str, wanted: str) -> ValueError:
    return ValueError(f"{owner}: {what} is {value!r} where {wanted} is wanted")


def is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def positive_integer(value: Any, what: str, owner: str) -> int:
    if not is_integer(value) or value < 1:
        raise _complain(value, what, owner, "a positive integer")
    return int(value)


def natural(value: Any, what: str, owner: str) -> int:
    if not is_integer(value) or value < 0:
        raise _complain(value, what, owner, "an integer from 0 on")
    return int(value)


def boolean(value: Any, what: str, owner: str) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise _complain(value, what, owner, "True or False")
    return bool(value)


def pair(value: Any, what: str, owner: str) -> tuple[int, int]:
    """One positive integer, or two of them, as two."""
    values = (value, value) if is_integer(value) else value
    if not isinstance(values, tuple | list) or len(values) != 2 or not all(is_integer(v) and v > 0 for v in values):
        raise _complain(value, what, owner, "a positive integer or a pair of them")
    return int(values[0]), int(values[1])


def positive_number(value: Any, what: str, owner: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < inf:
        raise _complain(value, what, owner, "a positive, finite number")
    return float(value)


def fraction(value: Any, what: str, owner: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value < 1:
        raise _complain(value, what, owner, "a number from 0 up to, but not including, 1")
    return float(value)


def shape(value: Any, owner: str) -> tuple[int, ...]:
    """The shape of one image or vector, without the batch axis."""
    if not isinstance(value, tuple | list) or not value or not all(is_integer(size) and size > 0 for size in value):
        raise _complain(value, "the input shape", owner, "a tuple of positive integers (without the batch axis)")
    return tuple(int(size) for size in value)


def seed(value: Any, owner: str) -> int:
    if not is_integer(value) or not 0 <= value < 1 << 63:
        raise _complain(value, "seed", owner, "an integer from 0 to 2^63 - 1")
    return int(value)


def dtype(value: Any, owner: str) -> np.dtype[Any]:
    """float32 or float64; TypeError for anything else."""
    try:
        wanted = np.dtype(value)
    except TypeError:
        wanted = np.dtype(object)
    if wanted not in (np.float32, np.float64):
        raise TypeError(f"{owner}: the dtype {value!r} is not supported: use float32 or float64")
    return wanted


def one_of(value: Any, choices: tuple[str, ...], what: str, owner: str) -> Any:
    if value not in choices:
        raise _complain(value, what, owner, " or ".join(map(repr, choices)))
    return value
