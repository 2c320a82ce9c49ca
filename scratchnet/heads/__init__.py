"""Heads: what follows a network's outputs in training, a file each, and the table by which a user chooses one."""

from scratchnet.heads.cross_entropy import AnnealedTemperature, GumbelSoftmaxCrossEntropy, SoftmaxCrossEntropy
from scratchnet.heads.head import Head

HEADS: dict[str, type[Head]] = {head.name: head for head in (SoftmaxCrossEntropy, GumbelSoftmaxCrossEntropy)}

__all__ = ["HEADS", "AnnealedTemperature", "GumbelSoftmaxCrossEntropy", "Head", "SoftmaxCrossEntropy"]
