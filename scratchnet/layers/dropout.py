"""Dropout."""

from scratchnet import arguments
from scratchnet.arguments import fraction
from scratchnet.backend import Array
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
        self.rate, self.seed = fraction(rate, "rate", self.name), arguments.seed(seed, self.name)
        if self.rate > LARGEST:
            raise ValueError(f"{self.name}: rate is {rate!r}, so close to 1 that next to nothing would be kept")
        self.dropping = False

    def allocate(self) -> None:
        super().allocate()
        self.drawn = self.noise(self.seed)
        self.uniform = self.activation()
        self.mask = self.activation(dtype=bool)
        self.threshold, self.scale = self.memory.constant(self.rate), self.memory.constant(1 / (1 - self.rate))

    def compute(self, training: bool) -> None:
        self.dropping = training
        if not training:
            self.ops.copy(self.x, out=self.y)
            return
        self.drawn.draw(self.uniform)
        self.ops.greater_equal(self.uniform, self.threshold, out=self.mask)
        self._mask(self.x, out=self.y)

    def compute_gradients(self) -> None:
        if self.dropping:
            self._mask(self.dy, out=self.dx)
        else:
            self.ops.copy(self.dy, out=self.dx)

    def _mask(self, values: Array, out: Array) -> None:
        self.ops.multiply(values, self.scale, out=out)
        self.ops.multiply(out, self.mask, out=out)
