"""The arrays of a training by name, which all its replicas know: on their device, or in memory that processes share."""

import ctypes
from itertools import accumulate
from math import prod
from multiprocessing.sharedctypes import RawArray
from typing import Any

import numpy as np

from scratchnet.backend import Array
from scratchnet.data import Split
from scratchnet.heads import Head
from scratchnet.layers.flow import Network
from scratchnet.optimizers import Optimizer

PAGE = 4096  # bytes
EXCHANGE = 4096  # numbers that replicas sum at once

Layout = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]


class SharedArrays(dict[str, np.ndarray]):
    """Arrays in one block of shared memory, which lives as long as anybody holds an array of it.

    The block has no name in the file system: unlike multiprocessing.shared_memory it cannot leak, nor be unmapped under
    its arrays.
    """

    def __init__(self, layout: Layout, block: Any = None) -> None:
        sizes = [prod(shape) * dtype.itemsize for shape, dtype in layout.values()]
        *starts, end = accumulate((size + -size % PAGE for size in sizes), initial=0)  # each at the start of a page
        self.layout, self.block = layout, block or RawArray(ctypes.c_ubyte, end)
        memory = np.frombuffer(memoryview(self.block), np.uint8)
        for (name, (shape, dtype)), start, size in zip(layout.items(), starts, sizes, strict=True):
            self[name] = memory[start : start + size].view(dtype).reshape(shape)

    def __reduce__(self) -> Any:
        return SharedArrays, (self.layout, self.block)


def split_in(arrays: dict[str, Array], name: str) -> Split:
    """The images and labels of a split where they lie now."""
    images = arrays[f"{name} images"]
    return Split(images.transpose(0, 2, 3, 1) if images.ndim == 4 else images, arrays[f"{name} labels"])


def arrays_for(
    network: Network, head: Head, optimizer: Optimizer, splits: dict[str, Split], replicas: int
) -> dict[str, Array]:
    """All that `Replica` names, with the images and labels of the splits, the parameters and the moving averages."""
    device, dtype, given = network.device, network.dtype, dict[str, np.ndarray]()
    for name, split in splits.items():
        images = split.images.transpose(0, 3, 1, 2) if split.images.ndim == 4 else split.images  # as in CIFAR-100
        given[f"{name} images"] = images if images.dtype == np.uint8 else images.astype(dtype)
        given[f"{name} labels"] = split.labels.astype(np.int64)
    for name, place in ("parameters", 0), ("moving", 2):
        given[name] = np.concatenate([device.to_host(module.flat[place]) for module in (network, head)])
    vector, largest = given["parameters"].shape, max(map(len, splits.values()))
    layout: Layout = {name: (array.shape, array.dtype) for name, array in given.items()}
    layout |= dict.fromkeys(optimizer.slots, (vector, dtype))
    layout |= {
        "gradients": ((replicas, *vector), dtype),
        "order": ((len(splits["train"]),), np.dtype(np.int64)),
        "scores": ((largest, head.classes), dtype),
        "metrics": ((replicas, 2), np.dtype(np.float64)),
        "exchange": ((replicas, EXCHANGE), dtype),
    }
    arrays = SharedArrays(layout) if replicas > 1 else {name: device.zeros(*kind) for name, kind in layout.items()}
    for name, array in given.items():
        device.load(array, out=arrays[name])
    return arrays
