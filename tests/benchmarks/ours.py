"""Our training step, as train_cifar.py makes it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import numpy as np

from scratchnet import Adam, SoftmaxCrossEntropy
from scratchnet.data import Dataset, Split
from scratchnet.training import Trainer
from tests.benchmarks.setting import BATCHES, CLASSES, IMAGE_SHAPE, Setting


def trainer(setting: Setting) -> Trainer:
    """A trainer over the setting's images, in a shuffled order."""
    images, labels = setting.images()
    names = tuple(map(str, range(CLASSES)))
    dataset = Dataset("random", Split(images, labels), Split(images[:1], labels[:1]), names, (), np.empty(0, np.int64))
    network = setting.network()
    network.build(IMAGE_SHAPE)
    made = Trainer(
        network, SoftmaxCrossEntropy(), Adam(), dataset, batch_size=setting.batch_size, workers=setting.workers
    )
    made.engine.arrays["order"][...] = np.random.default_rng(0).permutation(len(labels))
    return made


@contextmanager
def training_step(setting: Setting) -> Iterator[Callable[[], None]]:
    """A function that makes one step, from gathering uint8 images to the updated parameters."""
    with trainer(setting) as training:
        steps = count()

        def step() -> None:
            index = next(steps)
            training.engine.train(index % BATCHES * setting.batch_size, setting.batch_size, index)

        yield step
