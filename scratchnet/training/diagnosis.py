"""What went first where training diverged: compute once more, layer by layer, until an array is not finite."""

import copy
from collections.abc import Iterator

import numpy as np

from scratchnet.backend import Array, Device
from scratchnet.heads import SoftmaxCrossEntropy
from scratchnet.network import Sequential

Finding = tuple[str, Array, bool]  # what it is, its values, and whether their squares must be finite too


def first_of_step(
    before: Sequential, after: Sequential, head: SoftmaxCrossEntropy, images: np.ndarray, labels: np.ndarray, step: int
) -> str:
    """The first array of a training step that is not finite, and its range, in the order of the computation.

    `before` and `after` are the network as the step found and left it; images are uint8 (N, H, W, C).
    """
    return _first(_training_step(before, after, head, images, labels, step), before.device)


def first_of_prediction(network: Sequential, images: np.ndarray) -> str:
    """The same for the network's logits of these images."""
    return _first(_forward(copy.copy(network), images), network.device)


def _first(findings: Iterator[Finding], device: Device) -> str:
    with np.errstate(all="ignore"):
        for name, array, squared in findings:
            values = device.to_host(array).ravel()
            if not np.isfinite(values).all():
                return f"{name} went first ({_range(values)})"
            if squared and not np.isfinite(values * values).all():
                return f"{name} went first ({_range(values)}, of which the squares overflow)"
    return "all is finite when it is computed once more, so the machine may have erred"


def _forward(network: Sequential, images: np.ndarray, step: int | None = None) -> Iterator[Finding]:
    """Of training if there is a step."""
    training = step is not None
    for layer in network.layers:  # they are older than the first output
        for name, array in (layer.parameters if training else layer.arrays()).items():
            yield f"{layer.name}/{name}", array, False
    x = network.device.to_device(np.divide(images, 255, dtype=network.dtype))
    for layer in network.layers:
        network.clock.step = step or 0  # the noise's; forward counts it up
        x = layer.forward(x, training)
        for name, array in layer.state.items():
            yield f"the new {layer.name}/{name}", array, False
        yield f"the output of {layer.name}", x, False


def _training_step(
    before: Sequential, after: Sequential, head: SoftmaxCrossEntropy, images: np.ndarray, labels: np.ndarray, step: int
) -> Iterator[Finding]:
    network = copy.copy(before)
    for finding in _forward(network, images, step):
        yield finding
    logits = network.device.to_host(finding[1])
    loss, dlogits = head(logits, labels, step)
    yield f"the loss of finite logits ({_range(logits)})", np.array(loss), False
    yield "the gradient by the logits", dlogits, False
    dy = network.device.to_device(dlogits)
    for layer in reversed(network.layers):
        dy = layer.backward(dy)
        for name, gradient in layer.gradients.items():
            yield f"the gradient of {layer.name}/{name}", gradient, True  # Adam squares it
        yield f"the gradient by the input of {layer.name}", dy, False
    for layer in after.layers:
        for name, array in layer.parameters.items():
            yield f"the new {layer.name}/{name}", array, False


def _range(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    text = f"{np.isinf(values).sum()} infinite and {np.isnan(values).sum()} NaN of {values.size} values"
    return f"{text}, the others from {finite.min():.3g} to {finite.max():.3g}" if finite.size else text
