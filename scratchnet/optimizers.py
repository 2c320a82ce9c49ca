"""Optimizers: a flat vector of parameters and one or more vectors of gradients, in pieces that stay in the cache."""

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any, ClassVar

import numpy as np

from scratchnet.arguments import fraction, one_of, positive_number
from scratchnet.backend import Array, Device, Memory, get_device, prepare
from scratchnet.kernels.table import on
from scratchnet.schedules import rate_at

PIECE = 16384  # numbers; five vectors of that length stay in the second-level cache
SWEEP = 32  # steps from one sweep to the next

Rate = float | Callable[[int], float]


class Optimizer:
    """What optimizers share: `build(parameters)` once, then `update(gradients)` for every step, in place.

    `learning_rate` is a positive number, or a function of the step (0 in the first) such as CosineDecay.
    """

    slots: ClassVar[tuple[str, ...]] = ()  # names of the vectors kept beside the parameters

    def __init__(self, learning_rate: Rate) -> None:
        self.name = type(self).__name__
        self.learning_rate, self.step = learning_rate, 0
        if not callable(learning_rate):
            self.learning_rate = positive_number(learning_rate, "learning_rate", self.name)

    def rate(self) -> float:
        """The learning rate of the step that comes."""
        return rate_at(self.learning_rate, self.step, self.name)

    def build(
        self,
        parameters: Array,
        moments: dict[str, Array] | None = None,
        device: Device | None = None,
        memory: Memory | None = None,
    ) -> None:
        """Start at step 0 on this vector; `moments` are the vectors to use for what is kept beside it, by slot.

        With a `memory`, whoever owns it loads its step record before each update.
        """
        if getattr(parameters, "ndim", None) != 1:
            raise ValueError(f"{self.name}: the parameters are to be one flat vector, as a network's `parameters` are")
        self.device = device or get_device("cpu" if isinstance(parameters, np.ndarray) else "gpu")
        self.alone, self.memory = memory is None, memory or Memory(self.device, parameters.dtype)
        self.parameters, self.step, size = parameters, 0, parameters.size
        self.moments = moments or {name: self.memory.buffer(size) for name in self.slots}
        names = self.step_scalars()
        self.of_step = self.memory.record.field(lambda: [*self.step_scalars().values()], parameters.dtype, len(names))
        self.scalars = {name: self.of_step[i : i + 1].reshape(()) for i, name in enumerate(names)}
        self.piece = min(PIECE, size) if self.device.name == "cpu" else size
        self.pieces = [slice(start, start + self.piece) for start in range(0, size, max(self.piece, 1))]
        self.size, self.stays = self.memory.buffer(self.piece), self.memory.buffer(self.piece, dtype=bool)
        self.negligible = self.memory.negligible()

    def update(self, *gradients: Array) -> None:
        """One step along the sum of these gradient vectors (one a worker)."""
        if getattr(self, "parameters", None) is None:
            raise RuntimeError(f"{self.name}: update comes after build(parameters)")
        shapes = [np.shape(gradient) for gradient in gradients]
        if not shapes or any(shape != self.parameters.shape for shape in shapes):
            raise ValueError(f"{self.name}: the gradients have the shapes {shapes}, not {self.parameters.shape}")
        with self.device.session():
            if self.alone:
                self.memory.record.load()
            prepare(self._advance)
            on(self.device, type(self)).apply_all(self, gradients)

    def apply_all(self, gradients: Sequence[Array]) -> None:
        """The step on the whole vector, piece by piece."""
        ops = self.device.ops
        with self.memory.scratch() as take:
            total, temporary = take(self.piece), take(self.piece)
            for piece in self.pieces:
                g = gradients[0][piece]
                for other in gradients[1:]:
                    ops.add(g, other[piece], out=total[: g.size])
                    g = total[: g.size]
                moments = {name: vector[piece] for name, vector in self.moments.items()}
                self.apply(self.parameters[piece], g, temporary[: g.size], **moments)

    def _advance(self) -> None:
        """Count the step; now and then, set to 0 what has decayed to next to nothing.

        It would become denormal, and stay so, and cost 100 cycles.
        """
        self.step += 1
        if self.step % SWEEP > 0:
            return
        xp = self.device.xp
        for vector in self.moments.values():
            for piece in self.pieces:
                values = vector[piece]
                size, stays = self.size[: values.size], self.stays[: values.size]
                xp.absolute(values, size)
                xp.greater_equal(size, self.negligible, stays)
                xp.multiply(values, stays, values)

    def step_scalars(self) -> dict[str, float]:
        """The scalars of the step that comes, in which `self.step` steps have been done."""
        raise NotImplementedError

    def apply(self, w: Array, g: Array, t: Array, **moments: Array) -> None:
        """Change the parameters w by the gradient g; t is scratch."""
        raise NotImplementedError


class SGD(Optimizer):
    """v = momentum v - learning_rate g; w += v, or with `nesterov` w += momentum v - learning_rate g. As in Keras.

    Sources: Polyak 1964; Sutskever et al. 2013.
    """

    slots = ("velocity",)

    def __init__(self, learning_rate: Rate = 0.01, momentum: float = 0.0, nesterov: bool = False) -> None:
        super().__init__(learning_rate)
        self.momentum, self.nesterov = fraction(momentum, "momentum", self.name), nesterov

    def step_scalars(self) -> dict[str, float]:
        return {"rate": self.rate(), "momentum": self.momentum}

    def apply(self, w: Array, g: Array, t: Array, **moments: Array) -> None:
        ops, velocity, momentum = self.device.ops, moments["velocity"], self.scalars["momentum"]
        ops.multiply(g, self.scalars["rate"], out=t)
        ops.multiply(velocity, momentum, out=velocity)
        ops.subtract(velocity, t, out=velocity)
        if self.nesterov:
            ops.subtract(w, t, out=w)
            ops.multiply(velocity, momentum, out=t)
            ops.add(w, t, out=w)
        else:
            ops.add(w, velocity, out=w)


class Adam(Optimizer):
    """m += (1 - beta_1)(g - m); v = beta_2 v + (1 - beta_2) g g; w -= rate m / (sqrt(v) + floor) at step t, where

        rate = learning_rate sqrt(1 - beta_2^t) / (1 - beta_1^t).

    `epsilon_placement` "keras" (and the end of section 2 of the paper): floor = epsilon; "pytorch" (and the paper's
    algorithm 1): floor = epsilon sqrt(1 - beta_2^t), epsilon being added to the corrected sqrt(v). Source: Kingma and
    Ba 2014.
    """

    slots = ("m", "v")

    def __init__(
        self,
        learning_rate: Rate = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        epsilon_placement: str = "keras",
    ) -> None:
        super().__init__(learning_rate)
        self.beta_1, self.beta_2 = fraction(beta_1, "beta_1", self.name), fraction(beta_2, "beta_2", self.name)
        self.epsilon = positive_number(epsilon, "epsilon", self.name)
        self.epsilon_placement = one_of(epsilon_placement, ("keras", "pytorch"), "epsilon_placement", self.name)

    def build(self, parameters: Array, *arguments: Any, **options: Any) -> None:
        super().build(parameters, *arguments, **options)
        if parameters.dtype.type(self.epsilon) == 0:  # then a parameter without a gradient would be 0 / 0
            raise ValueError(f"{self.name}: epsilon {self.epsilon:g} is 0 in {parameters.dtype}: take a larger one")

    def step_scalars(self) -> dict[str, float]:
        step = self.step + 1
        correction_1, correction_2 = 1 - self.beta_1**step, sqrt(1 - self.beta_2**step)
        return {
            "one_minus_beta_1": 1 - self.beta_1,
            "beta_2": self.beta_2,
            "one_minus_beta_2": 1 - self.beta_2,
            "rate": self.rate() * correction_2 / correction_1,
            "epsilon": self.epsilon * (correction_2 if self.epsilon_placement == "pytorch" else 1),
        }

    def apply(self, w: Array, g: Array, t: Array, **moments: Array) -> None:
        ops, m, v, scalars = self.device.ops, moments["m"], moments["v"], self.scalars
        ops.subtract(g, m, out=t)
        ops.multiply(t, scalars["one_minus_beta_1"], out=t)
        ops.add(m, t, out=m)
        ops.multiply(g, g, out=t)
        ops.multiply(t, scalars["one_minus_beta_2"], out=t)
        ops.multiply(v, scalars["beta_2"], out=v)
        ops.add(v, t, out=v)
        ops.sqrt(v, out=t)
        ops.add(t, scalars["epsilon"], out=t)
        ops.divide(m, t, out=t)
        ops.multiply(t, scalars["rate"], out=t)
        ops.subtract(w, t, out=w)
