"""Heads: what follows a network's outputs in training, a file each, and the table by which a user chooses one."""

from scratchnet.heads.cross_entropy import AnnealedTemperature, GumbelSoftmaxCrossEntropy, SoftmaxCrossEntropy
from scratchnet.heads.head import Head
from scratchnet.heads.sampled import SampledSoftmax
from scratchnet.heads.two_level import TwoLevelSoftmax

_ALL = SoftmaxCrossEntropy, GumbelSoftmaxCrossEntropy, TwoLevelSoftmax, SampledSoftmax
HEADS: dict[str, type[Head]] = {head.name: head for head in _ALL}

__all__ = [
    "HEADS", "AnnealedTemperature", "GumbelSoftmaxCrossEntropy", "Head", "SampledSoftmax", "SoftmaxCrossEntropy",
    "TwoLevelSoftmax",
]  # fmt: skip
