"""Where training diverged: whether all is finite now; if not, since which step, and what went first in that step."""

from collections.abc import Callable, Iterator
from copy import copy
from math import isfinite

import numpy as np

from scratchnet.backend import Array, Device, Memory, whole
from scratchnet.heads import Head
from scratchnet.layers.flow import Network
from scratchnet.layers.plan import Plan

Finding = tuple[str, Array, bool]  # what it is, its values, and whether their squares must be finite too


class Watch:
    """Over all that lasts from step to step: is it finite, and if not, since which step?

    An overflowing gradient stays in Adam's moments, so that a look now and then finds it.
    """

    def __init__(self, device: Device, arrays: list[Array]) -> None:
        self.device, self.arrays = device, arrays

    def keep(self, step: int) -> None:
        """Keep what is there before this step, to come back to."""
        self.step, self.kept = step, [array.copy() for array in self.arrays]

    def put_back(self) -> None:
        for array, kept in zip(self.arrays, self.kept, strict=True):
            array[...] = kept

    def all_finite(self) -> bool:
        with np.errstate(all="ignore"):
            return all(isfinite(float(self.device.xp.sum(array, dtype=np.float64))) for array in self.arrays)

    def find(self, train: Callable[[int], None], last: int) -> int:
        """Go back to what was kept and on again, step by step, to the first after which something is not finite."""
        self.put_back()
        for step in range(self.step, last + 1):
            self.keep(step)
            train(step)
            if not self.all_finite():
                break
        return self.step


def first_of_step(
    before: Network, after: Network, head: Head, images: np.ndarray, labels: np.ndarray, step: int
) -> str:
    """The first array of a training step that is not finite, and its range, in the order of the computation.

    `before` and `after` are the network as the step found and left it; images are (N, ...), divided by 255 if bytes.
    """
    return _first(_training_step(copy(before), after, copy(head), images, labels, step), before.device)


def first_of_prediction(network: Network, images: np.ndarray) -> str:
    """The same for the network's outputs for these images."""
    return _first(_prediction(copy(network), images), network.device)


def _first(findings: Iterator[Finding], device: Device) -> str:
    with device.session(), np.errstate(all="ignore"):
        for name, array, squared in findings:
            values = device.to_host(array).ravel()
            if not np.isfinite(values).all():
                return f"{name} went first ({_range(values)})"
            if squared and not np.isfinite(values * values).all():
                return f"{name} went first ({_range(values)}, of which the squares overflow)"
    return "all is finite when it is computed once more, so the machine may have erred"


def _forward(network: Network, plan: Plan, images: np.ndarray, training: bool) -> Iterator[Finding]:
    for layer in network.leaves:  # they are older than the first output
        for name, array in (layer.parameters if training else layer.arrays()).items():
            yield f"{layer.name}/{name}", array, False
    scale = 255 if images.dtype == np.uint8 else 1
    plan.x[...] = network.device.to_device(np.divide(images, scale, dtype=network.dtype))
    plan.memory.record.load()
    for layer, _ in plan.nodes:
        layer.compute(training)
        for name, array in layer.moving.items():
            yield f"the new {layer.name}/{name}", array, False
        yield f"the output of {layer.name}", layer.y, False


def _prediction(network: Network, images: np.ndarray) -> Iterator[Finding]:
    plan = network.bind(whole(len(images)), Memory(network.device, network.dtype), fuse=False)
    yield from _forward(network, plan, images, training=False)


def _training_step(
    network: Network, after: Network, head: Head, images: np.ndarray, labels: np.ndarray, step: int
) -> Iterator[Finding]:
    memory, batch = Memory(network.device, network.dtype), whole(len(images))
    network.clock.step, head.clock = step, network.clock
    end = head.bound(batch, memory, (), input_gradient=True)
    plan = network.bind(batch, memory, fuse=False, output=(end.x, end.dx))
    yield from _forward(network, plan, images, training=True)
    end.labels[...] = network.device.to_device(labels)
    end.compute(training=True)
    end.compute_gradients()
    yield f"the loss of finite logits ({_range(network.device.to_host(end.x))})", end.loss, False
    yield "the gradient by the logits", end.dx, False
    for layer in plan.going_back:
        layer.compute_gradients()
        for name, gradient in layer.gradients.items():
            yield f"the gradient of {layer.name}/{name}", gradient, True  # Adam squares it
        for _, dx in layer.reads():
            yield f"the gradient by the input of {layer.name}", dx, False
    for layer in after.leaves:
        for name, array in layer.parameters.items():
            yield f"the new {layer.name}/{name}", array, False


def _range(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    text = f"{np.isinf(values).sum()} infinite and {np.isnan(values).sum()} NaN of {values.size} values"
    return f"{text}, the others from {finite.min():.3g} to {finite.max():.3g}" if finite.size else text
