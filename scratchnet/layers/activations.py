"""Activations that work on each value by itself."""

from math import pi, sqrt

from scratchnet.arguments import boolean
from scratchnet.backend import Array
from scratchnet.layers.layer import Layer


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
    """y = x P(x), dx = dy (P(x) + x P'(x)), where P is the normal distribution's (1 + erf(x / sqrt(2))) / 2. Any shape.

    `approximate`: P(x) = (1 + tanh(u)) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3). As in Keras. Source: Hendrycks and
    Gimpel 2016, section 2.
    """

    def __init__(self, approximate: bool = False) -> None:
        super().__init__()
        self.approximate = boolean(approximate, "approximate", self.name)

    def allocate(self) -> None:
        super().allocate()
        self.p = self.activation()
        constant, a, b = self.memory.constant, sqrt(2 / pi), 0.044715 * sqrt(2 / pi)
        self.one, self.half, self.minus_half = map(constant, (1, 0.5, -0.5))
        self.per_root_2, self.per_root_2_pi = map(constant, (1 / sqrt(2), 1 / sqrt(2 * pi)))
        self.linear, self.cubic, self.linear_2, self.square_2 = map(constant, (a, b, 2 * a, 6 * b))

    def compute(self, training: bool) -> None:
        ops, x, p = self.ops, self.x, self.p
        if self.approximate:
            ops.multiply(x, x, out=p)
            ops.multiply(p, self.cubic, out=p)
            ops.add(p, self.linear, out=p)
            ops.multiply(p, x, out=p)
            ops.tanh(p, out=p)
        else:
            ops.multiply(x, self.per_root_2, out=p)
            ops.erf(p, out=p)
        ops.add(p, self.one, out=p)
        ops.multiply(p, self.half, out=p)
        ops.multiply(x, p, out=self.y)

    def compute_gradients(self) -> None:
        ops, dx = self.ops, self.dx
        self._density(out=dx)
        ops.multiply(self.x, dx, out=dx)
        ops.add(self.p, dx, out=dx)
        ops.multiply(self.dy, dx, out=dx)

    def _density(self, out: Array) -> None:
        """P': the normal density, or 2 P (1 - P) u'."""
        ops, x = self.ops, self.x
        ops.multiply(x, x, out=out)
        if self.approximate:
            ops.multiply(out, self.square_2, out=out)
            ops.add(out, self.linear_2, out=out)  # 2 u'
            with self.scratch() as rest:
                ops.subtract(self.one, self.p, out=rest)
                ops.multiply(rest, self.p, out=rest)
                ops.multiply(out, rest, out=out)
        else:
            ops.multiply(out, self.minus_half, out=out)
            ops.exp(out, out=out)
            ops.multiply(out, self.per_root_2_pi, out=out)
