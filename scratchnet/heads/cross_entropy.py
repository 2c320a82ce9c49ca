"""Softmax and Gumbel-softmax cross-entropy, in the log domain."""

from dataclasses import dataclass
from math import exp
from typing import Any

import numpy as np

from scratchnet import arguments
from scratchnet.backend import Array
from scratchnet.backend.noise import HEAD, gumbel, uniform
from scratchnet.heads.head import Head
from scratchnet.layers.layer import Layer
from scratchnet.layers.softmax import checked_temperature, gumbel_in_place


class SoftmaxCrossEntropy(Head):
    """loss = mean over the rows of -log softmax(logits)[label]; dlogits = (softmax(logits) - onehot(label)) / N.

    `loss, dlogits = head(logits, labels)` with logits (N, K) and integer labels (N,) from 0 to K-1. A logit of -inf
    rules a class out.
    """

    name = "softmax"

    def allocate(self) -> None:
        super().allocate()
        rows, classes, memory = self.batch.size, self.classes, self.memory
        self.soft, self.wanted = memory.buffer(rows, classes), memory.buffer(rows, classes, dtype=bool)
        self.largest, self.hits = memory.buffer(rows, dtype=np.int64), memory.buffer(rows, dtype=bool)
        self.row, self.total = memory.buffer(rows), memory.buffer(rows)
        self.numbers, self.per_row = self.device.xp.arange(classes), memory.constant(1 / self.batch.total)

    def compute(self, training: bool) -> None:
        self.count_correct()
        self.cross_entropy(self.x)

    def count_correct(self) -> None:
        """correct = how many rows have their largest logit, without noise, at their label."""
        self.ops.argmax(self.x, axis=1, out=self.largest)
        self.ops.equal(self.largest, self.labels, out=self.hits)
        self.ops.sum(self.hits, axis=0, out=self.correct)

    def cross_entropy(self, z: Array) -> None:
        """loss and dx = dloss/dz."""
        ops, soft, row, total = self.ops, self.soft, self.row, self.total
        ops.equal(self.labels[:, None], self.numbers, out=self.wanted)
        ops.max(z, axis=1, out=row)
        ops.subtract(z, row[:, None], out=soft)
        ops.fill(0, out=self.dx)
        ops.copy(soft, out=self.dx, where=self.wanted)  # a product with the mask would make -inf * 0
        ops.sum(self.dx, axis=1, out=row)  # the label's logit, less the largest
        ops.exp(soft, out=soft)
        ops.sum(soft, axis=1, out=total)
        ops.divide(soft, total[:, None], out=soft)
        ops.subtract(soft, self.wanted, out=self.dx)
        ops.multiply(self.dx, self.per_row, out=self.dx)
        ops.log(total, out=total)
        ops.subtract(total, row, out=row)  # -log softmax(z)[label]
        ops.multiply(row, self.per_row, out=row)
        ops.sum(row, axis=0, out=self.loss)


@dataclass(frozen=True)
class AnnealedTemperature:
    """temperature = max(floor, start exp(-rate step)) (Jang, Gu and Poole 2016, section 4.1)."""

    start: float = 1.0
    rate: float = 1e-4
    floor: float = 0.5

    def __post_init__(self) -> None:
        arguments.positive_number(self.start, "start", "annealed temperature")
        arguments.positive_number(self.floor, "floor", "annealed temperature")
        if self.rate != 0:
            arguments.positive_number(self.rate, "rate", "annealed temperature")

    def __call__(self, step: int) -> float:
        return max(self.floor, self.start * exp(-self.rate * step))


class GumbelSoftmaxCrossEntropy(SoftmaxCrossEntropy):
    """The same of z = (logits + g) / temperature: loss = mean of -log softmax(z)[label], dlogits by the chain rule.

    g is Gumbel noise, a function of (seed, step, position). `temperature` is a positive number or a function of the
    step such as AnnealedTemperature. Sources: Jang, Gu and Poole 2016; Maddison, Mnih and Teh 2016.
    """

    name = "gumbel"
    draws_noise = True

    def __init__(self, temperature: float | AnnealedTemperature = 1.0, seed: int = 0) -> None:
        super().__init__()
        self.temperature: Any = temperature
        if not callable(temperature):
            self.temperature = checked_temperature(temperature, "temperature", f"{self.name} head")
        self.seed = arguments.seed(seed, f"{self.name} head")

    def temperature_at(self, step: int) -> float:
        if not callable(self.temperature):
            return self.temperature
        return checked_temperature(self.temperature(step), f"temperature at step {step}", f"{self.name} head")

    def noise(self, step: int, batch: int, classes: int) -> np.ndarray:  # type: ignore[override]
        """The noise g of a step, float64 (batch, classes)."""
        return gumbel(uniform(self.seed, HEAD, step, 0, batch, classes).astype(np.float64))

    def allocate(self) -> None:
        super().allocate()
        self.drawn, self.noisy = Layer.noise(self, self.seed), self.activation()
        self.inverse_temperature = self.memory.record.field(self.now, self.dtype)

    def now(self) -> float:
        return 1 / self.temperature_at(self.clock.step)

    def compute(self, training: bool) -> None:
        ops = self.ops
        self.drawn.draw(self.noisy)
        gumbel_in_place(ops, self.noisy)
        ops.add(self.x, self.noisy, out=self.noisy)
        ops.multiply(self.noisy, self.inverse_temperature, out=self.noisy)
        self.count_correct()
        self.cross_entropy(self.noisy)
        ops.multiply(self.dx, self.inverse_temperature, out=self.dx)
