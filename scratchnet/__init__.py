"""Convolutional networks from scratch on NumPy and CuPy, with every backward pass written by hand."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import scratchnet.on_gpu  # noqa: F401 - a GPU's kernels, into their table
from scratchnet.gradcheck import NotDifferentiableError, check_gradients
from scratchnet.heads import (
    AnnealedTemperature,
    GumbelSoftmaxCrossEntropy,
    Head,
    SampledSoftmax,
    SoftmaxCrossEntropy,
    TwoLevelSoftmax,
)
from scratchnet.layers import *  # noqa: F403
from scratchnet.layers import __all__ as LAYERS
from scratchnet.optimizers import SGD, Adam, Optimizer
from scratchnet.schedules import CosineDecay, ExponentialDecay, PiecewiseConstantDecay

if TYPE_CHECKING:
    from scratchnet.classifier import NetworkClassifier
    from scratchnet.data import Dataset, Split, load_dataset
    from scratchnet.training import Trainer

__version__ = "0.1.0"

__all__ = [
    "SGD", "Adam", "AnnealedTemperature", "CosineDecay", "Dataset", "ExponentialDecay", "GumbelSoftmaxCrossEntropy",
    "Head", "NetworkClassifier", "NotDifferentiableError", "Optimizer", "PiecewiseConstantDecay", "SampledSoftmax",
    "SoftmaxCrossEntropy", "Split", "Trainer", "TwoLevelSoftmax", "check_gradients", "load_dataset", *LAYERS,
]  # fmt: skip

LATE = {"NetworkClassifier": "scratchnet.classifier", "Trainer": "scratchnet.training"}
LATE |= dict.fromkeys(("Dataset", "Split", "load_dataset"), "scratchnet.data")


def __getattr__(name: str) -> Any:
    if name in LATE:  # with what starts processes or downloads, which defining a network needs not
        return getattr(import_module(LATE[name]), name)
    raise AttributeError(f"module 'scratchnet' has no attribute {name!r}")
