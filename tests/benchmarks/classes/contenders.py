"""The heads that are compared, by name, and one training step of output layer and head alone, recorded and replayed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from scratchnet import Sequential
from scratchnet.backend import Memory, Program, get_device, whole
from scratchnet.heads import GumbelSoftmaxCrossEntropy, Head, SampledSoftmax, SoftmaxCrossEntropy, TwoLevelSoftmax
from scratchnet.layers import Dense
from scratchnet.optimizers import Optimizer
from tests.benchmarks.classes.operations import FEATURES, ROWS, SAMPLES, clusters

BATCHES = 64  # of labels, which a step goes round: it never meets rows that the step before left in the cache
Work = Callable[[], object]


class Kind(NamedTuple):
    """How a contender is made for so many classes, and whose formula it has."""

    make: Callable[[int], Head]
    formula: str


CONTENDERS = {
    "softmax": Kind(lambda classes: SoftmaxCrossEntropy(), "softmax"),
    "gumbel 1": Kind(lambda classes: GumbelSoftmaxCrossEntropy(1.0), "gumbel"),
    "gumbel 0.5": Kind(lambda classes: GumbelSoftmaxCrossEntropy(0.5), "gumbel"),
    "two-level": Kind(lambda classes: TwoLevelSoftmax(classes), "two-level"),
    "sampled": Kind(lambda classes: SampledSoftmax(classes, min(SAMPLES, classes)), "sampled"),
}
COLORS = dict(zip(CONTENDERS, ("#0072b2", "#d55e00", "#e69f00", "#009e73", "#cc79a7"), strict=True))  # Okabe and Ito


class OutputStep:
    """A step of output layer and head on fixed features, with new labels and new noise: `step()`.

    The output layer is a Dense in front of a head that has none of its own. `parameters` and `gradients` are those of
    both, one vector each, and `program` is what a step replays.
    """

    def __init__(self, head: Head, classes: int, rows: int = ROWS, features: int = FEATURES) -> None:
        device, random = get_device("cpu"), np.random.default_rng(0)
        self.head, self.memory = head, Memory(device, np.float32)
        outputs = head.outputs_for(classes)
        if outputs is None:
            head.build((features,))
            self.bound = head.bound(whole(rows), self.memory, (), input_gradient=True)
            self.plan, self.x = None, self.bound.x
            self.parameters, self.gradients, _ = head.flat
        else:
            layer = Sequential([Dense(outputs)])
            layer.build((features,))
            head.build((outputs,))
            self.bound = head.bound(whole(rows), self.memory, (), input_gradient=True)
            self.plan = layer.bind(whole(rows), self.memory, input_gradient=True, output=(self.bound.x, self.bound.dx))
            self.x, self.parameters, self.gradients = self.plan.x, layer.parameters, layer.gradients
        self.x[...] = random.standard_normal(self.x.shape, np.float32).clip(0)  # as after a ReLU
        self.labels, self.done = random.integers(0, classes, (BATCHES, rows)), 0
        self.bound.labels[...] = self.labels[0]
        with Program() as self.program:
            self.memory.record.load()
            if self.plan is not None:
                self.plan.compute(training=True)
            self.bound.compute(training=True)
            self.bound.compute_gradients()
            if self.plan is not None:
                self.plan.compute_gradients()

    def __call__(self) -> None:
        self.done += 1
        self.head.clock.step = self.done
        self.bound.labels[...] = self.labels[self.done % BATCHES]
        self.program.replay()


def update(optimizer: Optimizer, parameters: Any, gradients: Any) -> Work:
    """The optimizer's update of a vector, recorded and replayed."""
    memory = Memory(get_device("cpu"), parameters.dtype)
    optimizer.build(parameters, memory=memory)
    with Program() as program:
        memory.record.load()
        optimizer.update(gradients)
    return program.replay


class TouchedRows:
    """Plain SGD's update of the rows alone that a step's gradient reaches, in a matrix of classes: `update()`.

    Of the sampled head those of the samples and the labels, one by one; of the two-level one those of the labels'
    clusters, cluster by cluster, and of all clusters. To leave out the others is exact only without momentum, where a
    gradient of 0 changes nothing.
    """

    def __init__(self, head: str, classes: int, rows: int = ROWS, features: int = FEATURES) -> None:
        random, size = np.random.default_rng(0), clusters(classes)  # of a cluster
        self.weights, self.gradients = np.ones((2, classes + -(-classes // size), features), np.float32)
        self.rate, self.done, self.places = np.float32(0.01), 0, []  # of each step, slices of rows or their numbers
        self.change = np.empty((rows + SAMPLES, features) if head == "sampled" else (size, features), np.float32)
        for _ in range(BATCHES):
            labels = random.integers(0, classes, rows)
            if head == "sampled":
                self.places.append([np.union1d(labels, random.integers(0, classes, SAMPLES))])
            else:
                own = [slice(start, min(start + size, classes)) for start in np.unique(labels // size * size)]
                uppermost = range(classes, len(self.weights), size)
                self.places.append([*own, *(slice(start, min(start + size, len(self.weights))) for start in uppermost)])

    def __call__(self) -> None:
        self.done += 1
        for place in self.places[self.done % BATCHES]:
            if isinstance(place, slice):
                weights, change = self.weights[place], self.change[: place.stop - place.start]
                np.multiply(self.gradients[place], self.rate, change)
                np.subtract(weights, change, weights)
            else:
                change = self.change[: len(place)]
                np.take(self.gradients, place, 0, change, "clip")
                np.multiply(change, self.rate, change)
                self.weights[place] -= change
