"""Learning rates that are functions of the step, as Keras defines them; a step of training counts from 0."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import cos, inf, pi

from scratchnet.arguments import positive_integer, positive_number


def rate_at(learning_rate: float | Callable[[int], float], step: int, owner: str) -> float:
    """The learning rate of a step; ValueError where a function gives something that is none."""
    rate = learning_rate(step) if callable(learning_rate) else learning_rate
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < inf:
        raise ValueError(f"{owner}: the learning rate at step {step} is {rate!r} where a finite number >= 0 is wanted")
    return float(rate)


@dataclass(frozen=True)
class ExponentialDecay:
    """rate = initial_learning_rate * decay_rate ** (step / decay_steps); `staircase` rounds the exponent down."""

    initial_learning_rate: float
    decay_steps: int
    decay_rate: float
    staircase: bool = False

    def __post_init__(self) -> None:
        positive_number(self.initial_learning_rate, "initial_learning_rate", "exponential decay")
        positive_integer(self.decay_steps, "decay_steps", "exponential decay")
        positive_number(self.decay_rate, "decay_rate", "exponential decay")

    def __call__(self, step: int) -> float:
        exponent = step // self.decay_steps if self.staircase else step / self.decay_steps
        return self.initial_learning_rate * self.decay_rate**exponent


@dataclass(frozen=True)
class CosineDecay:
    """From initial_learning_rate to alpha times it along half a cosine, in `decay_steps` (Loshchilov and Hutter 2016).

    With a `warmup_target`, first `warmup_steps` along a line from initial_learning_rate to it, then down from there.
    """

    initial_learning_rate: float
    decay_steps: int
    alpha: float = 0.0
    warmup_target: float | None = None
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        positive_integer(self.decay_steps, "decay_steps", "cosine decay")
        if self.warmup_target is None:
            positive_number(self.initial_learning_rate, "initial_learning_rate", "cosine decay")
        else:
            positive_number(self.warmup_target, "warmup_target", "cosine decay")
            positive_integer(self.warmup_steps, "warmup_steps", "cosine decay")

    def __call__(self, step: int) -> float:
        top = self.initial_learning_rate
        if self.warmup_target is not None:
            if step < self.warmup_steps:
                return top + (self.warmup_target - top) * step / self.warmup_steps
            top, step = self.warmup_target, step - self.warmup_steps
        fallen = (1 + cos(pi * min(step / self.decay_steps, 1))) / 2
        return top * ((1 - self.alpha) * fallen + self.alpha)


@dataclass(frozen=True)
class PiecewiseConstantDecay:
    """values[i] up to and including step boundaries[i], and the last value after the last boundary."""

    boundaries: Sequence[int]
    values: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.values) != len(self.boundaries) + 1 or list(self.boundaries) != sorted(set(self.boundaries)):
            raise ValueError("piecewise constant decay: the boundaries are to rise, and the values to be one more")

    def __call__(self, step: int) -> float:
        return self.values[bisect_left(self.boundaries, step)]
