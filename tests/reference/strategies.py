"""Randomly drawn shapes. Values come from a generator seeded by Hypothesis, so that an example stays readable."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

Pair = tuple[int, int]


@dataclass(frozen=True)
class Convolution:
    """A convolution and the seed of its values."""

    batch: int
    size: Pair
    channels: int
    filters: int
    kernel_size: Pair
    strides: Pair
    padding: str
    dilation_rate: Pair
    seed: int

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return (*self.size, self.channels)


@dataclass(frozen=True)
class Pooling:
    """A pooling and the seed of its values."""

    batch: int
    size: Pair
    channels: int
    pool_size: Pair
    strides: Pair
    padding: str
    seed: int

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return (*self.size, self.channels)


def seeds() -> st.SearchStrategy[int]:
    return st.integers(0, 2**32 - 1)


def generators() -> st.SearchStrategy[np.random.Generator]:
    return seeds().map(np.random.default_rng)


def pairs(smallest: int, largest: int) -> st.SearchStrategy[Pair]:
    return st.tuples(st.integers(smallest, largest), st.integers(smallest, largest))


@st.composite
def sizes(draw: st.DrawFn, extent: Pair, padding: str) -> Pair:
    """An input height and width that a window of the given extent fits in, or any at all for 'same' padding."""
    smallest = extent if padding == "valid" else (1, 1)
    return draw(st.integers(smallest[0], smallest[0] + 6)), draw(st.integers(smallest[1], smallest[1] + 6))


@st.composite
def convolutions(draw: st.DrawFn) -> Convolution:
    """Kernels 1 to 4, even and not square; strides and dilation 1 to 3; inputs smaller than the kernel if 'same'."""
    kernel_size, dilation_rate = draw(pairs(1, 4)), draw(st.just((1, 1)) | pairs(1, 3))
    padding = draw(st.sampled_from(["valid", "same"]))
    extent = tuple((k - 1) * dilation + 1 for k, dilation in zip(kernel_size, dilation_rate, strict=True))
    return Convolution(
        batch=draw(st.integers(1, 3)),
        size=draw(sizes(extent, padding)),
        channels=draw(st.integers(1, 3)),
        filters=draw(st.integers(1, 3)),
        kernel_size=kernel_size,
        strides=draw(st.just((1, 1)) | pairs(1, 3)),
        padding=padding,
        dilation_rate=dilation_rate,
        seed=draw(seeds()),
    )


@st.composite
def wide_convolutions(draw: st.DrawFn) -> Convolution:
    """What real networks are made of: 3x3, stride 1, no dilation, enough channels for a faster algorithm to apply."""
    padding = draw(st.sampled_from(["valid", "same"]))
    return Convolution(
        batch=draw(st.integers(1, 3)),
        size=draw(sizes((3, 3), padding)),
        channels=draw(st.sampled_from([1, 3, 8, 15, 16, 17, 32])),
        filters=draw(st.integers(1, 5)),
        kernel_size=(3, 3),
        strides=(1, 1),
        padding=padding,
        dilation_rate=(1, 1),
        seed=draw(seeds()),
    )


@st.composite
def poolings(draw: st.DrawFn) -> Pooling:
    """Windows 1 to 4 and strides 1 to 5: overlapping windows, windows side by side, windows with gaps between them."""
    pool_size, padding = draw(st.just((2, 2)) | pairs(1, 4)), draw(st.sampled_from(["valid", "same"]))
    return Pooling(
        batch=draw(st.integers(1, 3)),
        size=draw(sizes(pool_size, padding)),
        channels=draw(st.integers(1, 3)),
        pool_size=pool_size,
        strides=draw(st.just(pool_size) | pairs(1, 5)),
        padding=padding,
        seed=draw(seeds()),
    )
