"""The trainer: epochs of shuffled batches over a data set, by one replica in this process or by worker processes."""

import time
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any, Self

import numpy as np
from joblib import cpu_count

from scratchnet import arguments
from scratchnet.backend import in_session
from scratchnet.backend.noise import SHUFFLE, generator
from scratchnet.data import Dataset, Split
from scratchnet.errors import TrainingError
from scratchnet.heads import Head
from scratchnet.layers.flow import Network
from scratchnet.optimizers import Optimizer
from scratchnet.schedules import rate_at
from scratchnet.training.arrays import arrays_for, split_in
from scratchnet.training.diagnosis import Watch, first_of_prediction, first_of_step
from scratchnet.training.replica import LocalReplica, TrainingSpec, attach
from scratchnet.training.workers import Workers

LOOK = 50  # steps from one look at all that lasts to the next; on a GPU, also at the loss

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

    epoch: int = 1
    steps: int = 0
    loss: float = 0.0
    correct: int = 0
    seconds: float = 0.0


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
        self.seed = arguments.seed(seed, "trainer")
        self.splits = _splits_that_fit(network, head, optimizer, dataset, self.seed)
        self.network, self.head, self.optimizer, self.dataset = network, head, optimizer, dataset
        self.device, size = network.device, len(dataset.train)
        on_cpu = self.device.name == "cpu"
        if not on_cpu and workers not in (None, 1):
            raise ValueError(f"trainer: workers share the work of a CPU; device {self.device.name!r} takes one")
        if workers is None:
            workers = cpu_count(only_physical_cores=True) if on_cpu else 1
        self.batch_size = min(arguments.positive_integer(batch_size, "batch_size", "trainer"), size)
        smallest = size % self.batch_size or self.batch_size
        self.workers = workers = min(arguments.positive_integer(workers, "workers", "trainer"), smallest)
        self.steps, self.progress = -(-size // self.batch_size), Progress()  # steps of an epoch
        self.earlier = 0  # steps on other data, beyond what `done` counts
        arrays = arrays_for(network, head, optimizer, self.splits, workers)
        spec = TrainingSpec(network.unbuilt(), network.input_shape, head.unbuilt(), optimizer, self.device, workers)
        self.engine: Workers | LocalReplica = (Workers if workers > 1 else LocalReplica)(spec, arrays)
        own = self.device.zeros(arrays["parameters"].size, network.dtype)  # as only replicas may touch their gradients
        attach(network, head, arrays["parameters"], own, arrays["moving"])
        if on_cpu:  # let go of images that the caller may no longer need
            self.splits = {name: split_in(arrays, name) for name in self.splits}
            self.dataset = replace(dataset, **self.splits)  # type: ignore[arg-type]
        self._lasting = "parameters", "moving", *optimizer.slots
        self._watch = Watch(self.device, [arrays[name] for name in (*self._lasting, "metrics")])
        self.is_open = True

    @property
    def done(self) -> int:
        """Steps, of all epochs."""
        return (self.progress.epoch - 1) * self.steps + self.progress.steps

    def fit(self, epochs: int, on_epoch: OnEpoch | None = None, on_step: OnStep | None = None) -> list[dict[str, Any]]:
        """Train so many epochs more; returns a record of each, which `on_epoch` is given when the epoch is done.

        A record has the epoch's number, its loss, accuracy and seconds, the learning rate of its last step, and where
        there is a validation split, `val_loss` and `val_accuracy`. Raises as train_epoch does.
        """
        records, first = [], self.done // self.steps + 1
        for epoch in range(first, first + arguments.positive_integer(epochs, "epochs", "trainer")):
            record = {"epoch": epoch} | asdict(self.train_epoch(epoch, on_step))
            record["learning_rate"] = self._rate(self.done - 1)
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
        arguments.positive_integer(epoch, "epoch", "trainer")
        if self.progress.epoch != epoch:
            self.progress = Progress(epoch)
        progress, metrics, size = self.progress, self.engine.arrays["metrics"], len(self.dataset.train)
        began, first = time.perf_counter() - progress.seconds, self.done
        metrics.fill(0)
        self.device.load(generator(self.seed, SHUFFLE, epoch).permutation(size), out=self.engine.arrays["order"])
        for step in range(first, epoch * self.steps):
            done = step % self.steps + 1  # in this epoch, when the step is
            if step == first or (done - 1) % LOOK == 0:
                self._watch.keep(step)
            self._step(step)
            look = done % LOOK == 0 or done == self.steps
            if self.device.name != "cpu" and not look:
                continue
            loss, correct = self.device.to_host(metrics).sum(0).tolist()
            if look or not isfinite(loss):
                self._look(step)
            metrics.fill(0)
            progress.steps, progress.seconds = done, time.perf_counter() - began
            progress.loss, progress.correct = progress.loss + loss, progress.correct + int(correct)
            if on_step is not None:
                images = min(done * self.batch_size, size)
                on_step(done, self.steps, progress.loss / images, progress.correct / images)
        self.progress = Progress(epoch + 1)
        return EpochResult(progress.loss / size, progress.correct / size, progress.seconds)

    def _rows(self, step: int) -> slice:
        """The place in the epoch's order of the images of a step."""
        start = step % self.steps * self.batch_size
        return slice(start, min(start + self.batch_size, len(self.dataset.train)))

    def _step(self, step: int) -> None:
        rows = self._rows(step)
        self.engine.train(rows.start, rows.stop - rows.start, self.earlier + step)

    def _rate(self, step: int) -> float:
        return rate_at(self.optimizer.learning_rate, self.earlier + step, self.optimizer.name)

    def _look(self, last: int) -> None:
        """Raise TrainingError if anything became non-finite since the last look; `last` is the newest step.

        The step that did it is undone.
        """
        if self._watch.all_finite():
            return
        step, train = self._watch.find(self._step, last), self.dataset.train
        after = copy(self.network)
        self._watch.put_back()
        rows = self.device.to_host(self.engine.arrays["order"])[self._rows(step)]
        images, labels = train.images[rows], train.labels[rows]
        what = first_of_step(self.network, after, self.head, images, labels, self.earlier + step)
        epoch, advice = self.progress.epoch, self._advice()
        self.progress = Progress(epoch)
        raise TrainingError(
            f"training diverged at step {step + 1} (epoch {epoch}, batch {step % self.steps + 1} of {self.steps}): "
            f"{what}; {advice}"
        )

    def _advice(self) -> str:
        higher = " or a higher temperature" if self.head.draws_noise else ""
        return f"try a smaller learning rate than {self._rate(max(self.done - 1, 0)):g}{higher}"

    @in_session
    def state(self) -> dict[str, np.ndarray]:
        """Copies of the vectors that, with `progress`, decide how the training goes on; raises as train_epoch does."""
        if self.progress.steps:
            self._look(self.done - 1)
        return {name: self.device.to_host(self.engine.arrays[name]) for name in self._lasting}

    def restore(self, state: Mapping[str, np.ndarray], progress: Progress, steps: int | None = None) -> None:
        """Go on where another trainer of the same training had this state and progress, with the same bits.

        Where its data set was another, of another size, `steps` are those that it had done.
        """
        for name in self._lasting:
            self.device.load(state[name], out=self.engine.arrays[name])
        self.progress = progress
        self.earlier = 0 if steps is None else steps - self.done

    @in_session
    def predict(self, split: str = "test") -> np.ndarray:
        """The scores of all classes (logits) for all images of a split, in their order: (N, classes), without noise.

        Raises TrainingError where they are not finite.
        """
        self._needs_open()
        arguments.one_of(split, tuple(self.splits), "split", "trainer")
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


def _splits_that_fit(
    network: Network, head: Head, optimizer: Optimizer, dataset: Dataset, seed: int
) -> dict[str, Split]:
    """The splits of the data set, if all of this makes a training; builds the head, unless it is."""
    for given, kind in (network, Network), (head, Head), (optimizer, Optimizer), (dataset, Dataset):
        if not isinstance(given, kind):
            raise TypeError(f"trainer: a {type(given).__name__} is given where a {kind.__name__} is wanted")
    given_splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    splits = {name: split for name, split in given_splits.items() if split is not None}
    if not all(map(len, splits.values())):
        counts = (f"{len(split)} {name}{'ing' * (name == 'train')}" for name, split in splits.items())
        raise ValueError(f"trainer: {dataset.name} has {' and '.join(counts)} images, where each split needs some")
    if not network.built or len(network.output_shape) != 1:
        raise ValueError(f"{network.name}: training needs a built network that ends in one logit a class")
    head.build_for(network.output_shape, network.dtype, network.device, seed)
    for split in splits.values():
        if network.input_shape != split.images.shape[1:] or head.classes < dataset.num_classes:
            raise ValueError(
                f"{network.name}: the network takes {network.input_shape} and has {network.output_shape[0]} outputs, "
                f"where {dataset.name} has images of {split.images.shape[1:]} and {dataset.num_classes} classes"
            )
        head.check_labels(split.labels, f"labels of {dataset.name}")
    return splits
