"""The trainer: epochs of shuffled batches over a data set, by one replica in this process or by worker processes."""

import time
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any, Self

import numpy as np
from joblib import cpu_count
from threadpoolctl import threadpool_limits

from scratchnet import arguments
from scratchnet.arguments import one_of, positive_integer
from scratchnet.backend import Array, Device, in_session
from scratchnet.backend.noise import SHUFFLE, generator
from scratchnet.data import Dataset, Split
from scratchnet.errors import TrainingError
from scratchnet.heads import Head
from scratchnet.layers.flow import Network
from scratchnet.optimizers import Optimizer
from scratchnet.schedules import rate_at
from scratchnet.training.diagnosis import first_of_prediction, first_of_step
from scratchnet.training.replica import Replica, TrainingSpec, attach
from scratchnet.training.workers import Layout, Workers

LOOK = 50  # steps from one look at all that lasts to the next; on a GPU, also at the loss
EXCHANGE = 4096  # numbers that replicas sum at once

OnStep = Callable[[int, int, float, float], None]  # step, steps in the epoch, mean loss and accuracy so far
OnEpoch = Callable[[dict[str, Any]], None]


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

    def __init__(self, spec: TrainingSpec, layout: Layout, device: Device) -> None:
        self.arrays = {name: device.zeros(shape, dtype) for name, (shape, dtype) in layout.items()}
        self.limits = threadpool_limits(1)
        try:
            self.replica = Replica(spec, self.arrays, device)
        except BaseException:
            self.close()
            raise
        self.train, self.predict = self.replica.train, self.replica.predict

    def close(self) -> None:
        self.limits.restore_original_limits()


class Trainer:
    """Trains a built network; `with Trainer(...) as trainer: trainer.fit(epochs=10)`.

    While it is open, the parameters of the network (and of the head, if it has any) are those being trained. Batches
    are `batch_size` images, the last one of an epoch what is left; the images are shuffled anew in every epoch. The
    results are a function of the seed and the number of `workers` (default: the physical cores), of whom there are
    never more than images in the smallest batch. `dataset` then has its images in the memory that the workers share.
    Raises ValueError where network and data set do not fit together.
    """

    def __init__(
        self,
        network: Network,
        head: Head,
        optimizer: Optimizer,
        dataset: Dataset,
        *,
        batch_size: int,
        seed: int = 0,
        workers: int | None = None,
    ) -> None:
        self.is_open = False
        wanted = (network, Network), (head, Head), (optimizer, Optimizer), (dataset, Dataset)
        for given, kind in wanted:
            if not isinstance(given, kind):
                raise TypeError(f"trainer: a {type(given).__name__} is given where a {kind.__name__} is wanted")
        if network.built and network.device.name != "cpu":
            if workers not in (None, 1):
                raise ValueError(f"trainer: workers share the work of a CPU; device {network.device.name!r} takes one")
            workers = 1
        workers = cpu_count(only_physical_cores=True) if workers is None else workers
        self.seed, size = arguments.seed(seed, "trainer"), len(dataset.train)
        given_splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
        self.splits = {name: split for name, split in given_splits.items() if split is not None}
        if not all(map(len, self.splits.values())):
            counts = (f"{len(split)} {name}{'ing' * (name == 'train')}" for name, split in self.splits.items())
            raise ValueError(f"trainer: {dataset.name} has {' and '.join(counts)} images, where each split needs some")
        self.batch_size = min(positive_integer(batch_size, "batch_size", "trainer"), size)
        self.workers = min(positive_integer(workers, "workers", "trainer"), size % self.batch_size or self.batch_size)
        if not network.built or len(network.output_shape) != 1:
            raise ValueError(f"{network.name}: training needs a built network that ends in one logit a class")
        if not head.built or (head.device, head.dtype, head.input_shape) != (
            network.device, network.dtype, network.output_shape
        ):  # fmt: skip
            head.build(network.output_shape, network.dtype, network.device, seed)
        for split in self.splits.values():
            if network.input_shape != split.images.shape[1:] or head.classes < dataset.num_classes:
                raise ValueError(
                    f"{network.name}: the network takes {network.input_shape} and has {network.output_shape[0]} "
                    f"outputs, where {dataset.name} has images of {split.images.shape[1:]} and {dataset.num_classes} "
                    "classes"
                )
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= head.classes:
                raise ValueError(
                    f"labels of {dataset.name} go from {low} to {high} where the network has {head.classes} outputs"
                )
        self.network, self.head, self.dataset, self.device = network, head, dataset, network.device
        self.steps, self.progress = -(-size // self.batch_size), Progress()
        self.done = 0  # steps, of all epochs
        self._lasting = "parameters", "moving", *optimizer.slots
        self.optimizer = optimizer
        spec = TrainingSpec(
            network.unbuilt(), network.input_shape, head.unbuilt(), optimizer, self.batch_size, self.workers
        )
        self.engine: Workers | LocalReplica = (
            LocalReplica(spec, self._layout(), self.device) if self.workers == 1 else Workers(spec, self._layout())
        )
        try:
            self._load()
        except BaseException:
            self.engine.close()
            raise
        self.is_open = True

    def _layout(self) -> Layout:
        network, head, dtype = self.network, self.head, str(self.network.dtype)
        size, _, moving = (sum(pair) for pair in zip(network.sizes, head.sizes, strict=True))
        layout: Layout = {name: ((size,), dtype) for name in ("parameters", *self.optimizer.slots)}
        for name, split in self.splits.items():
            stored = _stored(split.images)
            layout[f"{name} images"] = stored.shape, "uint8" if stored.dtype == np.uint8 else dtype
            layout[f"{name} labels"] = (len(split),), "int64"
        return layout | {
            "gradients": ((self.workers, size), dtype),
            "moving": ((moving,), dtype),
            "order": ((len(self.dataset.train),), "int64"),
            "scores": ((max(map(len, self.splits.values())), head.classes), dtype),
            "metrics": ((self.workers, 2), "float64"),
            "exchange": ((self.workers, EXCHANGE), dtype),
        }

    def _load(self) -> None:
        arrays, network, head, load = self.engine.arrays, self.network, self.head, self.device.load
        for name, split in self.splits.items():
            images = _stored(split.images)
            load(images if images.dtype == np.uint8 else images.astype(network.dtype), out=arrays[f"{name} images"])
            load(split.labels, out=arrays[f"{name} labels"])
        for name, place in (("parameters", 0), ("moving", 2)):
            ours, heads = network.flat[place], head.flat[place]
            arrays[name][: ours.size], arrays[name][ours.size :] = ours, heads
        attach(network, head, arrays["parameters"], arrays["gradients"][0], arrays["moving"])
        if self.device.name == "cpu":  # let go of images that the caller may no longer need
            for name in self.splits:
                images = arrays[f"{name} images"]
                images = images.transpose(0, 2, 3, 1) if images.ndim == 4 else images
                self.splits[name] = Split(images, arrays[f"{name} labels"])
            self.dataset = replace(self.dataset, **self.splits)  # type: ignore[arg-type]

    def fit(self, epochs: int, on_epoch: OnEpoch | None = None, on_step: OnStep | None = None) -> list[dict[str, Any]]:
        """Train so many epochs more; returns a record of each, which `on_epoch` is given when the epoch is done.

        A record has the epoch's number, its loss, accuracy and seconds, the learning rate of its last step, and where
        there is a validation split, `val_loss` and `val_accuracy`. Raises as train_epoch does.
        """
        records, first = [], self.done // self.steps + 1
        for epoch in range(first, first + positive_integer(epochs, "epochs", "trainer")):
            record = {"epoch": epoch} | asdict(self.train_epoch(epoch, on_step))
            record["learning_rate"] = rate_at(self.optimizer.learning_rate, self.done - 1, self.optimizer.name)
            if "validation" in self.splits:
                record |= {f"val_{name}": value for name, value in self.evaluate("validation").items()}
            records.append(record)
            if on_epoch is not None:
                on_epoch(record)
        return records

    def evaluate(self, split: str = "test") -> dict[str, float]:
        """The loss without noise (cross-entropy of the class probabilities, nats) and the accuracy on a split."""
        scores = self.predict(split).astype(np.float64)
        labels = self.splits[split].labels
        of_label = self.head.log_probabilities(scores)[np.arange(len(labels)), labels]
        return {"loss": float(-of_label.mean()), "accuracy": float((scores.argmax(1) == labels).mean())}

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
        """Raise TrainingError if anything became non-finite since the last look; `last` is the newest step's first row.

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
        what = first_of_step(self.network, after, self.head, train.images[rows], train.labels[rows], step)
        raise TrainingError(
            f"training diverged at step {step + 1} (epoch {epoch}, batch {start // size + 1} of {self.steps}): {what}; "
            + self._advice()
        )

    def _advice(self) -> str:
        rate = rate_at(self.optimizer.learning_rate, max(self.done - 1, 0), self.optimizer.name)
        higher = " or a higher temperature" if self.head.draws_noise else ""
        return f"try a smaller learning rate than {rate:g}{higher}"

    def state(self) -> dict[str, np.ndarray]:
        """Copies of the vectors that, with `progress`, decide how the training goes on; raises as train_epoch does."""
        if self.progress.steps:
            self._look((self.progress.steps - 1) * self.batch_size)
        return {name: self.device.to_host(self.engine.arrays[name]) for name in self._lasting}

    def restore(self, state: Mapping[str, np.ndarray], progress: Progress) -> None:
        """Go on where another trainer of the same training had this state and progress, with the same bits."""
        for name in self._lasting:
            self.device.load(state[name], out=self.engine.arrays[name])
        self.progress, self.done = progress, max(progress.epoch - 1, 0) * self.steps + progress.steps

    @in_session
    def predict(self, split: str = "test") -> np.ndarray:
        """The scores of all classes (logits) for all images of a split, in their order: (N, classes), without noise.

        Raises TrainingError where they are not finite.
        """
        self._needs_open()
        one_of(split, tuple(self.splits), "split", "trainer")
        images = self.splits[split].images
        self.engine.predict(split, 0, len(images))
        scores = self.device.to_host(self.engine.arrays["scores"][: len(images)])
        bad = np.flatnonzero(~np.isfinite(scores).all(1))[:1]
        if bad.size:
            what = first_of_prediction(self.network, images[bad])
            raise TrainingError(
                f"training has diverged after step {self.done}: the logits of {split} image {bad[0]} are not finite, "
                f"and {what}; {self._advice()}"
            )
        return scores

    def close(self) -> None:
        """End the workers; the network keeps the trained parameters."""
        if not self.is_open:
            return
        self.is_open = False
        for module in (self.network, self.head):
            module.attach(*(array.copy() for array in module.flat))
        self.engine.close()

    def _needs_open(self) -> None:
        if not self.is_open:
            raise RuntimeError("trainer: it is closed; make a new one, which goes on from the network's parameters")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _stored(images: np.ndarray) -> np.ndarray:
    """Images (N, H, W, C) as (N, C, H, W), as CIFAR-100 has them; anything else as it is."""
    return images.transpose(0, 3, 1, 2) if images.ndim == 4 else images
