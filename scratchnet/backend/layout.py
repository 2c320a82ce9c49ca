"""Where things lie: the rows of a batch that one replica computes, and the arrays of a layer in flat vectors."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from scratchnet.backend.buffers import view
from scratchnet.backend.device import Array

ALIGN = 16  # arrays start at multiples of 16 numbers in a flat vector: whole cache lines
PITCH = 8  # a matrix of a GPU has a multiple of 8 rows and columns: its tensor cores want 16 bytes, memory 32


@dataclass(frozen=True)
class BatchSlice:
    """Rows `start` to `start + size` of a batch of `total`, and how an array is summed over all replicas, if any."""

    start: int
    size: int
    total: int
    all_reduce: Callable[[Array], None] | None = None


def whole(batch: int) -> BatchSlice:
    return BatchSlice(0, batch, batch)


def slice_of(size: int, rank: int, replicas: int, all_reduce: Callable[[Array], None] | None = None) -> BatchSlice:
    """The rows of a batch that replica `rank` computes: as even as can be, the first ones larger by one."""
    start, stop = (part * (size // replicas) + min(part, size % replicas) for part in (rank, rank + 1))
    return BatchSlice(start, stop - start, size, all_reduce)


class FlatLayout:
    """The places of named arrays in a flat vector: saving, all-reduce and the optimizer are each one operation on it.

    Each array starts at a whole cache line. Or, `joined`, they lie below each other as the rows of one matrix, a kernel
    and then its bias, with zeros on the right and below; `matrix` is then the whole of it.
    """

    def __init__(self, shapes: dict[str, tuple[int, ...]], joined: bool = False) -> None:
        self.shapes, self.places, self.size, self.pitch = shapes, {}, 0, 0
        for name, shape in shapes.items():
            self.pitch = shape[-1] + (-shape[-1] % PITCH if joined else 0)
            self.places[name] = slice(self.size, self.size + prod(shape[:-1]) * self.pitch)
            self.size = self.places[name].stop + (0 if joined else -prod(shape) % ALIGN)
        if joined:
            self.size += -(self.size // self.pitch) % PITCH * self.pitch

    def views(self, vector: Array) -> dict[str, Array]:
        rows = {name: view(vector[place], prod(self.shapes[name][:-1]), -1) for name, place in self.places.items()}
        return {name: view(rows[name][:, : shape[-1]], *shape) for name, shape in self.shapes.items()}

    def matrix(self, vector: Array) -> Array:
        return view(vector, -1, self.pitch)
