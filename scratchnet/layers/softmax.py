"""Softmax and Gumbel-softmax as layers: probabilities, and differentiable samples, from logits."""

from typing import Any

from scratchnet import arguments
from scratchnet.arguments import positive_number
from scratchnet.backend import Array, Ops
from scratchnet.layers.layer import Layer

COLDEST = 1e-30


class Softmax(Layer):
    """y = exp(x - max x) / sum exp(x - max x) over the last axis. Input and output (N, ..., K).

    dx = y (dy - sum(dy y)).
    """

    def allocate(self) -> None:
        super().allocate()
        self.soft = self.activation()
        self.row = self.memory.buffer(self.batch.size, *self.input_shape[:-1])

    def compute(self, training: bool) -> None:
        softmax(self.ops, self.x, self.row, out=self.soft)
        self.ops.copy(self.soft, out=self.y)

    def compute_gradients(self) -> None:
        softmax_gradient(self.ops, self.soft, self.dy, self.row, out=self.dx)


def softmax(ops: Ops, z: Array, row: Array, out: Array, axis: int = -1) -> None:
    """out = softmax(z) over the last axis or the first; `row` is scratch of the shape without it."""
    each = row if axis == 0 else row[..., None]
    ops.max(z, axis=axis, out=row)
    ops.subtract(z, each, out=out)
    ops.exp(out, out=out)
    ops.sum(out, axis=axis, out=row)
    ops.divide(out, each, out=out)


def softmax_gradient(ops: Ops, soft: Array, dy: Array, row: Array, out: Array, axis: int = -1) -> None:
    """out = soft (dy - sum(dy soft)) over that axis."""
    each = row if axis == 0 else row[..., None]
    ops.multiply(dy, soft, out=out)
    ops.sum(out, axis=axis, out=row)
    ops.subtract(dy, each, out=out)
    ops.multiply(out, soft, out=out)


class GumbelSoftmax(Softmax):
    """y = softmax((x + g) / temperature) with fresh Gumbel noise g at every forward, training or not.

    Input and output (N, ..., K). With `straight_through` the output is the one-hot vector of the largest entry, and the
    gradient is that of the soft y. The noise is a function of (seed, layer, step, position). Raises ValueError unless
    the temperature is a number from 1e-30 on. Sources: Jang, Gu and Poole 2016, equation 2 and section 2.2; Maddison,
    Mnih and Teh 2016.
    """

    def __init__(self, temperature: float = 1.0, straight_through: bool = False, seed: int = 0) -> None:
        super().__init__()
        self.temperature = checked_temperature(temperature, "temperature", self.name)
        self.straight_through, self.seed = straight_through, arguments.seed(seed, self.name)

    def allocate(self) -> None:
        super().allocate()
        rows, shape, memory = self.batch.size, self.input_shape, self.memory
        self.drawn = self.noise(self.seed)
        self.noisy, self.inverse_temperature = memory.activation(rows, shape), memory.constant(1 / self.temperature)
        self.largest = memory.buffer(rows, *shape[:-1], dtype="int64")
        self.classes = self.device.xp.arange(shape[-1])

    def compute(self, training: bool) -> None:
        self.drawn.draw(self.noisy)
        gumbel_in_place(self.ops, self.noisy)
        self.ops.add(self.x, self.noisy, out=self.noisy)
        self.ops.multiply(self.noisy, self.inverse_temperature, out=self.noisy)
        softmax(self.ops, self.noisy, self.row, out=self.soft)
        if self.straight_through:
            self.ops.argmax(self.noisy, axis=-1, out=self.largest)
            self.ops.equal(self.largest[..., None], self.classes, out=self.y)
        else:
            self.ops.copy(self.soft, out=self.y)

    def compute_gradients(self) -> None:
        super().compute_gradients()
        self.ops.multiply(self.dx, self.inverse_temperature, out=self.dx)


def checked_temperature(value: Any, what: str, owner: str) -> float:
    temperature = positive_number(value, what, owner)
    if temperature < COLDEST:
        raise ValueError(f"{owner}: {what} is {value!r}, by which float32 cannot divide: take {COLDEST:g} or more")
    return temperature


def gumbel_in_place(ops: Ops, u: Array) -> None:
    """Turn uniform numbers in (0, 1), in place, into Gumbel noise -log(-log(1 - u))."""
    ops.negative(u, out=u)
    ops.log1p(u, out=u)
    ops.negative(u, out=u)
    ops.log(u, out=u)
    ops.negative(u, out=u)
