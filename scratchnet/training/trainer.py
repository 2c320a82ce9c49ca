"""The trainer: epochs of shuffled batches over a data set, by one replica in this process or by worker processes."""

import time
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from math import isfinite, prod
from typing import Self

import numpy as np
from joblib import cpu_count
from threadpoolctl import threadpool_limits

from scratchnet import arguments
from scratchnet.arguments import one_of, positive_integer
from scratchnet.backend import Array, Device, in_session
from scratchnet.backend.noise import SHUFFLE, generator
from scratchnet.data import Dataset, Split
from scratchnet.errors import TrainingError
from scratchnet.heads import SoftmaxCrossEntropy
from scratchnet.network import Sequential
from scratchnet.optimizers import Optimizer
from scratchnet.training.diagnosis import first_of_prediction, first_of_step
from scratchnet.training.replica import Job, Replica
from scratchnet.training.workers import Layout, Workers

LOOK = 50  # steps from one look at all that lasts to the next; on a GPU, also at the loss

OnStep = Callable[[int, int, float, float], None]  # step, steps in the epoch, mean loss and accuracy so far


@dataclass(frozen=True)
class EpochResult:
    """Mean loss and accuracy over an epoch's batches, as they were trained on, and the seconds it took."""

    loss: float
    accuracy: float
    seconds: float


@dataclass
class Progress:
    """How far an epoch is: steps done, sums of the loss and of the correct answers over their images, seconds."""

    epoch: int = 0
    steps: int = 0
    loss: float = 0.0
    correct: int = 0
    seconds: float = 0.0


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
        self.is_open = False
        wanted = (network, Sequential), (head, SoftmaxCrossEntropy), (optimizer, Optimizer), (dataset, Dataset)
        for given, kind in wanted:
            if not isinstance(given, kind):
                raise TypeError(f"trainer: a {type(given).__name__} is given where a {kind.__name__} is wanted")
        if network.built and network.device.name != "cpu":
            if workers not in (None, 1):
                raise ValueError(f"trainer: workers share the work of a CPU; device {network.device.name!r} takes one")
            workers = 1
        workers = cpu_count(only_physical_cores=True) if workers is None else workers
        size = len(dataset.train)
        if not size or not len(dataset.test):
            raise ValueError(
                f"trainer: {dataset.name} has {size} training and {len(dataset.test)} test images, where both need some"
            )
        self.batch_size = min(positive_integer(batch_size, "batch_size", "trainer"), size)
        self.workers = min(positive_integer(workers, "workers", "trainer"), size % self.batch_size or self.batch_size)
        if not network.built or len(network.output_shape) != 1:
            raise ValueError(f"{network.name}: training needs a built network that ends in one logit a class")
        for split in (dataset.train, dataset.test):
            if network.input_shape != split.images.shape[1:] or network.output_shape[0] < dataset.num_classes:
                raise ValueError(
                    f"{network.name}: the network takes {network.input_shape} and has {network.output_shape[0]} "
                    f"outputs, where {dataset.name} has images of {split.images.shape[1:]} and {dataset.num_classes} "
                    "classes"
                )
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= network.output_shape[0]:
                raise ValueError(
                    f"labels of {dataset.name} go from {low} to {high} where the network has "
                    f"{network.output_shape[0]} outputs"
                )
        self.network, self.dataset, self.device = network, dataset, network.device
        self.seed = arguments.seed(seed, "trainer")
        self.steps, self.progress = -(-size // self.batch_size), Progress()
        self.done = 0  # steps, of all epochs
        self._lasting = "parameters", "state", *optimizer.slots
        self.job = job = Job(network.unbuilt(), network.input_shape, head, optimizer, self.batch_size, self.workers)
        layout = self._layout(optimizer)
        self.engine: Workers | LocalReplica = (
            LocalReplica(job, layout, self.device) if self.workers == 1 else Workers(job, layout)
        )
        self._load()
        self.is_open = True

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

    @in_session
    def train_epoch(self, epoch: int, on_step: OnStep | None = None) -> EpochResult:
        """One pass over the shuffled training images, or the rest of one that stopped after a step or was restored.

        `epoch` counts from 1, and decides the order of the images and what the noise and the optimizer take as step.
        Raises TrainingError when a worker dies; and when a loss, a gradient or a parameter is not finite: it names the
        step and the layer, and the parameters are again as that step found them. On a GPU, where a look at the loss is
        a wait, that and `on_step` come after every 50th step and the last.
        """
        self._needs_open()
        positive_integer(epoch, "epoch", "trainer")
        if self.progress.epoch != epoch:
            self.progress = Progress(epoch)
        progress, size = self.progress, len(self.dataset.train)
        began = time.perf_counter() - progress.seconds
        metrics, every = self.engine.arrays["metrics"], 1 if self.device.name == "cpu" else LOOK
        metrics.fill(0)
        self.device.load(generator(self.seed, SHUFFLE, epoch).permutation(size), out=self.engine.arrays["order"])
        first = progress.steps * self.batch_size
        for start in range(first, size, self.batch_size):
            rows, index = min(self.batch_size, size - start), start // self.batch_size
            if start == first or index % LOOK == 0:
                self._kept = epoch, start, self._copies()
            self.engine.train(start, rows, (epoch - 1) * self.steps + index)
            last = index + 1 == self.steps
            if (index + 1) % every and not last:
                continue
            loss, correct = (float(value) for value in self.device.to_host(metrics).sum(0))
            if not isfinite(loss) or (index + 1) % LOOK == 0 or last:
                self._look(start)
            metrics.fill(0)
            progress.steps, progress.seconds = index + 1, time.perf_counter() - began
            self.done = (epoch - 1) * self.steps + index + 1
            progress.loss, progress.correct = progress.loss + loss, progress.correct + int(correct)
            if on_step is not None:
                done = start + rows
                on_step(progress.steps, self.steps, progress.loss / done, progress.correct / done)
        self.progress = Progress()
        return EpochResult(progress.loss / size, progress.correct / size, progress.seconds)

    def _copies(self) -> dict[str, Array]:
        return {name: self.engine.arrays[name].copy() for name in self._lasting}

    def _put_back(self, copies: dict[str, Array]) -> None:
        for name, array in copies.items():
            self.engine.arrays[name][...] = array

    def _all_finite(self) -> bool:
        arrays = (self.engine.arrays[name] for name in (*self._lasting, "metrics"))
        with np.errstate(all="ignore"):
            return all(isfinite(float(self.device.xp.sum(array, dtype=np.float64))) for array in arrays)

    def _look(self, last: int) -> None:
        """Raise TrainingError if a step since the last look, the latest at image `last`, left anything not finite.

        An overflowing gradient stays in Adam's moments, so that a look now and then finds it. To find the step, go
        back to what was kept and on again, one step at a time; then undo that step.
        """
        if self._all_finite():
            return
        arrays, train, size = self.engine.arrays, self.dataset.train, self.batch_size
        epoch, first, kept = self._kept
        self._put_back(kept)
        for start in range(first, last + 1, size):
            kept, step = self._copies(), (epoch - 1) * self.steps + start // size
            arrays["metrics"].fill(0)
            self.engine.train(start, min(size, len(train) - start), step)
            if not self._all_finite():
                break
        after = copy(self.network)
        self._put_back(kept)
        self.progress = Progress()
        rows = self.device.to_host(arrays["order"])[start : start + size]
        what = first_of_step(self.network, after, self.job.head, train.images[rows], train.labels[rows], step)
        raise TrainingError(
            f"training diverged at step {step + 1} (epoch {epoch}, batch {start // size + 1} of {self.steps}): {what}; "
            + self._advice()
        )

    def _advice(self) -> str:
        rate, gumbel = self.job.optimizer.learning_rate, hasattr(self.job.head, "temperature")
        return f"try a smaller learning rate than {rate:g}" + (" or a higher temperature" if gumbel else "")

    def state(self) -> dict[str, np.ndarray]:
        """Copies of the vectors that, with `progress`, decide how the training goes on; raises as train_epoch does."""
        if self.progress.steps:
            self._look((self.progress.steps - 1) * self.batch_size)
        return {name: self.device.to_host(self.engine.arrays[name]) for name in self._lasting}

    def restore(self, state: Mapping[str, np.ndarray], progress: Progress) -> None:
        """Go on where another trainer of the same training had this state and progress, with the same bits."""
        for name in self._lasting:
            self.device.load(state[name], out=self.engine.arrays[name])
        self.progress = progress

    @in_session
    def predict(self, split: str = "test") -> np.ndarray:
        """The network's logits for all images of "train" or "test", in their order: (N, classes), without noise.

        Raises TrainingError where they are not finite.
        """
        self._needs_open()
        one_of(split, ("train", "test"), "split", "trainer")
        chosen = self.dataset.train if split == "train" else self.dataset.test
        self.engine.predict(split, 0, len(chosen))
        logits = self.device.to_host(self.engine.arrays["logits"][: len(chosen)])
        bad = np.flatnonzero(~np.isfinite(logits).all(1))[:1]
        if bad.size:
            what = first_of_prediction(self.network, chosen.images[bad])
            raise TrainingError(
                f"training has diverged after step {self.done}: the logits of {split} image {bad[0]} are not finite, "
                f"and {what}; {self._advice()}"
            )
        return logits

    def close(self) -> None:
        """End the workers; the network keeps the trained parameters."""
        if not self.is_open:
            return
        self.is_open = False
        network = self.network
        network.attach(*(array.copy() for array in (network.parameters, network.gradients, network.state)))
        self.engine.close()

    def _needs_open(self) -> None:
        if not self.is_open:
            raise RuntimeError("trainer: it is closed; make a new one, which goes on from the network's parameters")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
