"""What only a GPU can show; before its other tests, `python -m pytest -m gpu -x tests/kernels/gpu/test_on_a_gpu.py`.

First, one by one, what the package takes for granted of CuPy and cuBLAS: the current stream, the arguments of a kernel,
copies from page-locked memory, what a graph holds and what it refuses. Then the whole step: captured, with the bits of
the eager step, with new noise in every replay, and right.
"""

from typing import Any

import numpy as np
import pytest

from scratchnet import (
    Adam,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GumbelSoftmax,
    GumbelSoftmaxCrossEntropy,
    MaxPooling2D,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
)
from scratchnet.backend import Program, get_device, prepare, run
from scratchnet.backend.cuda import LINE, RING
from scratchnet.data import Dataset, Split
from scratchnet.experiments.recipes import RECIPES
from scratchnet.training import Trainer

pytestmark = pytest.mark.gpu
HEADS = {"softmax": SoftmaxCrossEntropy, "gumbel": lambda: GumbelSoftmaxCrossEntropy(0.5)}


@pytest.fixture
def gpu() -> Any:
    return get_device("gpu")


# --- what is taken for granted


def test_the_stream_is_current_and_stays_so(gpu: Any) -> None:
    current = gpu.xp.cuda.get_current_stream
    assert current() == gpu.cuda.stream, "entering the stream did not make it the thread's current one"
    assert gpu.cuda.stream.is_non_blocking
    assert gpu.capture([(gpu.zeros(3, "float32").fill, (1,))]) is not None, "a fill cannot be captured"
    assert current() == gpu.cuda.stream, "capturing left another stream current"
    gpu.to_host(gpu.zeros((3, 4), "float32").T)
    assert current() == gpu.cuda.stream, "a copy to the host left another stream current"


def test_the_arguments_of_a_kernel_arrive(gpu: Any) -> None:
    source = (
        "typedef unsigned long long word;\n"
        'extern "C" __global__ void probe(const real* null, int i, word w, real r, const long long* a, double* out) {\n'
        "    out[0] = null == 0, out[1] = i, out[2] = w >> 32, out[3] = r, out[4] = *a;\n}\n"
    )
    for real, dtype in (("float", np.float32), ("double", np.float64)):
        out, number = gpu.zeros(5, "float64"), gpu.to_device(np.array([1 << 40]))
        arguments = np.uintp(0), np.int32(-7), np.uint64(2**63 - 1), dtype(0.25), number[0:1].reshape(()), out
        gpu.cuda.kernel(source, "probe", {"real": real})((1,), (1,), arguments)
        assert gpu.to_host(out).tolist() == [1, -7, 2**31 - 1, 0.25, 2**40], f"with real = {real}"


def test_a_load_is_what_the_host_had_when_it_was_asked_for(gpu: Any) -> None:
    busy, host = gpu.xp.ones((4096, 4096), np.float32), np.zeros(5)
    outs = [gpu.zeros(5, "float64") for _ in range(3 * RING // LINE)]
    for _ in range(20):
        gpu.cublas.product(busy, busy, gpu.zeros((4096, 4096), "float32"))
    for number, out in enumerate(outs):
        host[...] = number
        gpu.load(host, out=out)
    wrong = [number for number, out in enumerate(outs) if (gpu.to_host(out) != number).any()]
    assert not wrong, "slots of the page-locked memory were written again before they were read"


def test_a_graph_holds_products_copies_and_fills_and_waits_for_what_was_prepared(gpu: Any) -> None:
    source = np.random.default_rng(0)
    a, b = (gpu.to_device(source.standard_normal((64, 64)).astype(np.float32)) for _ in range(2))
    product, flipped = (gpu.zeros((64, 64), "float32") for _ in range(2))
    total, now, step = gpu.zeros(1, "float64"), gpu.zeros(1, "float64"), [0]

    def load() -> None:
        step[0] += 1
        gpu.load(np.array([step[0]], np.float64), out=now)

    with Program(gpu.capture) as program:
        prepare(load)
        gpu.ops.fill(0, out=product)
        gpu.ops.matmul(a, b, out=product)
        gpu.ops.add(total, now, out=total)
        gpu.ops.copy(product.T, out=flipped)
    new = source.standard_normal((64, 64)).astype(np.float32)
    gpu.load(new, out=a)
    for _ in range(1000):
        program.replay()
    expected = new @ gpu.to_host(b)
    error = np.linalg.norm(gpu.to_host(flipped).T - expected) / np.linalg.norm(expected)
    assert len(program.calls) == 2, "cuBLAS, a ufunc, a fill or a copy cannot be captured"
    assert float(gpu.to_host(total)[0]) == 1001 * 1002 / 2, "a graph ran before or after the load that belongs to it"
    assert error < 1e-2, "the graph did not see what its buffers held"


def test_what_asks_for_memory_is_refused_and_leaves_the_stream_usable(gpu: Any) -> None:
    out = gpu.zeros(4, "float32")

    def allocate() -> None:
        gpu.xp.copyto(out, gpu.xp.ones(4, np.float32) + 1)

    with Program(gpu.capture) as program:
        run(allocate)
    out.fill(0)
    program.replay()
    assert not gpu.cuda.stream.is_capturing()
    assert program.calls == [(allocate, ())], "memory was handed out during a capture"
    assert gpu.to_host(out).tolist() == [2] * 4


# --- the step


def images() -> Dataset:
    source = np.random.default_rng(0)
    train, test = (
        Split(source.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), source.integers(0, 100, count))
        for count in (300, 100)
    )
    return Dataset("random", train, test, tuple(map(str, range(100))), (), np.empty(0, np.int64))


def trained(recipe: str, head: str, dtype: str = "float32", device: str = "gpu", epochs: int = 2) -> Any:
    """Losses and weights, and the trainer's programs."""
    network = RECIPES[recipe].network(100)
    network.build((32, 32, 3), dtype=dtype, device=device)
    batch_size = RECIPES[recipe].batch_size
    with Trainer(network, HEADS[head](), Adam(), images(), batch_size=batch_size, workers=1) as trainer:
        losses = [trainer.train_epoch(epoch).loss for epoch in range(1, epochs + 1)]
        return losses, network.weights(), trainer.engine.replica.programs  # type: ignore[union-attr]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_whole_step_is_one_graph_with_the_bits_of_the_eager_step(
    recipe: str, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, weights, programs = trained(recipe, head)
    full = programs["train", RECIPES[recipe].batch_size]
    assert len(full.calls) == len(full.preparations) + 1, "a call of the step could not be captured"
    monkeypatch.setattr(get_device("gpu"), "capture", None)
    eager_losses, eager_weights, eager = trained(recipe, head)
    assert len(eager["train", RECIPES[recipe].batch_size].calls) > 30
    assert losses == eager_losses
    for name in weights:
        np.testing.assert_array_equal(weights[name], eager_weights[name])


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_trains_as_on_the_cpu(recipe: str, head: str) -> None:
    losses, weights, _ = trained(recipe, head, "float64", epochs=1)
    ours, theirs, _ = trained(recipe, head, "float64", "cpu", epochs=1)
    assert losses == pytest.approx(ours, rel=1e-9)
    for name in weights:
        np.testing.assert_allclose(weights[name], theirs[name], rtol=1e-6, atol=1e-8)


def test_the_same_seed_gives_the_same_bits() -> None:
    (losses, weights, _), (again, weights_again, _) = (trained("same-padding", "gumbel") for _ in range(2))
    assert losses == again
    assert all((weights[name] == weights_again[name]).all() for name in weights)
    assert losses[0] != losses[1]


def test_two_replays_draw_different_noise_and_a_step_its_own(gpu: Any) -> None:
    """With a learning rate of next to nothing, so that only the noise makes the loss."""
    network = Sequential([Conv2D(4, 3), ReLU(), Dropout(0.3), Flatten(), Dense(20), GumbelSoftmax(0.7), Dense(100)])
    network.build((32, 32, 3), dtype="float64", device=gpu)
    with Trainer(network, GumbelSoftmaxCrossEntropy(0.5), Adam(1e-30), images(), batch_size=50) as trainer:
        losses, metrics = [], trainer.engine.arrays["metrics"]
        for step in (0, 1, 2, 3, 1, 2):
            metrics.fill(0)
            trainer.engine.train(0, 50, step)
            losses.append(float(gpu.to_host(metrics)[0, 0]))
    assert len(set(losses[:4])) == 4
    assert losses[4:] == losses[1:3]


def test_gradients_are_the_slopes(gpu: Any) -> None:
    source, network = np.random.default_rng(0), Sequential(
        [Conv2D(6, 3, padding="same"), ReLU(), MaxPooling2D(), Conv2D(8, 3, strides=2), ReLU(), Flatten(), Dense(5)]
    )  # fmt: skip
    network.build((12, 12, 3), dtype="float64", device=gpu)
    x, dy, direction = (gpu.to_device(source.standard_normal(shape)) for shape in
                        ((4, 12, 12, 3), (4, 5), network.parameters.size))  # fmt: skip
    network.forward(x)
    network.backward(dy)
    slope, start, step = float((network.gradients * direction).sum()), network.parameters.copy(), 1e-6
    values = []
    for sign in (1, -1):
        network.parameters[...] = start + sign * step * direction
        values.append(float((network.forward(x) * dy).sum()))
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=1e-6)


def test_a_full_epoch_learns(gpu: Any) -> None:
    source, count = np.random.default_rng(0), 50_000
    labels = source.integers(0, 100, count)
    pixels = source.integers(0, 60, (count, 32, 32, 3), dtype=np.uint8)
    pixels[np.arange(count), labels % 32, labels // 4] = 255
    split, names = Split(pixels, labels), tuple(map(str, range(100)))
    data = Dataset("bright pixels", split, Split(pixels[:1000], labels[:1000]), names, (), np.empty(0, np.int64))
    network = RECIPES["same-padding"].network(100)
    network.build((32, 32, 3), device=gpu)
    with Trainer(network, SoftmaxCrossEntropy(), Adam(), data, batch_size=64) as trainer:
        result = trainer.train_epoch(1)
        accuracy = np.mean(trainer.predict("test").argmax(1) == labels[:1000])
    assert 0 < result.loss < np.log(100)
    assert accuracy > 0.2
    assert 0 < result.accuracy < 1


def test_tf32_rounds_factors_to_ten_bits() -> None:
    device, source = get_device("gpu"), np.random.default_rng(0)
    a, b = (source.standard_normal((256, 256)).astype(np.float32) for _ in range(2))
    exact, errors, before = a.astype(np.float64) @ b, {}, device.precision
    for device.precision in ("fp32", "tf32"):
        out = device.zeros((256, 256), np.float32)
        device.ops.matmul(device.to_device(a), device.to_device(b), out=out)
        errors[device.precision] = np.linalg.norm(device.to_host(out) - exact) / np.linalg.norm(exact)
    device.precision = before
    assert errors["fp32"] < 1e-6
    assert errors["fp32"] < errors["tf32"] < 1e-3
