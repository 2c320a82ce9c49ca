"""The definition itself: examples worked by hand, and gradients against finite differences."""

import math

import numpy as np
import pytest
from hypothesis import given, settings

from tests.reference import reference
from tests.reference.checks import assert_close, distinct, slope_error
from tests.reference.strategies import Convolution, Pooling, convolutions, poolings


def row(*values: float) -> np.ndarray:
    """An image of one row and one channel."""
    return np.array(values, dtype=np.float64).reshape(1, 1, -1, 1)


# Every row was worked out by hand: size, window, stride, dilation -> output positions and padding before, after.
@pytest.mark.parametrize(
    ("size", "window", "stride", "dilation", "expected"),
    [
        (5, 3, 1, 1, (5, 1, 1)),
        (5, 2, 1, 1, (5, 0, 1)),
        (5, 4, 1, 1, (5, 1, 2)),
        (6, 3, 2, 1, (3, 0, 1)),
        (7, 3, 2, 1, (4, 1, 1)),
        (5, 1, 3, 1, (2, 0, 0)),
        (2, 5, 1, 1, (2, 2, 2)),
        (5, 3, 1, 2, (5, 2, 2)),
        (5, 2, 1, 3, (5, 1, 2)),
        (8, 2, 4, 1, (2, 0, 0)),
    ],
)
def test_same_padding_follows_keras(
    size: int, window: int, stride: int, dilation: int, expected: tuple[int, int, int]
) -> None:
    positions, before, after = expected
    assert reference.window_axis(size, window, stride, "same", dilation) == (positions, before)
    last_element_seen = (positions - 1) * stride + (window - 1) * dilation - before
    assert max(last_element_seen - (size - 1), 0) == after


@pytest.mark.parametrize(
    ("size", "window", "stride", "dilation", "positions"),
    [(5, 3, 1, 1, 3), (6, 3, 2, 1, 2), (7, 3, 2, 1, 3), (5, 3, 1, 2, 1), (4, 4, 3, 1, 1)],
)
def test_valid_padding_counts_only_whole_windows(
    size: int, window: int, stride: int, dilation: int, positions: int
) -> None:
    assert reference.window_axis(size, window, stride, "valid", dilation) == (positions, 0)


def test_a_convolution_by_hand() -> None:
    x, kernel, bias = row(1, 2, 4, 8), np.array([1.0, -1.0]).reshape(1, 2, 1, 1), np.array([10.0])
    assert reference.conv2d(x, kernel, bias).ravel().tolist() == [9, 8, 6]
    assert reference.conv2d(x, kernel, bias, padding="same").ravel().tolist() == [9, 8, 6, 18]
    assert reference.conv2d(x, kernel, bias, strides=(1, 2)).ravel().tolist() == [9, 6]
    assert reference.conv2d(x, kernel, bias, dilation_rate=(1, 2)).ravel().tolist() == [7, 4]
    dx, dkernel, dbias = reference.conv2d_backward(x, kernel, row(1, 10, 100))
    assert dx.ravel().tolist() == [1, 9, 90, -100]
    assert dkernel.ravel().tolist() == [1 + 20 + 400, 2 + 40 + 800]
    assert dbias.tolist() == [111]


def test_a_convolution_sums_over_channels_and_keeps_filters_apart() -> None:
    x, kernel = np.array([2.0, 3.0]).reshape(1, 1, 1, 2), np.array([[1.0, 10.0], [100.0, 1000.0]]).reshape(1, 1, 2, 2)
    assert reference.conv2d(x, kernel, np.zeros(2)).ravel().tolist() == [302, 3020]


def test_max_pooling_by_hand_gives_a_tie_to_the_first() -> None:
    x = np.array([[1.0, 7.0, 0.0], [7.0, 7.0, 0.0]]).reshape(1, 2, 3, 1)
    assert reference.max_pooling2d(x, 2, 1).ravel().tolist() == [7, 7]
    dx = reference.max_pooling2d_backward(x, row(1, 10), 2, 1)
    assert dx.ravel().tolist() == [0, 11, 0, 0, 0, 0]


def test_max_pooling_ignores_padding() -> None:
    assert reference.max_pooling2d(row(-3, -2, -1), (1, 2), (1, 2), "same").ravel().tolist() == [-2, -1]


def test_average_pooling_by_hand_does_not_count_padding() -> None:
    assert reference.average_pooling2d(row(2, 4, 9), (1, 2), (1, 2), "same").ravel().tolist() == [3, 9]
    dx = reference.average_pooling2d_backward(row(2, 4, 9), row(1, 10), (1, 2), (1, 2), "same")
    assert dx.ravel().tolist() == [0.5, 0.5, 10]


def test_batch_normalization_by_hand() -> None:
    x, gamma, beta = np.array([[1.0], [3.0]]), np.array([2.0]), np.array([5.0])
    y, mean, variance = reference.batch_normalization(x, gamma, beta, epsilon=3.0)
    assert (mean.tolist(), variance.tolist(), y.ravel().tolist()) == ([2], [1], [4, 6])


def test_softmax_and_its_loss_by_hand() -> None:
    logits = np.log([[1.0, 2.0, 5.0]])
    assert_close(reference.softmax(logits), [[0.125, 0.25, 0.625]])
    loss, dlogits = reference.softmax_cross_entropy(logits, np.array([1]))
    assert_close(loss, math.log(4))
    assert_close(dlogits, [[0.125, -0.75, 0.625]])
    loss, dlogits = reference.gumbel_softmax_cross_entropy(logits - 1, np.array([1]), np.array([[1.0, 1.0, 1.0]]), 0.5)
    assert_close(loss, math.log(30 / 4))  # exp(2 log p) is p squared: 1, 4, 25
    assert_close(dlogits, np.array([[1 / 30, 4 / 30 - 1, 25 / 30]]) / 0.5)


@given(convolutions())
@settings(max_examples=20)
def test_convolution_gradients(case: Convolution) -> None:
    rng, options = np.random.default_rng(case.seed), (case.strides, case.padding, case.dilation_rate)
    x = rng.normal(size=(case.batch, *case.input_shape))
    kernel, bias = rng.normal(size=(*case.kernel_size, case.channels, case.filters)), rng.normal(size=case.filters)
    dy = rng.normal(size=reference.conv2d(x, kernel, bias, *options).shape)
    gradients = reference.conv2d_backward(x, kernel, dy, *options)

    def loss() -> float:
        return float(np.sum(reference.conv2d(x, kernel, bias, *options) * dy))

    assert slope_error(loss, [x, kernel, bias], list(gradients), rng) < 1e-7


@given(poolings())
@settings(max_examples=20)
def test_pooling_gradients(case: Pooling) -> None:
    rng, options = np.random.default_rng(case.seed), (case.pool_size, case.strides, case.padding)
    x = distinct((case.batch, *case.input_shape), rng)
    dy = rng.normal(size=reference.max_pooling2d(x, *options).shape)
    for forward, backward in (
        (reference.max_pooling2d, reference.max_pooling2d_backward),
        (reference.average_pooling2d, reference.average_pooling2d_backward),
    ):
        dx = backward(x, dy, *options)
        assert slope_error(lambda forward=forward: float(np.sum(forward(x, *options) * dy)), [x], [dx], rng) < 1e-7


def test_dense_gradients() -> None:
    rng = np.random.default_rng(1)
    x, kernel, bias, dy = (rng.normal(size=shape) for shape in ((3, 4), (4, 5), (5,), (3, 5)))
    gradients = reference.dense_backward(x, kernel, dy)
    error = slope_error(lambda: np.sum(reference.dense(x, kernel, bias) * dy), [x, kernel, bias], [*gradients], rng)
    assert error < 1e-7


def test_batch_normalization_gradients() -> None:
    rng = np.random.default_rng(2)
    x, gamma, beta, dy = (rng.normal(size=shape) for shape in ((2, 3, 2, 4), (4,), (4,), (2, 3, 2, 4)))
    gradients = reference.batch_normalization_backward(x, gamma, dy)

    def loss() -> float:
        return float(np.sum(reference.batch_normalization(x, gamma, beta)[0] * dy))

    assert slope_error(loss, [x, gamma, beta], [*gradients], rng) < 1e-7


def test_activation_gradients() -> None:
    rng = np.random.default_rng(3)
    x, dy = distinct((2, 3, 4), rng), rng.normal(size=(2, 3, 4))
    dx = reference.softmax_backward(x, dy)
    assert slope_error(lambda: np.sum(reference.softmax(x) * dy), [x], [dx], rng) < 1e-7
    dx = reference.relu_backward(x, dy)
    assert slope_error(lambda: np.sum(reference.relu(x) * dy), [x], [dx], rng) < 1e-7


def test_loss_gradients() -> None:
    rng = np.random.default_rng(4)
    logits, labels, noise = rng.normal(size=(3, 4)), np.array([0, 3, 1]), rng.gumbel(size=(3, 4))
    dlogits = reference.softmax_cross_entropy(logits, labels)[1]
    assert slope_error(lambda: reference.softmax_cross_entropy(logits, labels)[0], [logits], [dlogits], rng) < 1e-7
    dlogits = reference.gumbel_softmax_cross_entropy(logits, labels, noise, 0.5)[1]

    def loss() -> float:
        return reference.gumbel_softmax_cross_entropy(logits, labels, noise, 0.5)[0]

    assert slope_error(loss, [logits], [dlogits], rng) < 1e-7
