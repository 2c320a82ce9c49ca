"""Dropout."""

from typing import Any

from scratchnet import arguments
from scratchnet.arguments import fraction
from scratchnet.backend import Array, Memory
from scratchnet.layers.layer import Layer

LARGEST = 1 - 2.0**-22  # what leaves some of the numbers that noise can be in float32


class Dropout(Layer):
    """In training, y = x * mask / (1 - rate), where each entry of the mask is 0 with probability `rate`; else y = x.

    The mask is a function of (seed, layer, step, position), so it is the same however a batch is split among workers.
    Any shape. Raises ValueError unless 0 <= rate <= 1 - 2^-22. Source: Srivastava et al. 2014, section 10 (inverted
    scaling).
    """

    def __init__(self, rate: float, seed: int = 0) -> None:
        super().__init__()
        self.rate, self.seed = checked_rate(rate, "rate", self.name), arguments.seed(seed, self.name)
        self.dropping = False

    def allocate(self) -> None:
        super().allocate()
        self.mask = Mask(self.rate, self.noise(self.seed), self.activation(), self.activation(dtype=bool), self.memory)

    def compute(self, training: bool) -> None:
        self.dropping = training
        if training:
            self.mask.draw()
            self.mask.apply(self.x, out=self.y)
        else:
            self.ops.copy(self.x, out=self.y)

    def compute_gradients(self) -> None:
        if self.dropping:
            self.mask.apply(self.dy, out=self.dx)
        else:
            self.ops.copy(self.dy, out=self.dx)


class Mask:
    """Drawn anew by `draw`, from uniform numbers that need a place only then; `apply` drops and scales what is left."""

    def __init__(self, rate: float, noise: Any, uniform: Array, kept: Array, memory: Memory) -> None:
        self.noise, self.uniform, self.kept, self.ops = noise, uniform, kept, memory.device.ops
        self.threshold, self.scale = memory.constant(rate), memory.constant(1 / (1 - rate))

    def draw(self) -> None:
        self.noise.draw(self.uniform)
        self.ops.greater_equal(self.uniform, self.threshold, out=self.kept)

    def apply(self, values: Array, out: Array) -> None:
        self.ops.multiply(values, self.scale, out=out)
        self.ops.multiply(out, self.kept, out=out)


def checked_rate(value: Any, what: str, owner: str) -> float:
    rate = fraction(value, what, owner)
    if rate > LARGEST:
        raise ValueError(f"{owner}: {what} is {value!r}, so close to 1 that next to nothing would be kept")
    return rate
