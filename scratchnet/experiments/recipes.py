"""The networks and settings of the two reports, as data: lay a report's listing beside its recipe, line by line."""

from collections.abc import Callable
from dataclasses import dataclass

from scratchnet import Sequential
from scratchnet.experiments.published import PUBLISHED, Report
from scratchnet.layers import Conv2D, Dense, Flatten, Layer, MaxPooling2D, ReLU

LEARNING_RATE = 1e-3  # of Adam, in both reports: the default of Keras
EPOCHS = 10  # of a head that no report trained


@dataclass(frozen=True)
class Recipe:
    """One report's network and training settings; `reports` holds its published figures by head, where it has any.

    Both reports divide pixels by 255, augment nothing, start from Glorot-uniform kernels and zero biases and
    optimize with Adam. `temperature` is that of the Gumbel-softmax head. A head without a report can be trained too.
    """

    name: str
    layers: Callable[[int], list[Layer]]
    batch_size: int
    temperature: float
    reports: dict[str, Report]

    def network(self, outputs: int | None) -> Sequential:
        """The network, not yet built, for images of shape (32, 32, 3); with None, without its last layer."""
        return Sequential(self.layers(1)[:-1] if outputs is None else self.layers(outputs))


def _same_padding(num_classes: int) -> list[Layer]:
    return [
        Conv2D(32, 3, padding="same"), ReLU(), MaxPooling2D(2),
        Conv2D(64, 3, padding="same"), ReLU(), MaxPooling2D(2),
        Conv2D(128, 3, padding="same"), ReLU(), MaxPooling2D(2),
        Flatten(),
        Dense(256), ReLU(),
        Dense(num_classes),
    ]  # fmt: skip


def _valid_padding(num_classes: int) -> list[Layer]:
    return [
        Conv2D(30, 3, padding="valid"), ReLU(), MaxPooling2D(2),
        Conv2D(70, 3, padding="valid"), ReLU(), MaxPooling2D(2),
        Conv2D(160, 3, padding="valid"), ReLU(),
        Flatten(),
        Dense(64), ReLU(),
        Dense(num_classes),
    ]  # fmt: skip


_ALL = (
    Recipe("same-padding", _same_padding, batch_size=64, temperature=0.5, reports=PUBLISHED["same-padding"]),
    Recipe("valid-padding", _valid_padding, batch_size=32, temperature=1.0, reports=PUBLISHED["valid-padding"]),
)
RECIPES = {recipe.name: recipe for recipe in _ALL}
