"""The trainer: epochs of shuffled batches over a data set, by one replica in this process or by worker processes."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite, prod
from typing import Self

import numpy as np
from joblib import cpu_count
from threadpoolctl import threadpool_limits

from scratchnet import arguments
from scratchnet.arguments import positive_integer
from scratchnet.backend import Device
from scratchnet.backend.noise import SHUFFLE, generator
from scratchnet.data import Dataset, Split
from scratchnet.errors import TrainingError
from scratchnet.heads import SoftmaxCrossEntropy
from scratchnet.network import Sequential
from scratchnet.optimizers import Optimizer
from scratchnet.training.replica import Job, Replica
from scratchnet.training.workers import Layout, Workers

OnStep = Callable[[int, int, float, float], None]  # step, steps in the epoch, mean loss and accuracy so far


@dataclass(frozen=True)
class EpochResult:
    """Mean loss and accuracy over an epoch's batches, as they were trained on, and the seconds it took."""

    loss: float
    accuracy: float
    seconds: float


class LocalReplica:
    """One replica in this process, on the CPU (with one BLAS thread) or the GPU; the interface of Workers."""

    def __init__(self, job: Job, layout: Layout, device: Device) -> None:
        self.arrays = {name: device.zeros(shape, dtype) for name, (shape, dtype) in layout.items()}
        self.limits = threadpool_limits(1)
        self.replica = Replica(job, self.arrays, device)
        self.train, self.predict = self.replica.train, self.replica.predict

    def close(self) -> None:
        self.limits.restore_original_limits()


class Trainer:
    """Trains a built network; `with Trainer(...) as trainer: trainer.train_epoch(1)`.

    While it is open, the network's parameters are those being trained. Batches are `batch_size` images, the last one of
    an epoch what is left; the images are shuffled anew in every epoch. The results are a function of the seed and the
    number of `workers` (default: the physical cores), of whom there are never more than images in the smallest batch.
    `dataset` then has its images in the memory that the workers share. Raises ValueError where network and data set
    do not fit together.
    """

    def __init__(
        self,
        network: Sequential,
        head: SoftmaxCrossEntropy,
        optimizer: Optimizer,
        dataset: Dataset,
        *,
        batch_size: int,
        seed: int = 0,
        workers: int | None = None,
    ) -> None:
        if network.built and network.device.name != "cpu":
            if workers not in (None, 1):
                raise ValueError(f"trainer: workers share the work of a CPU; device {network.device.name!r} takes one")
            workers = 1
        workers = cpu_count(only_physical_cores=True) if workers is None else workers
        size = len(dataset.train)
        self.batch_size = min(positive_integer(batch_size, "batch_size", "trainer"), size)
        self.workers = min(positive_integer(workers, "workers", "trainer"), size % self.batch_size or self.batch_size)
        if not network.built or len(network.output_shape) != 1:
            raise ValueError(f"{network.name}: training needs a built network that ends in one logit a class")
        if network.input_shape != dataset.train.images.shape[1:] or network.output_shape[0] < dataset.num_classes:
            raise ValueError(
                f"{network.name}: the network takes {network.input_shape} and has {network.output_shape[0]} outputs, "
                f"where {dataset.name} has images of {dataset.train.images.shape[1:]} and {dataset.num_classes} classes"
            )
        for split in (dataset.train, dataset.test):
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= network.output_shape[0]:
                raise ValueError(
                    f"labels of {dataset.name} go from {low} to {high} where the network has "
                    f"{network.output_shape[0]} outputs"
                )
        self.network, self.dataset, self.device = network, dataset, network.device
        self.seed = arguments.seed(seed, "trainer")
        self.steps = -(-size // self.batch_size)
        job = Job(network.unbuilt(), network.input_shape, head, optimizer, self.batch_size, self.workers)
        layout = self._layout(optimizer)
        self.engine: Workers | LocalReplica = (
            LocalReplica(job, layout, self.device) if self.workers == 1 else Workers(job, layout)
        )
        self._load()

    def _layout(self, optimizer: Optimizer) -> Layout:
        network, dtype = self.network, str(self.network.dtype)
        vector = (network.parameters.size,), dtype
        layout: Layout = {name: vector for name in ("parameters", *optimizer.slots)}
        for name, split in (("train", self.dataset.train), ("test", self.dataset.test)):
            _, *image = split.images.transpose(0, 3, 1, 2).shape
            layout[f"{name} images"] = (len(split), *image), "uint8"
            layout[f"{name} labels"] = (len(split),), "int64"
        rows = max(len(self.dataset.train), len(self.dataset.test))
        widest = max(prod(layer.output_shape[-1:]) for layer in network.layers)
        return layout | {
            "gradients": ((self.workers, *vector[0]), dtype),
            "state": ((network.state.size,), dtype),
            "order": ((len(self.dataset.train),), "int64"),
            "logits": ((rows, *network.output_shape), dtype),
            "metrics": ((self.workers, 2), "float64"),
            "exchange": ((self.workers, 2 * widest), dtype),
        }

    def _load(self) -> None:
        arrays, network, load = self.engine.arrays, self.network, self.device.load
        for name, split in (("train", self.dataset.train), ("test", self.dataset.test)):
            load(split.images.transpose(0, 3, 1, 2), out=arrays[f"{name} images"])
            load(split.labels, out=arrays[f"{name} labels"])
        arrays["parameters"][...], arrays["state"][...] = network.parameters, network.state
        network.attach(arrays["parameters"], arrays["gradients"][0], arrays["state"])
        if self.device.name == "cpu":  # let go of images that the caller may no longer need
            train, test = (
                Split(arrays[f"{name} images"].transpose(0, 2, 3, 1), arrays[f"{name} labels"])
                for name in ("train", "test")
            )
            self.dataset = replace(self.dataset, train=train, test=test)

    def train_epoch(self, epoch: int, on_step: OnStep | None = None) -> EpochResult:
        """One pass over the shuffled training images; `epoch` counts from 1 and decides the order.

        Raises TrainingError, which names the step, when a loss is not finite or a worker dies.
        """
        size, began = len(self.dataset.train), time.perf_counter()
        self.device.load(generator(self.seed, SHUFFLE, epoch).permutation(size), out=self.engine.arrays["order"])
        loss, correct, done = 0.0, 0, 0
        for index, start in enumerate(range(0, size, self.batch_size)):
            rows, step = min(self.batch_size, size - start), (epoch - 1) * self.steps + index
            self.engine.train(start, rows, step)
            batch_loss, hits = (float(value) for value in self.device.to_host(self.engine.arrays["metrics"]).sum(0))
            if not isfinite(batch_loss):
                raise TrainingError(
                    f"the loss is {batch_loss} at step {step + 1} (epoch {epoch}, batch {index + 1} of {self.steps}): "
                    "training has diverged; try a smaller learning rate or a higher temperature"
                )
            loss, correct, done = loss + batch_loss * rows, correct + int(hits), done + rows
            if on_step is not None:
                on_step(index + 1, self.steps, loss / done, correct / done)
        return EpochResult(loss / size, correct / size, time.perf_counter() - began)

    def predict(self, split: str = "test") -> np.ndarray:
        """The network's logits for all images of "train" or "test", in their order: (N, classes), without noise."""
        rows = len({"train": self.dataset.train, "test": self.dataset.test}[split])
        self.engine.predict(split, 0, rows)
        return self.device.to_host(self.engine.arrays["logits"][:rows])

    def close(self) -> None:
        """End the workers; the network keeps the trained parameters."""
        network = self.network
        network.attach(*(array.copy() for array in (network.parameters, network.gradients, network.state)))
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
