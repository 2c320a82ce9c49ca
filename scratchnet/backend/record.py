"""All that is new in a step, in one record: computed on the host, prepared once and copied to the device at once."""

from collections.abc import Callable
from typing import Any

import numpy as np

from scratchnet.backend.device import Array, Device
from scratchnet.backend.program import prepare

CAPACITY = 4096  # bytes: some hundred values
ALIGN = 16


class StepRecord:
    """Values that every step has anew: the step, the first image, a temperature, a learning rate.

    `field(value)` gives the place on the device that `value()` is written to whenever the record is loaded. Whoever
    makes a step calls `load` first: on a GPU that is the one copy of a step, and what follows is the same every time.
    """

    def __init__(self, device: Device) -> None:
        self.device, self.size, self.fields = device, 0, list[tuple[np.ndarray, Callable[[], Any]]]()
        self.on_host = np.zeros(CAPACITY, np.uint8)
        self.on_device = device.zeros(CAPACITY, np.uint8)

    def field(self, value: Callable[[], Any], dtype: Any, size: int | None = None) -> Array:
        """A scalar (an array of no axes), or `size` values one after the other."""
        start, shape = self.size, () if size is None else (size,)
        end = start + np.dtype(dtype).itemsize * (size or 1)
        self.size = end + -end % ALIGN
        if self.size > CAPACITY:
            raise ValueError(f"the step record is full: more than {CAPACITY} bytes are new in each step")
        on_host, on_device = (bytes_[start:end].view(dtype).reshape(shape) for bytes_ in (self.on_host, self.on_device))
        self.fields.append((on_host, value))
        return on_device

    def load(self) -> None:
        prepare(self._load)

    def _load(self) -> None:
        with np.errstate(over="ignore"):  # an absurd learning rate is infinite in float32, and the loss will tell
            for place, value in self.fields:
                place[...] = value()
        self.device.load(self.on_host[: self.size], out=self.on_device[: self.size])
