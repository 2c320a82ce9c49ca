"""What is trained in a benchmark of steps: a recipe's network and random images, the same for every contender."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from scratchnet import Sequential
from scratchnet.backend import get_device
from scratchnet.experiments.recipes import RECIPES, REPORTED
from scratchnet.layers import Conv2D

IMAGE_SHAPE = 32, 32, 3
CLASSES = 100
BATCHES = 4  # every contender goes round these


@dataclass(frozen=True)
class Setting:
    """One training step: `workers` are our processes and the threads of the others; `channels` multiplies filters."""

    recipe: str
    batch_size: int
    workers: int
    channels: float = 1.0

    def network(self) -> Sequential:
        """The network with its shapes known, not yet with arrays."""
        network = RECIPES[self.recipe].network(CLASSES)
        for layer in network.layers:
            if isinstance(layer, Conv2D):
                layer.filters = round(layer.filters * self.channels)
        network.configure(IMAGE_SHAPE, "float32", get_device("cpu"))
        return network

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """All batches in one: uint8 (BATCHES * batch_size, 32, 32, 3), and int64 labels."""
        source, count = np.random.default_rng(0), BATCHES * self.batch_size
        images = source.integers(0, 256, (count, *IMAGE_SHAPE), dtype=np.uint8)
        return images, source.integers(0, CLASSES, count)

    def float_batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The batches one by one, as others are given them: float32 (batch_size, 32, 32, 3) from 0 to 1."""
        images, labels = self.images()
        for start in range(0, len(labels), self.batch_size):
            rows = slice(start, start + self.batch_size)
            yield images[rows].astype(np.float32) / 255, labels[rows]


def chosen_recipes(name: str | None) -> list[str]:
    return [name] if name else list(REPORTED)


def options(description: str, rounds: int | None = None) -> argparse.ArgumentParser:
    """The options that the benchmarks share."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument("--recipe", choices=RECIPES, help="default: one after the other")
    parser.add_argument("--workers", type=int, default=2, help="our processes, their threads (default: %(default)s)")
    if rounds is not None:
        text = "interleaved rounds (default: %(default)s; single rounds spread by 15-25 %%, so fewer mean little)"
        parser.add_argument("--rounds", type=int, default=rounds, help=text)
    return parser
