"""Real classes, many of them: two images of CIFAR-100 side by side are one of 100 x 100 = 10,000 balanced classes."""

import numpy as np

from scratchnet.backend.noise import generator
from scratchnet.data import Dataset, Split

STREAM = 2**33  # of the noise, apart from all that the library draws


def pairs(dataset: Dataset, per_class: int = 10, seed: int = 0) -> Dataset:
    """Images (H, 2 W, C) of class 100 left + right; each class `per_class` times in training and once in the test.

    Drawn by the counter-based generator, so that every class and, on either side, every image comes equally often. The
    superclasses are the left classes. ValueError where the images of a class cannot be dealt out evenly.
    """
    number = dataset.num_classes
    train, test = (_pairs(dataset, name, each, seed) for name, each in (("train", per_class), ("test", 1)))
    names = tuple(f"{left} {right}" for left in dataset.class_names for right in dataset.class_names)
    superclasses = np.repeat(np.arange(number), number)
    return Dataset(f"{dataset.name}-pairs", train, test, names, dataset.class_names, superclasses)


def _pairs(dataset: Dataset, name: str, per_class: int, seed: int) -> Split:
    split, classes = getattr(dataset, name), dataset.num_classes
    draw = generator(seed, STREAM, step=("train", "test").index(name))
    # chosen[0][i, j, r] and chosen[1][i, j, r] are the left and the right image of the pair r of class (i, j)
    chosen = np.empty((2, classes, classes, per_class), np.int64)
    for dealt in (chosen[0], chosen[1].swapaxes(0, 1)):
        for own in range(classes):
            images = np.flatnonzero(split.labels == own)
            times, rest = divmod(classes * per_class, len(images))
            if rest or not times:
                raise ValueError(
                    f"pairs: the {len(images)} {name} images of class {own} do not go evenly into {classes} x "
                    f"{per_class} pairs on a side: choose another number of pairs a class"
                )
            dealt[own] = np.concatenate([draw.permutation(images) for _ in range(times)]).reshape(dealt[own].shape)
    left, right = chosen.reshape(2, -1)
    planes = split.images.transpose(0, 3, 1, 2)  # channels first, as the trainer keeps them
    images = np.concatenate([planes[left], planes[right]], axis=3).transpose(0, 2, 3, 1)
    return Split(images, np.repeat(np.arange(classes**2), per_class))
