"""Weights to and from PyTorch and Keras, neither of which is imported: docs/exchange.md has what belongs to what."""

from scratchnet.exchange.weights import (
    from_keras,
    from_torch,
    load_keras,
    load_torch,
    save_keras,
    save_torch,
    to_keras,
    to_torch,
)

__all__ = [
    "from_keras", "from_torch", "load_keras", "load_torch", "save_keras", "save_torch", "to_keras", "to_torch",
]  # fmt: skip
