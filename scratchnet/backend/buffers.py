"""Where the arrays of a step live: aligned buffers that last, a stack of scratch space, and what each step has anew."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import prod
from typing import Any

import numpy as np

from scratchnet.backend.device import Array, Device
from scratchnet.backend.program import prepare

LINE = 64  # bytes of a cache line; a ufunc on unaligned operands runs at half its speed
HUGE_PAGE = 2 << 20
SMALL, LARGE = 64 << 10, 32 << 20  # bytes asked for at once: little for a layer alone, much for a network
STAGGER = 11 * LINE  # so that successive arrays do not start at the same offset in a page and evict each other
CAPACITY, ALIGN = 4096, 16  # bytes of the step record: some hundred values, and what they start at multiples of


def view(array: Array, *shape: int) -> Array:
    """Reshape that refuses to copy: a silent copy would cut a program off from its buffer."""
    if isinstance(array, np.ndarray):
        return array.reshape(shape, copy=False)
    reshaped = array.reshape(shape)
    if reshaped.size and reshaped.data.ptr != array.data.ptr:
        raise ValueError(f"an array of shape {array.shape} cannot be seen as {shape} without a copy")
    return reshaped


class Arena:
    """Zeroed memory handed out front to back, in blocks."""

    def __init__(self, device: Device, dtype: np.dtype[Any]) -> None:
        self.device, self.dtype = device, dtype
        self.blocks: list[Array] = []
        self.place = 0, 0  # the block in use and the first free byte in it
        self.taken = 0  # bytes, ever

    def take(self, *shape: int, dtype: Any = None) -> Array:
        dtype = np.dtype(dtype or self.dtype)
        size = prod(shape) * dtype.itemsize
        self.taken += size
        block, start = self.place
        while block < len(self.blocks) and start + size > self.blocks[block].size:
            block, start = block + 1, 0
        if block == len(self.blocks):
            grown = 4 * sum(block.size for block in self.blocks)
            self.blocks.append(self._new_block(max(size, min(LARGE, max(SMALL, grown)))))
        self.place = block, start + size + -size % LINE + STAGGER
        return self.blocks[block][start : start + size].view(dtype).reshape(shape)

    def _new_block(self, size: int) -> Array:
        alignment = HUGE_PAGE if size >= HUGE_PAGE else LINE
        memory = self.device.zeros(size + alignment, np.uint8)
        start = -memory.ctypes.data % alignment if isinstance(memory, np.ndarray) else 0
        return memory[start : start + size]


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


class Memory:
    """The buffers of one network: lasting ones, and scratch that is dead when its user returns.

    `buffer(*shape)` is zeroed and lasts. `with scratch() as take: t = take(*shape)` is not zeroed and is handed out
    again afterwards. Both have the dtype of the network unless told otherwise. `record` is what a step has anew.
    """

    def __init__(self, device: Device, dtype: Any) -> None:
        self.device, self.dtype = device, np.dtype(dtype)
        self._lasting, self._scratch = Arena(device, self.dtype), Arena(device, self.dtype)
        self.buffer = self._lasting.take
        self.record = StepRecord(device)

    @contextmanager
    def scratch(self) -> Iterator[Callable[..., Array]]:
        place = self._scratch.place
        yield self._scratch.take
        self._scratch.place = place

    @property
    def lasting(self) -> int:
        """Bytes of all buffers so far."""
        return self._lasting.taken

    def constant(self, value: float) -> Array:
        """A scalar operand: an array of no axes is what NumPy takes fastest, and what a replayed step can change."""
        with np.errstate(over="ignore"):  # an absurd learning rate is infinite in float32, and the loss will tell
            return self.device.to_device(np.array(value, self.dtype))

    def negligible(self) -> Array:
        """The size below which a number's last place is denormal, 1e-31 in float32: decaying sums end here, as 0."""
        limits = np.finfo(self.dtype)
        return self.constant(limits.tiny / limits.eps)

    def activation(self, batch: int, shape: tuple[int, ...], dtype: Any = None, take: Any = None) -> Array:
        """An activation of logical shape (batch, *shape), lasting or of scratch; images lie in the device's order."""
        take = partial(take or self.buffer, dtype=dtype)
        if len(shape) != 3:
            return take(batch, *shape)
        return self.padded_activation(batch, shape, ((0, 0), (0, 0)), take=take)[0]

    def padded_activation(
        self, batch: int, shape: tuple[int, ...], margins: Any, axes: Any = None, take: Any = None
    ) -> tuple[Array, Array]:
        """Images with margins (top, bottom), (left, right), which are zero at first: the inside, and all of it.

        They lie in the order `axes`, by default the device's.
        """
        (top, bottom), (left, right) = margins
        height, width, channels = shape
        logical = batch, top + height + bottom, left + width + right, channels
        axes = axes or self.device.image_axes
        lying = (take or self.buffer)(*(logical[axis] for axis in axes))
        padded = lying.transpose([axes.index(axis) for axis in range(4)])
        return padded[:, top : top + height, left : left + width], padded
