"""Training: a replica computes its share of each batch, workers are replicas in processes, the trainer drives them."""

from scratchnet.training.trainer import EpochResult, Progress, Trainer

__all__ = ["EpochResult", "Progress", "Trainer"]
