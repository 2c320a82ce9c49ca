"""The same values, gradients and training steps as PyTorch, whose gradients are derived by a machine."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchnet import Sequential
from scratchnet.heads import GumbelSoftmaxCrossEntropy, SoftmaxCrossEntropy
from scratchnet.layers import (
    AveragePooling2D,
    BatchNormalization,
    Conv2D,
    Dense,
    Flatten,
    GlobalAveragePooling2D,
    GumbelSoftmax,
    MaxPooling2D,
    ReLU,
    Softmax,
)
from scratchnet.optimizers import SGD, Adam
from tests.reference.checks import assert_close, distinct, randomize
from tests.reference.reference import window_axis
from tests.reference.strategies import Convolution, Pooling, convolutions, generators, poolings, wide_convolutions

torch = pytest.importorskip("torch", reason="these tests compare with PyTorch: pip install 'scratchnet[test]'")
F = torch.nn.functional
Tensor = Any


def tensor(array: np.ndarray) -> Tensor:
    return torch.tensor(array, requires_grad=True)


def nchw(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def nhwc(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def padded(x: Tensor, window: tuple[int, int], strides: Any, padding: str, dilation: Any, value: float = 0.0) -> Tensor:
    """NCHW images with Keras's padding: what is odd comes after."""
    margins: list[int] = []
    for size, k, stride, step in reversed(list(zip(x.shape[2:], window, strides, dilation, strict=True))):
        positions, before = window_axis(size, k, stride, padding, step)
        after = (positions - 1) * stride + (k - 1) * step + 1 - before - size
        margins += [before, max(after, 0)] if padding == "same" else [0, 0]
    return F.pad(x, margins, value=value)


def convolve(x: Tensor, kernel: Tensor, bias: Tensor, strides: Any, padding: str, dilation: Any) -> Tensor:
    """With Keras's layout of images and kernels."""
    images = padded(nchw(x), kernel.shape[:2], strides, padding, dilation)
    return nhwc(F.conv2d(images, kernel.permute(3, 2, 0, 1).contiguous(), bias, stride=strides, dilation=dilation))


def compare(layer: Any, x: np.ndarray, function: Callable[..., Tensor], rng: np.random.Generator) -> None:
    """The layer's output and gradients against those of `function(x, *parameters)`."""
    layer.build(x.shape[1:], dtype=x.dtype)
    randomize(layer, rng)
    points = [tensor(array) for array in (x, *layer.parameters.values())]
    expected = function(*points)
    dy = rng.normal(size=tuple(expected.shape))
    expected.backward(torch.tensor(dy))
    layer.clock.step = 0
    assert_close(layer.forward(x, training=True), expected.detach())
    assert_close(layer.backward(dy), points[0].grad)
    for gradient, point in zip(layer.gradients.values(), points[1:], strict=True):
        assert_close(gradient, point.grad)


@given(case=convolutions() | wide_convolutions())
def test_convolution(case: Convolution) -> None:
    rng, options = np.random.default_rng(case.seed), (case.strides, case.padding, case.dilation_rate)
    x = rng.normal(size=(case.batch, *case.input_shape))
    layer = Conv2D(case.filters, case.kernel_size, *options)
    compare(layer, x, lambda x, kernel, bias: convolve(x, kernel, bias, *options), rng)


@given(case=poolings())
def test_max_pooling(case: Pooling) -> None:
    rng, options = np.random.default_rng(case.seed), (case.pool_size, case.strides, case.padding)
    x = distinct((case.batch, *case.input_shape), rng)

    def pool(x: Tensor) -> Tensor:
        return nhwc(F.max_pool2d(padded(nchw(x), *options, (1, 1), value=-torch.inf), case.pool_size, case.strides))

    compare(MaxPooling2D(*options), x, pool, rng)


@given(case=poolings())
def test_average_pooling(case: Pooling) -> None:
    rng, options = np.random.default_rng(case.seed), (case.pool_size, case.strides, case.padding)
    x = rng.normal(size=(case.batch, *case.input_shape))

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(padded(nchw(x), *options, (1, 1)), case.pool_size, case.strides)

    # The mean of ones and padding zeros is the part of the window that counts.
    compare(AveragePooling2D(*options), x, lambda x: nhwc(mean(x) / mean(torch.ones_like(x))), rng)


@given(shape=st.tuples(*[st.integers(1, 6)] * 3), rng=generators())
def test_dense(shape: tuple[int, int, int], rng: np.random.Generator) -> None:
    batch, features, units = shape
    compare(Dense(units), rng.normal(size=(batch, features)), lambda x, kernel, bias: x @ kernel + bias, rng)


@given(shape=st.tuples(st.integers(2, 5), *[st.integers(1, 4)] * 3), rng=generators())
def test_batch_normalization(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    x = rng.normal(size=shape)

    def normalize(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return nhwc(F.batch_norm(nchw(x), None, None, gamma, beta, training=True, eps=1e-3))

    compare(BatchNormalization(), x, normalize, rng)


@pytest.mark.parametrize(
    ("layer", "function", "shape"),
    [
        (ReLU(), torch.relu, (3, 4, 5, 2)),
        (Softmax(), lambda x: torch.softmax(x, -1), (4, 6)),
        (Flatten(), lambda x: x.reshape(len(x), -1), (3, 4, 5, 2)),
        (GlobalAveragePooling2D(), lambda x: x.mean((1, 2)), (3, 4, 5, 2)),
    ],
    ids=["relu", "softmax", "flatten", "global_average"],
)
def test_layers_without_parameters(layer: Any, function: Any, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    compare(layer, distinct(shape, rng), function, rng)


def test_gumbel_softmax() -> None:
    """The layer's own noise, read off at x = 0 (softmax does not see a constant of each row), handed to PyTorch."""
    rng, layer = np.random.default_rng(2), GumbelSoftmax(0.7)
    noise = torch.tensor(0.7 * np.log(layer.forward(np.zeros((4, 6)), training=True)))
    compare(layer, rng.normal(size=(4, 6)), lambda x: torch.softmax((x + noise) / 0.7, -1), rng)


@pytest.mark.parametrize("temperature", [None, 0.3, 1.0, 5.0])
@given(shape=st.tuples(st.integers(1, 6), st.integers(1, 9)), rng=generators())
@settings(max_examples=15)
def test_heads(temperature: float | None, shape: tuple[int, int], rng: np.random.Generator) -> None:
    logits, labels = 3 * rng.normal(size=shape), rng.integers(0, shape[1], size=shape[0])
    point = scaled = tensor(logits)
    head: Any = SoftmaxCrossEntropy()
    if temperature is not None:
        head = GumbelSoftmaxCrossEntropy(temperature, seed=3)
        scaled = (point + torch.tensor(head.noise(7, *shape))) / temperature
    expected = F.cross_entropy(scaled, torch.tensor(labels))
    expected.backward()
    loss, dlogits = head(logits, labels, step=7)
    assert_close(loss, expected.detach())
    assert_close(dlogits, point.grad)


OPTIMIZERS = pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: Adam(epsilon=1e-8, epsilon_placement="pytorch"), lambda p: torch.optim.Adam(p, eps=1e-8)),
        (
            lambda: Adam(0.05, 0.8, 0.95, 1e-3, "pytorch"),
            lambda p: torch.optim.Adam(p, lr=0.05, betas=(0.8, 0.95), eps=1e-3),
        ),
        (lambda: SGD(0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
        (lambda: SGD(0.1, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
        (
            lambda: SGD(0.1, momentum=0.9, nesterov=True),
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        ),
    ],
    ids=["adam", "adam with options", "sgd", "momentum", "nesterov"],
)


@OPTIMIZERS
def test_optimizers(ours: Any, theirs: Any) -> None:
    rng = np.random.default_rng(4)
    parameters = rng.normal(size=50)
    point, optimizer = tensor(parameters), ours()
    judge = theirs([point])
    optimizer.build(parameters)
    for _ in range(20):
        gradients = rng.normal(size=50) * 10.0 ** rng.integers(-5, 3, size=50)
        point.grad = torch.tensor(gradients)
        judge.step()
        optimizer.update(gradients)
        assert_close(parameters, point.detach())


def same_padding(filters: tuple[int, int, int] = (8, 16, 18), units: int = 12) -> Sequential:
    """The first report's network, narrower."""
    layers: list[Any] = []
    for count in filters:
        layers += [Conv2D(count, 3, padding="same"), ReLU(), MaxPooling2D(2)]
    return Sequential([*layers, Flatten(), Dense(units), ReLU(), Dense(10)])


def valid_padding(filters: tuple[int, int, int] = (6, 17, 20), units: int = 12) -> Sequential:
    """The second report's network, narrower."""
    layers: list[Any] = []
    for count in filters:
        layers += [Conv2D(count, 3), ReLU(), MaxPooling2D(2)]
    return Sequential([*layers[:-1], Flatten(), Dense(units), ReLU(), Dense(10)])


def torch_forward(network: Sequential, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
    """The same network in PyTorch's words, with our parameters."""
    for layer in network.layers:
        if isinstance(layer, Conv2D | Dense):
            kernel, bias = parameters[f"{layer.name}/kernel"], parameters[f"{layer.name}/bias"]
            convolution = isinstance(layer, Conv2D)
            x = convolve(x, kernel, bias, (1, 1), layer.padding, (1, 1)) if convolution else x @ kernel + bias
        elif isinstance(layer, ReLU):
            x = torch.relu(x)
        elif isinstance(layer, MaxPooling2D):
            x = nhwc(F.max_pool2d(nchw(x), 2))
        else:
            x = x.reshape(len(x), -1)
    return x


NETWORKS = pytest.mark.parametrize(("make", "size"), [(same_padding, 16), (valid_padding, 24)], ids=["same", "valid"])


DTYPES = pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])


@DTYPES
@pytest.mark.parametrize("make", [lambda: same_padding((32, 64, 128), 256), lambda: valid_padding((30, 70, 160), 64)])
def test_networks_of_full_size(make: Any, dtype: str, tolerance: float) -> None:
    test_networks(make, 32, dtype, tolerance, batch=3)


@NETWORKS
@DTYPES
@pytest.mark.parametrize("batch", [1, 7])
def test_networks(make: Any, size: int, dtype: str, tolerance: float, batch: int) -> None:
    """Logits and every gradient; in float32 too the judge computes in float64."""
    rng, network = np.random.default_rng(5), make()
    network.build((size, size, 3), dtype=dtype, seed=1)
    x, dy = rng.random((batch, size, size, 3)).astype(dtype), rng.normal(size=(batch, 10)).astype(dtype)
    parameters = {name: tensor(array.astype(np.float64)) for name, array in network.weights().items()}
    point = tensor(x.astype(np.float64))
    expected = torch_forward(network, parameters, point)
    expected.backward(torch.tensor(dy.astype(np.float64)))
    assert_close(network.forward(x, training=True), expected.detach(), tolerance)
    assert_close(network.backward(dy), point.grad, tolerance)
    for layer in network.layers:
        for name, gradient in layer.gradients.items():
            assert_close(gradient, parameters[f"{layer.name}/{name}"].grad, tolerance)


@NETWORKS
@OPTIMIZERS
@pytest.mark.parametrize("temperature", [None, 0.5], ids=["softmax", "gumbel"])
def test_training(make: Any, size: int, ours: Any, theirs: Any, temperature: float | None) -> None:
    """Five steps of network, head and optimizer end at the same weights, with fresh noise at each step."""
    rng, network, optimizer = np.random.default_rng(6), make(), ours()
    network.build((size, size, 3), dtype="float64", seed=2)
    optimizer.build(network.parameters)
    parameters = {name: tensor(array) for name, array in network.weights().items()}
    judge = theirs(list(parameters.values()))
    head = SoftmaxCrossEntropy() if temperature is None else GumbelSoftmaxCrossEntropy(temperature, seed=4)
    for step in range(5):
        x, labels = rng.random((4, size, size, 3)), rng.integers(0, 10, size=4)
        loss, dlogits = head(network.forward(x, training=True), labels, step=step)
        network.backward(dlogits)
        optimizer.update(network.gradients)

        judge.zero_grad()
        logits = torch_forward(network, parameters, torch.tensor(x))
        if isinstance(head, GumbelSoftmaxCrossEntropy):
            logits = (logits + torch.tensor(head.noise(step, 4, 10))) / temperature
        expected = F.cross_entropy(logits, torch.tensor(labels))
        expected.backward()
        judge.step()
        assert_close(loss, expected.detach(), 1e-9)
    for name, array in network.weights().items():
        assert_close(array, parameters[name].detach(), 1e-9)
