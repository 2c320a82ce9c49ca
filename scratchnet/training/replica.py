"""One replica: a network, its head and its part of the optimizer, and their step on a share of the batch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scratchnet.backend import Array, Device, Memory, Program, owned_by, prepare, run
from scratchnet.heads import SoftmaxCrossEntropy
from scratchnet.kernels.gpu.gather import Gather
from scratchnet.kernels.gpu.launch import NULL
from scratchnet.layers.layer import Share, whole
from scratchnet.network import BoundNetwork, Sequential
from scratchnet.optimizers import Optimizer

GROUP = 64  # images at once: with fewer the calls cost more than their work, with more it leaves the cache
GROUP_ON_GPU = 512  # in predictions: enough for every multiprocessor
LINE = 16  # each replica updates whole cache lines of the parameters
UFUNC_BUFFER = 1024  # numbers; where a ufunc must convert its operands, pieces that stay in the first-level cache

Group = tuple[int, BoundNetwork, Any, Array]  # the first of its images in the share; network, head and uint8 images


@dataclass
class Job:
    """What all replicas of one training have in common: the unbuilt network, its shapes, and how many replicas."""

    network: Sequential
    input_shape: tuple[int, ...]
    head: SoftmaxCrossEntropy
    optimizer: Optimizer
    batch_size: int
    replicas: int = 1


@dataclass
class Together:
    """How replicas meet: `wait` returns when all have come, `exchange` (replicas, n) is seen by all."""

    wait: Callable[[], None]
    exchange: Array


class Replica:
    """`train(start, size, step)` and `predict(...)`, recorded once for each batch size and then replayed.

    `arrays` hold by name, shared by all replicas: parameters, gradients (one vector a replica), state, the optimizer's
    slots, the data set's images (N, C, H, W) and labels, the epoch's `order` of the training images, `logits` of a
    prediction, and `metrics` (a row a replica, to which every step adds its images' losses and correct answers).
    """

    def __init__(
        self, job: Job, arrays: dict[str, Array], device: Device, rank: int = 0, together: Together | None = None
    ) -> None:
        self.job, self.arrays, self.device, self.rank, self.together = job, arrays, device, rank, together
        self.ops = device.ops
        self.network, self.optimizer = job.network.unbuilt(), job.optimizer
        parameters, state = arrays["parameters"], arrays["state"]
        self.network.configure(job.input_shape, parameters.dtype, device)
        # All replicas compute the same moving averages; only the first writes those that all see, which predict reads.
        self.network.attach(parameters, arrays["gradients"][rank], state if rank == 0 else state.copy())
        self.memory = Memory(device, parameters.dtype)
        piece = -(-parameters.size // job.replicas // LINE) * LINE
        self.mine = slice(rank * piece, (rank + 1) * piece)
        slots = {name: arrays[name][self.mine] for name in self.optimizer.slots}
        self.optimizer.build(parameters[self.mine], slots, device)
        self.by_group = device.name == "cpu" and all(layer.by_image for layer in self.network.layers)
        self.byte = self.memory.constant(255)
        self.start = 0
        self.bound: dict[int, tuple[BoundNetwork, Any, Array]] = {}  # by number of rows
        self.programs: dict[tuple[str, int], Program] = {}  # by kind and rows of the whole batch
        self.outputs: dict[tuple[str, int], Array] = {}  # logits of a prediction, by split and rows

    def train(self, start: int, size: int, step: int) -> None:
        """One training step on the images order[start : start + size]; noise and optimizer are at `step`, from 0."""
        share = share_of(size, self.rank, self.job.replicas, self.together and self._all_reduce)
        self.start, self.optimizer.step = start + share.start, step
        self.network.clock.step, self.network.clock.row = step, 0
        self._run("train", share)

    def predict(self, split: str, start: int, stop: int) -> None:
        """Logits of the images start to stop of a split, into `arrays["logits"]`."""
        self.network.state[...] = self.arrays["state"]
        self.network.clock.step, self.network.clock.inference = 0, 1
        rows = GROUP if self.device.cuda is None else GROUP_ON_GPU
        for self.start in range(start, stop, rows):
            self.network.clock.row, size = self.start, min(rows, stop - self.start)
            with self.device.session():
                self._run(f"predict {split}", whole(size))
                self.device.xp.copyto(self.arrays["logits"][self.start : self.start + size], self.outputs[split, size])

    def _run(self, kind: str, share: Share) -> None:
        with quick_ufuncs(), self.device.session():
            if (kind, share.total) in self.programs:
                self.programs[kind, share.total].replay()
                return
            if kind == "train":
                groups = self._groups(share)
            elif share.size not in self.bound:  # the buffers of any group will do
                self._bind(share)
            with Program(self.device.capture) as program:
                if kind == "train":
                    self._train(groups, share.total)
                else:
                    self._predict(kind.removeprefix("predict "), share.size)
            self.programs[kind, share.total] = program

    def _bind(self, share: Share) -> tuple[BoundNetwork, Any, Array]:
        head = self.job.head.bind(share, self.network.output_shape[0], self.memory, self.network.clock)
        output = head.logits, head.dlogits
        network = self.network.bind(share, self.memory, input_gradient=False, output=output)
        pixels = self.memory.buffer(share.size, *self.arrays["train images"].shape[1:], dtype=np.uint8)
        self.bound[share.size] = network, head, pixels
        return self.bound[share.size]

    def _groups(self, share: Share) -> list[Group]:
        """The share in groups of images, as even as can be; those of one size have their buffers in common."""
        count = -(-share.size // GROUP) if self.by_group else 1
        groups = [share_of(share.size, number, count) for number in range(count)]
        bound = {size: self._bind(replace(share, size=size)) for size in sorted({group.size for group in groups})}
        return [(group.start, *bound[group.size]) for group in groups]

    def _train(self, groups: list[Group], batch: int) -> None:
        """Group by group, so that all that is touched stays in the cache; their gradients are added up."""
        gradients = self.network.gradients
        total = self.memory.buffer(gradients.size) if len(groups) > 1 else gradients
        for number, (first, network, head, pixels) in enumerate(groups):
            if self.by_group:
                run(setattr, self.network.clock, "row", first)
            self._compute_gradients(first, network, head, pixels, batch)
            if number:
                self.ops.add(total, gradients, out=total if number < len(groups) - 1 else gradients)
            elif len(groups) > 1:
                self.ops.copy(gradients, out=total)
        if self.together is not None:
            run(self.together.wait)
        owned_by(self.optimizer.name)
        self.optimizer.update(*(gradients[self.mine] for gradients in self.arrays["gradients"]))

    def _compute_gradients(self, first: int, network: BoundNetwork, head: Any, pixels: Array, batch: int) -> None:
        """Of a group of images; adds their losses and correct answers to the metrics."""
        metrics = self.arrays["metrics"][self.rank]
        if self.device.cuda is not None:
            head.metrics = metrics
        self._gather(first, network, head, pixels)
        network.compute(training=True)
        owned_by(f"the {self.job.head.name} head")
        head.compute()
        network.compute_gradients()
        if self.device.cuda is None:
            of_step = self.memory.buffer(2, dtype=np.float64)
            weights = self.device.to_device(np.array([batch, 1.0]))  # the head's loss is a mean
            self.ops.copy(head.loss, out=of_step[:1])
            self.ops.copy(head.correct, out=of_step[1:])
            self.ops.multiply(of_step, weights, out=of_step)
            self.ops.add(metrics, of_step, out=metrics)

    def _gather(self, first: int, network: BoundNetwork, head: Any, pixels: Array) -> None:
        """Images and labels of the batch, from `first` on of the share, into the network's and the head's buffers."""
        rows = len(pixels)
        images, labels, order = (self.arrays[name] for name in ("train images", "train labels", "order"))
        if self.device.cuda is not None:
            self._gather_on_gpu("train", order, network.x, head.labels)
            return

        def take() -> None:
            chosen = order[self.start + first : self.start + first + rows]
            self.device.take(images, chosen, out=pixels)
            self.device.take(labels, chosen, out=head.labels)

        run(take)
        self._scale(pixels, network.x)

    def _predict(self, split: str, rows: int) -> None:
        network, head, pixels = self.bound[rows]
        images = self.arrays[f"{split} images"]

        def take() -> None:
            self.device.xp.copyto(pixels, images[self.start : self.start + rows])

        if self.device.cuda is not None:
            self._gather_on_gpu(split, NULL, network.x, head.labels)
        else:
            run(take)
            self._scale(pixels, network.x)
        network.compute(training=False)
        self.outputs[split, rows] = network.y  # of this program: training may bind the size anew

    def _gather_on_gpu(self, split: str, order: Array, x: Array, batch_labels: Array) -> None:
        start = self.memory.buffer(1, dtype=np.int64)
        prepare(lambda: self.device.load(np.array([self.start]), out=start))
        gather = Gather(self.device, len(x), self.network.input_shape, self.memory.dtype)
        gather(self.arrays[f"{split} images"], self.arrays[f"{split} labels"], order, start, x, batch_labels)

    def _scale(self, pixels: Array, x: Array) -> None:
        """x = pixels / 255, from (N, C, H, W) to N, H, W, C."""
        self.ops.copy(pixels.transpose(0, 2, 3, 1), out=x)
        self.ops.divide(x, self.byte, out=x)

    def _all_reduce(self, sums: Array) -> None:
        """Replace `sums` by its sum over all replicas, in the order of their ranks."""
        assert self.together is not None
        exchange = self.together.exchange[:, : sums.size]
        np.copyto(exchange[self.rank], sums.reshape(-1))
        self.together.wait()
        np.add.reduce(exchange, 0, None, sums.reshape(-1))
        self.together.wait()


def share_of(size: int, rank: int, replicas: int, all_reduce: Any = None) -> Share:
    """The rows of a batch that replica `rank` computes: as even as can be, the first ones larger by one."""
    start, stop = (part * (size // replicas) + min(part, size % replicas) for part in (rank, rank + 1))
    return Share(start, stop - start, size, all_reduce)


@contextmanager
def quick_ufuncs() -> Iterator[None]:
    """Small conversion buffers; and no warnings, as a loss that is not finite is found and reported."""
    before = np.setbufsize(UFUNC_BUFFER)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        np.setbufsize(before)
