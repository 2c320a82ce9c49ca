"""Sampled softmax: the label against a few classes drawn at random."""

from functools import partial

import numpy as np

from scratchnet import arguments
from scratchnet.backend import Array, Noise, run, whole
from scratchnet.backend.noise import OfStep
from scratchnet.heads.own_weights import OwnWeights
from scratchnet.kernels.table import on

DISTRIBUTIONS = "uniform", "log_uniform"


class SampledSoftmax(OwnWeights):
    """loss = mean of -log softmax(z)[0] for z = x W[label, s_1, ..., s_m] - log(m Q), of features x of any number.

    The classes s are drawn anew in every step, with replacement and the same for the whole batch, from Q: "uniform", or
    "log_uniform", Q(k) = log((k + 2) / (k + 1)) / log(K + 1), for classes that are sorted by falling frequency. Where s
    is an image's label it is left out. Evaluation is by all classes. `correct` counts the labels that beat the sample.
    Raises ValueError for more samples than classes. Source: Jean et al. 2014, section 3; Bengio and Senécal 2008.
    """

    name = "sampled"
    draws_noise = True

    def __init__(self, classes: int, samples: int = 64, distribution: str = "uniform", seed: int = 0) -> None:
        super().__init__()
        owner = f"{self.name} head"
        self.classes = arguments.positive_integer(classes, "classes", owner)
        self.samples = arguments.positive_integer(samples, "samples", owner)
        if self.samples > self.classes:
            raise ValueError(f"{owner}: {samples} samples are more than {classes} classes: draw fewer, or take softmax")
        self.distribution = arguments.one_of(distribution, DISTRIBUTIONS, "distribution", owner)
        self.seed = arguments.seed(seed, owner)

    def log_counts(self) -> np.ndarray:
        """log(m Q) for each class: how often it is to be expected among the samples."""
        k = np.arange(self.classes)
        of_class = np.log1p(1 / (k + 1)) / np.log1p(self.classes)
        return np.log(self.samples * (of_class if self.distribution == "log_uniform" else 1 / self.classes + 0 * k))

    def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self.class_weights("kernel", (self.classes,), *input_shape)
        return super().infer(input_shape)

    def allocate(self) -> None:
        super().allocate()
        memory, rows, samples, width = self.memory, self.batch.size, self.samples, self.inputs.shape[1]
        self.soft = self.cross_entropy_of(1 + samples)
        self.loss, self.correct = self.soft.loss, self.soft.correct
        kind, clock = on(self.device, Noise), OfStep(self.clock)
        self.drawn = kind(self.seed, self.noise_stream, clock, whole(1), (samples,), memory)
        self.uniform = memory.buffer(samples)
        self.factor = memory.constant(np.log1p(self.classes) if self.distribution == "log_uniform" else self.classes)
        self.one, self.last, self.ruled_out = map(memory.constant, (1, self.classes - 1, -np.inf))
        self.log_count = self.device.to_device(self.log_counts().astype(self.dtype))
        self.index = memory.buffer(rows + samples, dtype=np.int64)  # the labels, then the sample
        self.weights_of, self.dweights_of = (memory.buffer(rows + samples, width) for _ in range(2))
        self.counts, self.of_label = memory.buffer(rows + samples), memory.buffer(rows)
        self.hit = memory.buffer(rows, samples, dtype=bool)

    def draw(self) -> None:
        """The sample of the step, into `index` behind the labels."""
        ops, u = self.ops, self.uniform
        self.drawn.draw(u)
        ops.multiply(u, self.factor, out=u)
        if self.distribution == "log_uniform":
            ops.exp(u, out=u)
            ops.subtract(u, self.one, out=u)
        ops.floor(u, out=u)
        ops.minimum(u, self.last, out=u)
        run(partial(self.device.xp.copyto, casting="unsafe"), self.index[self.batch.size :], u)

    def compute(self, training: bool) -> None:
        ops, rows, z = self.ops, self.batch.size, self.soft.x
        label, others = z[:, 0], z[:, 1:]
        ops.copy(self.labels, out=self.index[:rows])
        self.draw()
        ops.take(self.kernel, self.index, out=self.weights_of)
        with self.memory.scratch() as take:
            part = take(*self.inputs.shape)
            ops.multiply(self.inputs, self.weights_of[:rows], out=part)
            ops.sum(part, axis=1, out=self.of_label)
        ops.matmul(self.inputs, self.weights_of[rows:].T, out=others)
        ops.take(self.log_count, self.index, out=self.counts)
        ops.subtract(self.of_label, self.counts[:rows], out=label)
        ops.subtract(others, self.counts[rows:], out=others)
        ops.equal(self.labels[:, None], self.index[rows:], out=self.hit)
        ops.copy(self.ruled_out, out=others, where=self.hit)
        self.soft.compute(training)

    def compute_gradients(self) -> None:
        ops, rows, dz = self.ops, self.batch.size, self.soft.dx
        ops.multiply(dz[:, :1], self.inputs, out=self.dweights_of[:rows])
        ops.matmul(dz[:, 1:].T, self.inputs, out=self.dweights_of[rows:])
        self.blocks.add(self.index, self.dweights_of)
        ops.matmul(dz[:, 1:], self.weights_of[rows:], out=self.dinputs)
        with self.memory.scratch() as take:
            part = take(*self.inputs.shape)
            ops.multiply(dz[:, :1], self.weights_of[:rows], out=part)
            ops.add(self.dinputs, part, out=self.dinputs)

    def scores(self) -> Array:
        """The logits of all classes."""
        out = self.memory.buffer(self.batch.size, self.classes)
        self.ops.matmul(self.inputs, self.kernel.T, out=out)
        return out
