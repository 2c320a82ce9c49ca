"""Softmax over the last axis, whatever axes come before."""

import numpy as np
import pytest

from scratchnet.layers import GumbelSoftmax, Softmax
from tests.reference import reference
from tests.reference.checks import assert_close


@pytest.mark.parametrize("shape", [(4, 6), (2, 3, 6), (2, 3, 4, 6)])
def test_the_last_axis(shape: tuple[int, ...]) -> None:
    x, dy = (np.random.default_rng(seed).standard_normal(shape) for seed in (1, 2))
    layer = Softmax()
    y = reference.softmax(x.reshape(-1, 6))
    assert_close(layer.forward(x), y.reshape(shape))
    assert_close(layer.backward(dy), reference.softmax_backward(x.reshape(-1, 6), dy.reshape(-1, 6)).reshape(shape))


@pytest.mark.parametrize("shape", [(2, 3, 6), (2, 3, 4, 6)])
def test_gumbel_softmax_of_the_last_axis(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape)
    soft, hard = GumbelSoftmax(0.5).forward(x), GumbelSoftmax(0.5, straight_through=True).forward(x)
    np.testing.assert_allclose(soft.sum(-1), 1, rtol=1e-12)
    np.testing.assert_array_equal(hard, soft == soft.max(-1, keepdims=True))
