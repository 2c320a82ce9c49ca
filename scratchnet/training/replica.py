"""One replica: a network, its head and its part of the optimizer, and their step on a slice of the batch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from scratchnet.backend import Array, BatchSlice, Device, Memory, Program, owned_by, run, slice_of, view, whole
from scratchnet.heads import Head
from scratchnet.kernels.batch import Batch
from scratchnet.kernels.table import on
from scratchnet.layers.flow import Network
from scratchnet.layers.plan import Plan
from scratchnet.optimizers import Optimizer

CACHE_LINE = 16  # numbers; each replica updates whole cache lines of the parameters
UFUNC_BUFFER = 1024  # numbers; where a ufunc must convert its operands, pieces that stay in the first-level cache

threads = cache(ThreadpoolController)  # of BLAS: `with threads().limit(limits=1)`; to find them takes 10 ms


@dataclass
class TrainingSpec:
    """What all replicas of one training have in common: the unbuilt network, its shapes, and how many replicas."""

    network: Network
    input_shape: tuple[int, ...]
    head: Head
    optimizer: Optimizer
    device: Device
    replicas: int = 1


@dataclass
class Peers:
    """How replicas meet: `wait` returns when all have come, `exchange` (replicas, n) is seen by all."""

    wait: Callable[[], None]
    exchange: Array


@dataclass
class Bound:
    """What one number of rows has its buffers in."""

    plan: Plan
    head: Head
    batch: Any


class Replica:
    """`train(start, size, step)` and `predict(...)`, recorded once for each batch size and then replayed.

    `arrays` hold by name, shared by all replicas: parameters, gradients (one vector a replica), moving averages, the
    optimizer's moments, the data set's images (N, C, H, W) and labels, the epoch's `order` of the training images,
    `scores` of a prediction, and `metrics` (a row a replica, to which every step adds its images' losses and correct
    answers).
    """

    def __init__(self, spec: TrainingSpec, arrays: dict[str, Array], rank: int = 0, peers: Peers | None = None) -> None:
        self.spec, self.arrays, self.rank, self.peers = spec, arrays, rank, peers
        self.device = device = spec.device
        self.network, self.head, self.optimizer = spec.network.unbuilt(), spec.head.unbuilt(), copy(spec.optimizer)
        self.clock, self.memory = self.network.clock, Memory(device, arrays["parameters"].dtype)
        self.network.configure(spec.input_shape, self.memory.dtype, device)
        self.head.configure(self.network.output_shape, self.memory.dtype, device)
        self.head.clock = self.clock
        # All replicas compute the same moving averages; only the first writes those that all see, which predict reads.
        self.moving = arrays["moving"] if rank == 0 else arrays["moving"].copy()
        parameters, self.gradients = arrays["parameters"], arrays["gradients"][rank]
        attach(self.network, self.head, parameters, self.gradients, self.moving)
        piece = -(-parameters.size // spec.replicas // CACHE_LINE) * CACHE_LINE
        self.mine = slice(rank * piece, (rank + 1) * piece)
        moments = {name: arrays[name][self.mine] for name in self.optimizer.slots}
        self.optimizer.build(parameters[self.mine], moments, device, self.memory)
        self.batch_kind = on(device, Batch)
        by_image = all(layer.by_image for layer in (*self.network.leaves, self.head))
        self.group, self.at_once = self.batch_kind.group if by_image else None, self.batch_kind.predicted
        self.start = 0  # of the slice among all images; clock.row is that of a group in the slice
        self.bound: dict[int, Bound] = {}  # by number of rows
        self.programs: dict[tuple[str, int], Program] = {}  # by kind and rows of the whole batch
        self.results: dict[tuple[str, int], Any] = {}  # of the programs: the scores of a prediction

    def train(self, start: int, size: int, step: int) -> None:
        """One training step on the images order[start : start + size]; noise and optimizer are at `step`, from 0."""
        batch = slice_of(size, self.rank, self.spec.replicas, None if self.peers is None else self._all_reduce)
        self.start, self.optimizer.step = start + batch.start, step
        self.clock.step, self.clock.row = step, 0
        if self.rank:  # as loaded or restored; the first does not write before all have met
            self.moving[...] = self.arrays["moving"]
        self._run("train", size, partial(self._groups, batch), self._train)

    def predict(self, split: str, start: int, stop: int) -> None:
        """Scores of the images start to stop of a split, into `arrays["scores"]`."""
        self.moving[...] = self.arrays["moving"]
        self.start, self.clock.step, self.clock.inference = 0, 0, 1
        for first in range(start, stop, self.at_once):
            self.clock.row, size = first, min(self.at_once, stop - first)
            bind, work = partial(self._of_first_rows, size), partial(self._predict, split)
            with self.device.session():
                scores = self._run(f"predict {split}", size, bind, work)
                self.device.xp.copyto(self.arrays["scores"][first : first + size], scores)

    def _run(self, kind: str, size: int, bind: Callable[[], Any], work: Callable[[Any], Any]) -> Any:
        """Replay what was recorded for a batch of this size, or record it: `work` on what `bind` gives."""
        with quick_ufuncs(), self.device.session():
            if (kind, size) in self.programs:
                self.programs[kind, size].replay()
            else:
                bound = bind()
                with Program(self.device.capture) as program:
                    self.memory.record.load()
                    self.results[kind, size] = work(bound)
                self.programs[kind, size] = program
            return self.results[kind, size]

    def _bind(self, batch: BatchSlice) -> Bound:
        head = self.head.bound(batch, self.memory, (), input_gradient=True)
        plan = self.network.bind(batch, self.memory, input_gradient=False, output=(head.x, head.dx))
        head.metrics = self.arrays["metrics"][self.rank]
        images = self.arrays["train images"]
        loader = self.batch_kind(images, plan.x, head.labels, self.memory, lambda: self.start + self.clock.row)
        self.bound[batch.size] = Bound(plan, head, loader)
        return self.bound[batch.size]

    def _of_first_rows(self, rows: int) -> Bound:
        """The buffers of a group will do, but for noise, where it is drawn for rows further down the batch."""
        bound = self.bound.get(rows)
        return bound if bound and bound.plan.batch.start == 0 else self._bind(whole(rows))

    def _groups(self, batch: BatchSlice) -> list[tuple[int, Bound]]:
        """The slice in groups of images, as even as can be; those of one size have their buffers in common."""
        count = -(-batch.size // self.group) if self.group else 1
        groups = [slice_of(batch.size, number, count) for number in range(count)]
        bound = {size: self._bind(replace(batch, size=size)) for size in sorted({group.size for group in groups})}
        return [(group.start, bound[group.size]) for group in groups]

    def _train(self, groups: list[tuple[int, Bound]]) -> None:
        """Group by group, so that all that is touched stays in the cache; their gradients are added up."""
        gradients, ops = self.gradients, self.device.ops
        total = self.memory.buffer(gradients.size) if len(groups) > 1 else gradients
        for number, (first, bound) in enumerate(groups):
            if self.group:
                run(setattr, self.clock, "row", first)
            self._compute_gradients(bound)
            if number:
                ops.add(total, gradients, out=total if number < len(groups) - 1 else gradients)
            elif len(groups) > 1:
                ops.copy(gradients, out=total)
        if self.peers is not None:
            run(self.peers.wait)
        owned_by(self.optimizer.name)
        self.optimizer.update(*(gradients[self.mine] for gradients in self.arrays["gradients"]))

    def _compute_gradients(self, bound: Bound) -> None:
        """Of a group of images; adds their losses and correct answers to the metrics."""
        arrays = self.arrays
        bound.batch.load(arrays["train images"], arrays["train labels"], arrays["order"])
        bound.plan.compute(training=True)
        owned_by(f"the {bound.head.name} head")
        bound.head.compute(training=True)
        bound.head.compute_gradients()
        bound.plan.compute_gradients()
        bound.head.add_to_metrics()

    def _predict(self, split: str, bound: Bound) -> Array:
        bound.batch.load(self.arrays[f"{split} images"], self.arrays[f"{split} labels"])
        bound.plan.compute(training=False)
        owned_by(f"the {bound.head.name} head")
        return bound.head.scores()

    def _all_reduce(self, sums: Array) -> None:
        """Replace `sums` by its sum over all replicas, in the order of their ranks."""
        assert self.peers is not None
        flat, width = view(sums, -1), self.peers.exchange.shape[1]
        for part in (flat[start : start + width] for start in range(0, flat.size, width)):
            exchange = self.peers.exchange[:, : part.size]
            np.copyto(exchange[self.rank], part)
            self.peers.wait()
            np.add.reduce(exchange, 0, None, part)
            self.peers.wait()


class LocalReplica:
    """One replica in this process, on the CPU (with one BLAS thread) or the GPU; the interface of Workers."""

    def __init__(self, spec: TrainingSpec, arrays: dict[str, Array], rank: int = 0, peers: Peers | None = None) -> None:
        self.arrays, self.replica = arrays, Replica(spec, arrays, rank, peers)
        self.train, self.predict = self.replica.train, self.replica.predict
        self.limits = threads().limit(limits=1)

    def close(self) -> None:
        self.limits.restore_original_limits()


def attach(network: Network, head: Head, parameters: Array, gradients: Array, moving: Array) -> None:
    """Give both their parts of the flat vectors: first the network, then the head."""
    size, _, moving_size = network.sizes
    network.attach(parameters[:size], gradients[:size], moving[:moving_size])
    head.attach(parameters[size:], gradients[size:], moving[moving_size:])


@contextmanager
def quick_ufuncs() -> Iterator[None]:
    """Small conversion buffers; and no warnings, as a loss that is not finite is found and reported."""
    with np.errstate(all="ignore"):  # whose end also restores the size of the buffers
        np.setbufsize(UFUNC_BUFFER)
        yield
