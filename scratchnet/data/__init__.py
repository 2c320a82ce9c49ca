"""CIFAR-100 and, where it cannot be had, scikit-learn's digits."""

from scratchnet.data.dataset import Dataset, Split
from scratchnet.data.load import load_dataset

__all__ = ["Dataset", "Split", "load_dataset"]
