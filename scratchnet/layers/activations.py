"""Activations that work on each value by itself."""

from math import log, pi, sqrt

from scratchnet.arguments import boolean
from scratchnet.backend import Array
from scratchnet.layers.layer import Layer

CUBIC = 0.044715  # of the approximation to GELU


class ReLU(Layer):
    """y = max(x, 0), and dx = dy where x > 0, else 0. Any shape."""

    def allocate(self) -> None:
        super().allocate()
        self.zero = self.memory.constant(0)
        self.positive = self.activation(dtype=bool)

    def compute(self, training: bool) -> None:
        self.ops.greater(self.x, self.zero, out=self.positive)
        self.ops.maximum(self.x, self.zero, out=self.y)

    def compute_gradients(self) -> None:
        self.ops.multiply(self.dy, self.positive, out=self.dx)


class GELU(Layer):
    """y = x P(x) and dx = dy (P(x) + x P'(x)), where P is the standard normal distribution function. Any shape.

    P(x) = (1 + erf(x / sqrt(2))) / 2, or, where `approximate`, (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2, which
    is 0.0005 off at most. Source: Hendrycks and Gimpel 2016.
    """

    def __init__(self, approximate: bool = False) -> None:
        super().__init__()
        self.approximate = boolean(approximate, "approximate", self.name)

    def allocate(self) -> None:
        super().allocate()
        self.probability, scale = self.activation(), sqrt(2 / pi)
        if self.approximate:  # the derivative of (1 + tanh u) / 2 is 2 P (1 - P) u'
            numbers = scale * CUBIC, scale, 6 * scale * CUBIC, 2 * scale
        else:  # exp(-x^2 / 2) / sqrt(2 pi)
            numbers = 0, sqrt(0.5), -0.5, log(scale / 2)
        self.one, self.half, *constants = map(self.memory.constant, (1, 0.5, *numbers))
        self.forth, self.back = constants[:2], constants[2:]

    def _even(self, out: Array, a: Array, b: Array) -> None:
        """out = a x^2 + b."""
        self.ops.multiply(self.x, self.x, out=out)
        self.ops.multiply(out, a, out=out)
        self.ops.add(out, b, out=out)

    def compute(self, training: bool) -> None:
        ops, x, p = self.ops, self.x, self.probability
        if self.approximate:
            self._even(p, *self.forth)
            ops.multiply(p, x, out=p)
            ops.tanh(p, out=p)
        else:
            ops.multiply(x, self.forth[1], out=p)
            ops.erf(p, out=p)
        ops.add(p, self.one, out=p)
        ops.multiply(p, self.half, out=p)
        ops.multiply(x, p, out=self.y)

    def compute_gradients(self) -> None:
        ops, p = self.ops, self.probability
        with self.scratch() as density, self.scratch() as part:
            self._even(density, *self.back)
            if self.approximate:
                ops.multiply(p, p, out=part)
                ops.subtract(p, part, out=part)
                ops.multiply(density, part, out=density)
            else:
                ops.exp(density, out=density)
            ops.multiply(density, self.x, out=density)
            ops.add(density, p, out=density)
            ops.multiply(self.dy, density, out=self.dx)
