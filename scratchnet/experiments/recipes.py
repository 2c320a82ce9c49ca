"""Networks and settings as data: lay a report's listing beside its recipe, line by line."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from scratchnet import Sequential
from scratchnet.experiments.published import PUBLISHED, Report
from scratchnet.layers import (
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePooling1D,
    LayerNormalization,
    MaxPooling2D,
    MultiHeadAttention,
    PositionEmbedding,
    ReLU,
    Reshape,
    Residual,
)
from scratchnet.layers.module import Module

LEARNING_RATE = 1e-3  # of Adam, in both reports: the default of Keras
EPOCHS = 10  # of a head that no report trained


@dataclass(frozen=True)
class Recipe:
    """A network and training settings; `reports` holds published figures by head, where there are any.

    The reports divide pixels by 255, augment nothing, start from Glorot-uniform kernels and zero biases and optimize
    with Adam. `temperature` is that of the Gumbel-softmax head. A head without a report can be trained too.
    """

    name: str
    layers: Callable[[int, int], list[Module]]  # for so many outputs and this seed
    batch_size: int
    temperature: float
    reports: dict[str, Report] = field(default_factory=dict)

    def network(self, outputs: int | None, seed: int = 0) -> Sequential:
        """The network, not yet built, for images of shape (32, 32, 3); with None, without its last layer."""
        return Sequential(self.layers(1, seed)[:-1] if outputs is None else self.layers(outputs, seed))


def _same_padding(num_classes: int, seed: int) -> list[Module]:
    return [
        Conv2D(32, 3, padding="same"), ReLU(), MaxPooling2D(2),
        Conv2D(64, 3, padding="same"), ReLU(), MaxPooling2D(2),
        Conv2D(128, 3, padding="same"), ReLU(), MaxPooling2D(2),
        Flatten(),
        Dense(256), ReLU(),
        Dense(num_classes),
    ]  # fmt: skip


def _valid_padding(num_classes: int, seed: int) -> list[Module]:
    return [
        Conv2D(30, 3, padding="valid"), ReLU(), MaxPooling2D(2),
        Conv2D(70, 3, padding="valid"), ReLU(), MaxPooling2D(2),
        Conv2D(160, 3, padding="valid"), ReLU(),
        Flatten(),
        Dense(64), ReLU(),
        Dense(num_classes),
    ]  # fmt: skip


# The first report names a transformer and lists its parts: two 3x3 convolutions, pooling, flatten, dense to 128, one
# encoder block with 8 heads, residual layer normalisation, feed-forward, dropout 0.1; batch 128, 10 epochs. What it
# leaves open is as in its own network (32 and 64 filters, a pooling each) and, in the block, as keras.io has it:
# key_dim as wide as a token, epsilon 1e-6, a feed-forward with ReLU, normalisation after the sum.
WIDTH, HEADS, RATE = 128, 8, 0.1


def _convolutions() -> list[Module]:
    return [
        Conv2D(32, 3, padding="same"), ReLU(), MaxPooling2D(2),
        Conv2D(64, 3, padding="same"), ReLU(), MaxPooling2D(2),
    ]  # fmt: skip


def _encoder(attention: Module, seed: int) -> list[Module]:
    return [
        Residual([attention, Dropout(RATE, seed)]), LayerNormalization(1e-6),
        Residual([Dense(WIDTH), ReLU(), Dense(WIDTH), Dropout(RATE, seed)]), LayerNormalization(1e-6),
    ]  # fmt: skip


def _transformer(num_classes: int, seed: int) -> list[Module]:
    """As listed: what the block is given is one token."""
    attention = MultiHeadAttention(HEADS, key_dim=WIDTH, seed=seed)
    token = Flatten(), Dense(WIDTH), Reshape((1, WIDTH))
    return [*_convolutions(), *token, *_encoder(attention, seed), Flatten(), Dense(num_classes)]


def _without_block(num_classes: int, seed: int) -> list[Module]:
    return [*_convolutions(), Flatten(), Dense(WIDTH), Dense(num_classes)]


def _linear(num_classes: int, seed: int) -> list[Module]:
    """With a linear map in place of the attention, which is what 8 heads come to on one token."""
    return [*_convolutions(), Flatten(), Dense(WIDTH), *_encoder(Dense(WIDTH), seed), Dense(num_classes)]


def _tokens(num_classes: int, seed: int, temperature: float | None = None) -> list[Module]:
    """With the 8x8 places as tokens; heads of WIDTH / HEADS, as Vaswani et al. have them, cost an eighth here."""
    attention = MultiHeadAttention(HEADS, WIDTH // HEADS, temperature=temperature, seed=seed)
    tokens = Reshape((64, 64)), Dense(WIDTH), PositionEmbedding()
    pooled = GlobalAveragePooling1D(), Dense(num_classes)
    return [*_convolutions(), *tokens, *_encoder(attention, seed), *pooled]


_ALL = (
    Recipe("same-padding", _same_padding, batch_size=64, temperature=0.5, reports=PUBLISHED["same-padding"]),
    Recipe("valid-padding", _valid_padding, batch_size=32, temperature=1.0, reports=PUBLISHED["valid-padding"]),
    Recipe("transformer", _transformer, batch_size=128, temperature=0.5),
    Recipe("transformer-without-block", _without_block, batch_size=128, temperature=0.5),
    Recipe("transformer-linear", _linear, batch_size=128, temperature=0.5),
    Recipe("transformer-tokens", _tokens, batch_size=128, temperature=0.5),
    Recipe("transformer-tokens-gumbel", partial(_tokens, temperature=1.0), batch_size=128, temperature=0.5),
)
RECIPES = {recipe.name: recipe for recipe in _ALL}
REPORTED = tuple(name for name, recipe in RECIPES.items() if recipe.reports)
