"""The same values, gradients and training steps as PyTorch, whose gradients are derived by a machine."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchnet import Sequential
from scratchnet.heads import GumbelSoftmaxCrossEntropy, SoftmaxCrossEntropy
from scratchnet.layers import AveragePooling2D, BatchNormalization, Conv2D, Dense, Flatten, MaxPooling2D, ReLU
from scratchnet.optimizers import SGD, Adam
from tests.layers.catalogue import EXAMPLES, torch_forward
from tests.reference.checks import assert_close, distinct, randomize
from tests.reference.layers import STEP
from tests.reference.strategies import Convolution, Pooling, convolutions, generators, poolings, wide_convolutions

torch = pytest.importorskip("torch", reason="these tests compare with PyTorch: pip install 'scratchnet[test]'")
F = torch.nn.functional
Tensor = Any


def tensor(array: np.ndarray) -> Tensor:
    return torch.tensor(array, requires_grad=True)


def compare(module: Any, x: np.ndarray, rng: np.random.Generator) -> None:
    """The output and gradients against those of the same module in PyTorch's words."""
    module.build(x.shape[1:], dtype=x.dtype)
    randomize(module, rng)
    point, parameters = tensor(x), {name: tensor(array) for name, array in module.weights().items()}
    expected = torch_forward(module, point, parameters)
    dy = rng.normal(size=tuple(expected.shape))
    expected.backward(torch.tensor(dy))
    module.clock.step = STEP
    assert_close(module.forward(x, training=True), expected.detach())
    assert_close(module.backward(dy), point.grad)
    for layer in module.leaves:
        for name, gradient in layer.gradients.items():
            assert_close(gradient, parameters[f"{layer.name}/{name}"].grad)


@pytest.mark.parametrize("name", [name for name, example in EXAMPLES.items() if example.kind.in_torch])
def test_every_layer(name: str) -> None:
    rng, example = np.random.default_rng(1), EXAMPLES[name]
    compare(example.make(), distinct((4, *example.input_shape), rng), rng)


@given(case=convolutions() | wide_convolutions())
def test_convolution(case: Convolution) -> None:
    rng, options = np.random.default_rng(case.seed), (case.strides, case.padding, case.dilation_rate)
    x = rng.normal(size=(case.batch, *case.input_shape))
    compare(Conv2D(case.filters, case.kernel_size, *options), x, rng)


@pytest.mark.parametrize("kind", [MaxPooling2D, AveragePooling2D])
@given(case=poolings())
def test_pooling(kind: Any, case: Pooling) -> None:
    rng, options = np.random.default_rng(case.seed), (case.pool_size, case.strides, case.padding)
    compare(kind(*options), distinct((case.batch, *case.input_shape), rng), rng)


@given(shape=st.tuples(*[st.integers(1, 6)] * 3), rng=generators())
def test_dense(shape: tuple[int, int, int], rng: np.random.Generator) -> None:
    batch, features, units = shape
    compare(Dense(units), rng.normal(size=(batch, features)), rng)


@given(shape=st.tuples(st.integers(2, 5), *[st.integers(1, 4)] * 3), rng=generators())
def test_batch_normalization(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    compare(BatchNormalization(), rng.normal(size=shape), rng)


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
    expected = torch_forward(network, point, parameters)
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
        logits = torch_forward(network, torch.tensor(x), parameters)
        if isinstance(head, GumbelSoftmaxCrossEntropy):
            logits = (logits + torch.tensor(head.noise(step, 4, 10))) / temperature
        expected = F.cross_entropy(logits, torch.tensor(labels))
        expected.backward()
        judge.step()
        assert_close(loss, expected.detach(), 1e-9)
    for name, array in network.weights().items():
        assert_close(array, parameters[name].detach(), 1e-9)
