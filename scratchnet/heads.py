"""Heads: from logits and labels to a loss and its gradient, in the log domain.

Like a layer, a bound head owns the buffers of its input, `logits` and `dlogits`, and the network's last layer writes
there.
"""

import copy
from dataclasses import dataclass
from math import exp
from typing import Any

import numpy as np

from scratchnet import arguments
from scratchnet.arguments import positive_number
from scratchnet.backend import Array, Clock, Memory, Noise, get_device, prepare
from scratchnet.backend.noise import HEAD, gumbel, uniform
from scratchnet.kernels.gpu.head import CrossEntropy, GumbelNoise
from scratchnet.layers.layer import Share, whole
from scratchnet.layers.softmax import gumbel_in_place


class SoftmaxCrossEntropy:
    """loss = mean over the rows of -log softmax(logits)[label]; dlogits = (softmax(logits) - onehot(label)) / N.

    `loss, dlogits = head(logits, labels)` with logits (N, K) and integer labels (N,) from 0 to K-1. A logit of -inf
    rules a class out. `step` is what noise, if the head has any, is drawn for: give each training step its own. Raises
    ValueError for shapes and labels that do not fit and TypeError for dtypes.
    """

    name = "softmax"
    draws_noise = False
    clock: Clock  # of a bound twin
    _bound: Any = None, None, None  # for which logits, what __call__ made for them, and the clock of its noise

    def __call__(self, logits: Array, labels: Array, step: int = 0) -> tuple[float, Array]:
        if not hasattr(logits, "dtype"):
            raise TypeError(f"{self.name} head: logits are a {type(logits).__name__}, not an array")
        device = get_device("cpu" if isinstance(logits, np.ndarray) else "gpu")
        labels = self._checked(logits, device.xp.asarray(labels))
        arguments.natural(step, "step", f"{self.name} head")
        with device.session(), np.errstate(over="ignore"):
            kind = device.name, logits.shape, logits.dtype
            if self._bound[0] != kind:
                clock = Clock()
                bound = self.bind(whole(len(logits)), logits.shape[1], Memory(device, logits.dtype), clock)
                self._bound = kind, bound, clock
            _, bound, clock = self._bound
            clock.step = step
            bound.logits[...], bound.labels[...] = logits, labels
            bound.compute()
            return float(bound.loss), device.xp.array(bound.dlogits)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_bound": (None, None, None)}

    def _checked(self, logits: Array, labels: Array) -> Array:
        arguments.dtype(logits.dtype, f"{self.name} head: logits")
        if logits.ndim != 2 or 0 in logits.shape:
            raise ValueError(f"{self.name} head: logits have the shape {logits.shape} where (N, K) is wanted")
        if labels.dtype.kind not in "iu":
            raise TypeError(f"{self.name} head: labels have the dtype {labels.dtype} where integers are wanted")
        if labels.shape != logits.shape[:1]:
            raise ValueError(
                f"{self.name} head: labels have the shape {labels.shape} where {logits.shape[:1]} is wanted"
            )
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= logits.shape[1]:
            raise ValueError(
                f"{self.name} head: labels go from {low} to {high} where {logits.shape[1]} classes "
                f"allow 0 to {logits.shape[1] - 1}"
            )
        return labels

    def bind(self, share: Share, classes: int, memory: Memory, clock: Clock) -> "SoftmaxCrossEntropy | CrossEntropy":
        """A twin with buffers for these rows of the batch; on a GPU, the kernel that does its work at once."""
        if memory.device.cuda is not None:
            return CrossEntropy(share.size, classes, memory, 1 / share.total, share.start, self._noise_of(clock))
        twin = copy.copy(self)
        twin.clock = clock
        twin.allocate(share, classes, memory, clock)
        return twin

    def _noise_of(self, clock: Clock) -> GumbelNoise | None:
        return None

    def allocate(self, share: Share, classes: int, memory: Memory, clock: Clock) -> None:
        rows, self.ops = share.size, memory.device.ops
        self.logits, self.dlogits, self.soft = (memory.buffer(rows, classes) for _ in range(3))
        self.labels, self.largest = (memory.buffer(rows, dtype=np.int64) for _ in range(2))
        self.wanted, self.hits = memory.buffer(rows, classes, dtype=bool), memory.buffer(rows, dtype=bool)
        self.row, self.total = memory.buffer(rows), memory.buffer(rows)
        self.loss, self.correct = memory.buffer(), memory.buffer(dtype=np.int64)
        self.classes, self.per_row = memory.device.xp.arange(classes), memory.constant(1 / share.total)

    def compute(self) -> None:
        """loss (this share's part of the batch's mean), correct (rows whose largest logit is the label's), dlogits."""
        self.ops.argmax(self.logits, axis=1, out=self.largest)
        self.ops.equal(self.largest, self.labels, out=self.hits)
        self.ops.sum(self.hits, axis=0, out=self.correct)
        self._cross_entropy(self.logits)

    def _cross_entropy(self, z: Array) -> None:
        ops, soft, row, total = self.ops, self.soft, self.row, self.total
        ops.equal(self.labels[:, None], self.classes, out=self.wanted)
        ops.max(z, axis=1, out=row)
        ops.subtract(z, row[:, None], out=soft)
        ops.fill(0, out=self.dlogits)
        ops.copy(soft, out=self.dlogits, where=self.wanted)  # a product with the mask would make -inf * 0
        ops.sum(self.dlogits, axis=1, out=row)  # the label's logit, less the largest
        ops.exp(soft, out=soft)
        ops.sum(soft, axis=1, out=total)
        ops.divide(soft, total[:, None], out=soft)
        ops.subtract(soft, self.wanted, out=self.dlogits)
        ops.multiply(self.dlogits, self.per_row, out=self.dlogits)
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
        positive_number(self.start, "start", "annealed temperature")
        positive_number(self.floor, "floor", "annealed temperature")
        if self.rate != 0:
            positive_number(self.rate, "rate", "annealed temperature")

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
        self.temperature: Any = temperature
        if not callable(temperature):
            self.temperature = positive_number(temperature, "temperature", f"{self.name} head")
        self.seed = arguments.seed(seed, f"{self.name} head")

    def temperature_at(self, step: int) -> float:
        if not callable(self.temperature):
            return self.temperature
        return positive_number(self.temperature(step), f"temperature at step {step}", f"{self.name} head")

    def noise(self, step: int, batch: int, classes: int) -> np.ndarray:
        """The noise g of a step, float64 (batch, classes)."""
        return gumbel(uniform(self.seed, HEAD, step, 0, batch, classes).astype(np.float64))

    def _noise_of(self, clock: Clock) -> GumbelNoise:
        return GumbelNoise(self.seed, HEAD, lambda: (clock.step, 1 / self.temperature_at(clock.step)))

    def allocate(self, share: Share, classes: int, memory: Memory, clock: Clock) -> None:
        super().allocate(share, classes, memory, clock)
        self.drawn = Noise(self.seed, HEAD, clock, share.start, share.size, (classes,), memory)
        self.noisy, self.inverse_temperature = memory.buffer(share.size, classes), memory.constant(1)

    def compute(self) -> None:
        ops = self.ops
        self.drawn.draw(self.noisy)
        prepare(self._set_temperature)
        gumbel_in_place(ops, self.noisy)
        ops.add(self.logits, self.noisy, out=self.noisy)
        ops.multiply(self.noisy, self.inverse_temperature, out=self.noisy)
        super().compute()
        ops.multiply(self.dlogits, self.inverse_temperature, out=self.dlogits)

    def _cross_entropy(self, z: Array) -> None:
        super()._cross_entropy(self.noisy)

    def _set_temperature(self) -> None:
        self.inverse_temperature.fill(1 / self.temperature_at(self.clock.step))


HEADS = {head.name: head for head in (SoftmaxCrossEntropy, GumbelSoftmaxCrossEntropy)}
