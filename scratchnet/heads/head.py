"""What every head is: a layer at the end of training, from a network's outputs and labels to a loss."""

from inspect import signature
from typing import Any, Self

import numpy as np

from scratchnet import arguments
from scratchnet.backend import Array, Device, Memory, get_device, whole
from scratchnet.backend.noise import HEAD
from scratchnet.layers.layer import Layer
from scratchnet.layers.module import BLOCK
from scratchnet.layers.recorded import refuse_unrecorded


class Head(Layer):
    """A layer that ends the training: `loss, dx = head(x, labels)`, the mean loss of the rows and its gradient by x.

    A head states `name` (by which it is chosen), `draws_noise`, and as a layer does `infer` (where it may take
    parameters of its own), `allocate` and `compute`: from `x` and `labels` to
    `loss` (these rows' part of the batch's mean), `correct` (how many rows' prediction is their label) and `dx`; where
    it has parameters, `compute_gradients` has their gradients. `outputs_for` says how many outputs a network needs,
    `scores` how they become the scores of classes, whose largest is the prediction, and `log_probabilities` what those
    mean. `labels` are integers from 0 on. `step` is what noise, if the head draws any, is drawn for: give each training
    step its own. Raises ValueError for shapes and labels that do not fit and TypeError for dtypes.
    """

    name: str
    classes: int  # for how many there are scores: as many as outputs, unless its constructor is told
    draws_noise = False
    results = "loss", "correct"

    # of a bound twin
    labels: Array
    loss: Array
    correct: Array
    metrics: Array | None = None  # where a training adds up the losses of all rows, and the correct ones

    def __init__(self) -> None:
        super().__init__()
        vars(self).pop("name")
        self.kind = self.name

    def outputs_for(self, classes: int) -> int | None:
        """How many outputs a network needs for so many classes; None if it ends in features."""
        return classes

    def scores(self) -> Array:
        """In a prediction, from `x` the scores (rows, classes); to be recorded, as all of a step."""
        return self.x

    def log_probabilities(self, scores: np.ndarray) -> np.ndarray:
        """What scores (N, classes) say of each class: the logarithms of its probability."""
        from scipy.special import log_softmax

        return log_softmax(scores, axis=1)

    def own_figures(self, scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """By name, figures of an evaluation that only this head has."""
        return {}

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The scores of all classes, (N, K), for the outputs of a network: `head.predict(network.predict(x))`."""
        self._needs_build("predict")
        scores = []
        with self.device.session():
            for start in range(0, max(len(x), 1), BLOCK):
                part = self.device.to_device(np.asarray(x[start : start + BLOCK], self.dtype))
                self._check(part, (None, *self.input_shape), "x")
                bound = self.bound(whole(len(part)), Memory(self.device, self.dtype), (), input_gradient=False)
                bound.x[...] = part
                scores.append(self.device.to_host(bound.scores()))
        return np.concatenate(scores)

    def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(input_shape) != 1:
            raise ValueError(f"{self.name} head: outputs have the shape {input_shape} where (K,) is wanted")
        return ()

    def settle(self, *input_shapes: tuple[int, ...], dtype: Any, device: Any) -> tuple[int, ...]:
        self.noise_stream = HEAD  # apart from all layers
        if "classes" not in signature(type(self)).parameters:
            self.classes = input_shapes[0][-1]
        return super().settle(*input_shapes, dtype=dtype, device=device)

    def allocate(self) -> None:
        """The buffers of what goes in and out; a head's own come after."""
        self.x, self.dx = self.activation(), self.activation()
        buffer, rows = self.memory.buffer, self.batch.size
        self.labels, self.correct = buffer(rows, dtype=np.int64), buffer(dtype=np.int64)
        self.loss, self.of_step = buffer(), buffer(2, dtype=np.float64)
        self.weights_of_step = self.device.to_device(np.array([self.batch.total, 1.0]))  # the loss is a mean

    def build_for(self, input_shape: tuple[int, ...], dtype: Any, device: Device, seed: int = 0) -> None:
        """Build, unless it is built for such outputs of a network."""
        if not self.built or (self.input_shape, self.dtype, self.device) != (input_shape, dtype, device):
            self.build(input_shape, dtype, device, seed)

    def check_labels(self, labels: Array, whose: str) -> None:
        """Raise ValueError for labels beyond the classes."""
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self.classes:
            allowed = f"{self.classes} classes allow 0 to {self.classes - 1}"
            raise ValueError(f"{whose} go from {low} to {high} where {allowed}")

    def bound(self, *arguments: Any, **options: Any) -> Self:
        if self.replays is None:
            refuse_unrecorded(self)
        return super().bound(*arguments, **options)

    def compute_gradients(self) -> None:
        """Those of parameters; dx comes with the loss."""

    def add_to_metrics(self) -> None:
        """To be recorded after `compute`: the losses and correct answers of these rows into `metrics`."""
        self.ops.copy(self.loss, out=self.of_step[:1])
        self.ops.copy(self.correct, out=self.of_step[1:])
        self.ops.multiply(self.of_step, self.weights_of_step, out=self.of_step)
        self.ops.add(self.metrics, self.of_step, out=self.metrics)

    def __call__(self, x: Array, labels: Array, step: int = 0) -> tuple[float, Array]:
        if not hasattr(x, "dtype"):
            raise TypeError(f"{self.name} head: logits are a {type(x).__name__}, not an array")
        device = get_device("cpu" if isinstance(x, np.ndarray) else "gpu")
        labels = self._checked(x, device.xp.asarray(labels))
        arguments.natural(step, "step", f"{self.name} head")
        self.build_for(x.shape[1:], x.dtype, device)
        self.check_labels(labels, f"{self.name} head: labels")
        with device.session(), np.errstate(over="ignore"):
            if self._plan is None or len(self._plan.x) != len(x):
                self._plan = self.bound(whole(len(x)), Memory(device, x.dtype), (), input_gradient=True)
            bound, self.clock.step = self._plan, step
            bound.x[...], bound.labels[...] = x, labels
            bound.memory.record.load()
            bound.compute(training=True)
            bound.compute_gradients()
            return float(bound.loss), device.xp.array(bound.dx)

    def forward(self, x: Array, training: bool = False) -> Array:
        raise TypeError(f"{self.name} head: it needs labels, and is called as loss, dx = head(x, labels)")

    def backward(self, dy: Array) -> Array:
        return self.forward(dy)

    def _checked(self, x: Array, labels: Array) -> Array:
        arguments.dtype(x.dtype, f"{self.name} head: logits")
        if x.ndim != 2 or 0 in x.shape:
            raise ValueError(f"{self.name} head: logits have the shape {x.shape} where (N, K) is wanted")
        if labels.dtype.kind not in "iu":
            raise TypeError(f"{self.name} head: labels have the dtype {labels.dtype} where integers are wanted")
        if labels.shape != x.shape[:1]:
            raise ValueError(f"{self.name} head: labels have the shape {labels.shape} where {x.shape[:1]} is wanted")
        return labels
