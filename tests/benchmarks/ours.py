"""Our training step, as train_cifar.py makes it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import numpy as np

from scratchnet import Adam, SoftmaxCrossEntropy
from scratchnet.data import Dataset, Split
from scratchnet.training import Trainer
from tests.benchmarks.setting import BATCHES, CLASSES, IMAGE_SHAPE, Setting


def random_images(setting: Setting) -> Dataset:
    images, labels = setting.images()
    names = tuple(map(str, range(CLASSES)))
    return Dataset("random", Split(images, labels), Split(images[:1], labels[:1]), names, (), np.empty(0, np.int64))


def trainer(setting: Setting, dataset: Dataset) -> Trainer:
    """A trainer whose order of the images is shuffled."""
    network = setting.network()
    network.build(IMAGE_SHAPE)
    made = Trainer(
        network, SoftmaxCrossEntropy(), Adam(), dataset, batch_size=setting.batch_size, workers=setting.workers
    )
    made.engine.arrays["order"][...] = np.random.default_rng(0).permutation(len(dataset.train))
    return made


@contextmanager
def training_step(setting: Setting) -> Iterator[Callable[[], None]]:
    """A function that makes one step, from gathering uint8 images to the updated parameters."""
    with trainer(setting, random_images(setting)) as training:
        steps = count()

        def step() -> None:
            index = next(steps)
            training.engine.train(index % BATCHES * setting.batch_size, setting.batch_size, index)

        yield step
