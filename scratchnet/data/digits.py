"""The stand-in for CIFAR-100 that needs no network: scikit-learn's bundled handwritten digits."""

import numpy as np

from scratchnet.data.dataset import Dataset

ENLARGEMENT = 4


def load_digits() -> Dataset:
    """scikit-learn's 1,797 digits, 8x8 with values 0..16, as grey 32x32x3 images with values 0..255.

    Every fifth sample of each class, in scikit-learn's order, is a test sample.
    """
    from sklearn import datasets  # type: ignore[import-untyped,unused-ignore]

    digits = datasets.load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    grey = grey.repeat(ENLARGEMENT, axis=1).repeat(ENLARGEMENT, axis=2)
    images, labels = np.repeat(grey[..., np.newaxis], 3, axis=-1), digits.target

    # Not every fifth sample of all: the writers wrote 0 to 9 in turn, so that would favour two of the ten digits.
    test = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        test[np.flatnonzero(labels == digit)[4::5]] = True
    return Dataset.from_arrays(images[~test], labels[~test], test=(images[test], labels[test]), name="digits")
