"""What only a GPU can show; before its other tests, `python -m pytest -m gpu -x tests/kernels/gpu/test_on_a_gpu.py`.

First, one by one, what the package takes for granted of CuPy and cuBLAS: the current stream, the arguments of a kernel,
copies from page-locked memory, what a graph holds and what it refuses. Then the whole step: captured, with the bits of
the eager step, with new noise in every replay, and right.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest

from scratchnet import (
    SGD,
    Adam,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GumbelSoftmax,
    GumbelSoftmaxCrossEntropy,
    MaxPooling2D,
    ReLU,
    Reshape,
    Sequential,
    SoftmaxCrossEntropy,
)
from scratchnet.backend import Program, get_device, owned_by, prepare, run
from scratchnet.backend.cuda import LINE, RING, Graph
from scratchnet.data import Dataset, Split, load_dataset
from scratchnet.errors import DeviceError
from scratchnet.experiments.recipes import RECIPES, REPORTED
from scratchnet.heads import SampledSoftmax, TwoLevelSoftmax
from scratchnet.training import Trainer
from tests.layers.catalogue import EXAMPLES
from tests.layers.test_custom import LayerNormalization

pytestmark = pytest.mark.gpu
HEADS = {
    "softmax": SoftmaxCrossEntropy,
    "gumbel": lambda: GumbelSoftmaxCrossEntropy(0.5),
    "two-level": lambda: TwoLevelSoftmax(100, np.arange(100) // 7),
    "sampled": lambda: SampledSoftmax(100, 8),
}


@pytest.fixture
def gpu() -> Any:
    return get_device("gpu")


# --- what is taken for granted


def test_a_session_has_its_stream_and_gives_the_callers_back(gpu: Any) -> None:
    current, cuda = gpu.xp.cuda.get_current_stream, gpu.xp.cuda
    default, used, entered = current(), cuda.Stream(), cuda.Stream(non_blocking=True)
    assert gpu.cuda.stream.is_non_blocking

    def session_from(caller: Any) -> None:
        assert current() == caller
        with gpu.session():
            assert current() == gpu.cuda.stream
            gpu.capture([(gpu.zeros(3, "float32").fill, (1,))], ["a fill"])
            gpu.to_host(gpu.zeros((3, 4), "float32").T)
            assert current() == gpu.cuda.stream, "capturing, or a copy to the host, left another stream current"
        assert current() == caller

    session_from(default)
    used.use()
    try:
        session_from(used)
    finally:
        default.use()
    with entered:
        session_from(entered)
        with pytest.raises(ZeroDivisionError), gpu.session():
            raise ZeroDivisionError
        session_from(entered)
    assert current() == default


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


def slow_work(gpu: Any, loops: int = 300_000) -> Any:
    """An event after a kernel of some hundred milliseconds on the current stream, and the counter it adds 1 to."""
    source = (
        'extern "C" __global__ void slow(volatile double* x, int loops) {\n'
        "    double sum = 0;\n    for (int i = 0; i < loops; ++i) sum += x[1];\n    x[0] += 1 + sum;\n}\n"
    )
    counter, event = gpu.zeros(2, "float64"), gpu.xp.cuda.Event(disable_timing=True)
    gpu.cuda.kernel(source, "slow", {})((1,), (1,), (counter, np.int32(loops)))
    event.record()
    return event, counter


def test_a_load_is_what_the_host_had_when_it_was_asked_for(gpu: Any) -> None:
    host, outs = np.zeros(5), [gpu.zeros(5, "float64") for _ in range(3 * RING // LINE)]
    with gpu.session():
        slow_work(gpu)
    for number, out in enumerate(outs):
        host[...] = number
        gpu.load(host, out=out)
    wrong = [number for number, out in enumerate(outs) if (gpu.to_host(out) != number).any()]
    assert not wrong, "slots of the page-locked memory were written again before they were read"


def test_work_comes_after_what_the_caller_put_on_its_stream_and_before_what_it_puts_there_later(gpu: Any) -> None:
    layer = Dense(3)
    layer.build((2,), device=gpu, dtype="float64")
    for caller in (gpu.xp.cuda.Stream.null, gpu.xp.cuda.Stream(), gpu.xp.cuda.Stream(non_blocking=True)):
        with caller:
            _, counter = slow_work(gpu)
            y = layer.forward(counter[None])  # which is 0 until the slow kernel ends
            gpu.cuda.stream.synchronize()  # and not the caller's, which would wait for the kernel anyway
            y += 1
            expected = gpu.to_host(layer.kernel)[0] + 1
            np.testing.assert_array_equal(gpu.to_host(y)[0], expected)


def test_a_graph_holds_products_copies_and_fills_and_waits_for_what_was_prepared(gpu: Any) -> None:
    source = np.random.default_rng(0)
    a, b = (gpu.to_device(source.standard_normal((64, 64)).astype(np.float32)) for _ in range(2))
    product, flipped = (gpu.zeros((64, 64), "float32") for _ in range(2))
    total, now, step = gpu.zeros(1, "float64"), gpu.zeros(1, "float64"), [0]

    def load() -> None:
        step[0] += 1
        gpu.load(np.array([step[0]], np.float64), out=now)

    new = source.standard_normal((64, 64)).astype(np.float32)
    with gpu.session():
        with Program(gpu.capture) as program:
            prepare(load)
            gpu.ops.fill(0, out=product)
            gpu.ops.matmul(a, b, out=product)
            gpu.ops.add(total, now, out=total)
            gpu.ops.copy(product.T, out=flipped)
        gpu.load(new, out=a)
        for _ in range(1000):
            program.replay()
    expected = new @ gpu.to_host(b)
    error = np.linalg.norm(gpu.to_host(flipped).T - expected) / np.linalg.norm(expected)
    assert len(program.calls) == 2, "cuBLAS, a ufunc, a fill or a copy cannot be captured"
    assert float(gpu.to_host(total)[0]) == 1001 * 1002 / 2, "a graph ran before or after the load that belongs to it"
    assert error < 1e-2, "the graph did not see what its buffers held"


def wait(gpu: Any, out: Any) -> None:
    out.fill(1)
    gpu.cuda.stream.synchronize()


def allocate(gpu: Any, out: Any) -> None:
    gpu.xp.copyto(out, gpu.xp.ones(4, np.float32) + 1)


def interrupted(gpu: Any, out: Any) -> None:
    if gpu.cuda.stream.is_capturing():
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("function", "error"), [(wait, DeviceError), (allocate, DeviceError), (interrupted, KeyboardInterrupt)]
)
def test_what_cannot_be_captured_is_named_and_leaves_the_stream_usable(gpu: Any, function: Any, error: type) -> None:
    out = gpu.zeros(4, "float32")
    with gpu.session():
        with Program(gpu.capture) as program:
            owned_by("my_layer")
            run(function, gpu, out)
        for _ in range(2):
            with pytest.raises(error) as caught:
                program.replay()
            assert error is not DeviceError or f"`{function.__name__}` in my_layer fails" in str(caught.value)
            assert not gpu.cuda.stream.is_capturing()
    with gpu.session(), Program(gpu.capture) as program:
        gpu.ops.fill(7, out=out)
    out.fill(0)
    with gpu.session():
        program.replay()
    assert gpu.to_host(out).tolist() == [7] * 4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 31), (9, 32), (2, 5, 33), (4, 1000), (70, 100)])
def test_reductions_of_rows_are_captured_and_numpys(gpu: Any, shape: tuple[int, ...], dtype: str) -> None:
    values = np.random.default_rng(0).integers(-4, 5, shape).astype(dtype)  # with ties, and exact
    values[0, ..., -1] = np.nan
    a = gpu.to_device(values)
    outs = [gpu.zeros(shape[:-1], kind) for kind in (dtype, dtype, "int64")]
    with gpu.session():
        with Program(gpu.capture) as program:
            for name, out in zip(("sum", "max", "argmax"), outs, strict=True):
                getattr(gpu.ops, name)(a, axis=-1, out=out)
        for out in outs:
            out.fill(9)
        program.replay()
    with np.errstate(invalid="ignore"):
        expected = values.sum(-1), values.max(-1), values.argmax(-1)
    for out, wanted in zip(outs, expected, strict=True):
        np.testing.assert_array_equal(gpu.to_host(out), wanted)


@pytest.mark.parametrize(("dtype", "precision"), [("float32", "fp32"), ("float32", "tf32"), ("float64", "fp32")])
def test_products_of_stacks_are_captured_and_numpys(dtype: str, precision: str) -> None:
    """A batch for the longest axis, with one factor for the whole stack, or results that lie inside one another."""
    source, device = np.random.default_rng(0), get_device("gpu", precision)
    a, b = (source.standard_normal(shape).astype(dtype) for shape in ((3, 9, 33, 16), (16, 40)))
    a_there, b_there, stack = device.to_device(a), device.to_device(b), device.zeros((33, 3, 9, 40), dtype)
    square = device.zeros((3, 9, 33, 33), dtype)
    with device.session():
        with Program(device.capture) as program:
            device.ops.matmul(a_there, b_there, out=stack.transpose(1, 2, 0, 3))
            device.ops.matmul(a_there, a_there.swapaxes(2, 3), out=square)
        stack.fill(7)
        square.fill(7)
        program.replay()
    for found, factor in ((device.to_host(stack).transpose(1, 2, 0, 3), b), (device.to_host(square), a.swapaxes(2, 3))):
        expected = a.astype(np.float64) @ factor
        error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        assert error < {"float64": 1e-14, "fp32": 1e-6}.get(dtype if dtype == "float64" else precision, 1e-3)


# --- the step


def images(shape: tuple[int, ...] = (32, 32, 3), classes: int = 100, counts: tuple[int, int] = (300, 100)) -> Dataset:
    source = np.random.default_rng(0)
    train, test = (
        Split(source.integers(0, 256, (count, *shape), dtype=np.uint8), source.integers(0, classes, count))
        for count in counts
    )
    return Dataset("random", train, test, tuple(map(str, range(classes))), (), np.empty(0, np.int64))


def trained(recipe: str, head: str, dtype: str = "float32", device: str = "gpu", epochs: int = 2) -> Any:
    """Losses and weights, and the trainer's programs."""
    network = RECIPES[recipe].network(100)
    network.build((32, 32, 3), dtype=dtype, device=device)
    batch_size = RECIPES[recipe].batch_size
    with Trainer(network, HEADS[head](), Adam(), images(), batch_size=batch_size, workers=1) as trainer:
        losses = [trainer.train_epoch(epoch).loss for epoch in range(1, epochs + 1)]
        return losses, network.weights(), trainer.engine.replica.programs  # type: ignore[union-attr]


OF_REPORTS = [(recipe, head) for recipe in REPORTED for head in HEADS]


@pytest.mark.parametrize(
    ("recipe", "head"), [*OF_REPORTS, ("transformer", "gumbel"), ("transformer-tokens-gumbel", "softmax")]
)
def test_the_whole_step_is_one_graph_with_the_bits_of_the_eager_step(
    recipe: str, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, weights, programs = trained(recipe, head)
    full = programs["train", RECIPES[recipe].batch_size]
    assert isinstance(full.calls[-1][0], Graph)
    assert len(full.calls) == len(full.preparations) + 1, "more than one launch, and what prepares it"
    monkeypatch.setattr(get_device("gpu"), "capture", None)
    eager_losses, eager_weights, eager = trained(recipe, head)
    assert len(eager["train", RECIPES[recipe].batch_size].calls) > 20
    assert losses == eager_losses
    for name in weights:
        np.testing.assert_array_equal(weights[name], eager_weights[name])


def noisy_digits() -> Dataset:
    """scikit-learn's digits with noise: equal values in a window of pooling would be told apart by rounding alone."""
    digits = load_dataset("digits")
    noise = np.random.default_rng(0).integers(-20, 21, digits.train.images.shape)
    pixels = np.clip(digits.train.images // 2 + 64 + noise, 0, 255).astype(np.uint8)
    train, test = Split(pixels[:600], digits.train.labels[:600]), Split(pixels[600:700], digits.train.labels[600:700])
    return replace(digits, train=train, test=test)


def losses_of_20_steps(recipe: str, head: str, device: str) -> tuple[list[float], Any]:
    network = RECIPES[recipe].network(10)
    network.build((32, 32, 3), dtype="float64", device=device)
    losses, arrays = [], None
    with Trainer(network, HEADS[head](), Adam(), noisy_digits(), batch_size=32, workers=1) as trainer:
        arrays = trainer.engine.arrays
        network.device.load(np.random.default_rng(1).permutation(600), out=arrays["order"])
        for step in range(20):  # the last of an epoch has 24 images
            arrays["metrics"].fill(0)
            trainer.engine.train(step % 19 * 32, 32 if step % 19 < 18 else 24, step)
            losses.append(float(network.device.to_host(arrays["metrics"])[0, 0]) / 32)
        return losses, trainer.predict("test")


def on_another_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


@pytest.mark.parametrize(("recipe", "head"), [*OF_REPORTS, ("transformer-tokens-gumbel", "gumbel")])
def test_20_steps_are_the_cpus_from_any_thread_and_stream(recipe: str, head: str, gpu: Any) -> None:
    ours, logits = losses_of_20_steps(recipe, head, "cpu")
    theirs, their_logits = losses_of_20_steps(recipe, head, "gpu")
    np.testing.assert_allclose(theirs, ours, rtol=1e-12)
    np.testing.assert_allclose(their_logits, logits, rtol=1e-9, atol=1e-9)
    assert len(set(ours)) == 20
    if (recipe, head) == ("same-padding", "gumbel"):
        assert on_another_thread(losses_of_20_steps, recipe, head, "gpu")[0] == theirs
        with gpu.xp.cuda.Stream(non_blocking=True):
            assert losses_of_20_steps(recipe, head, "gpu")[0] == theirs


def test_two_threads_at_once_train_as_one_after_the_other() -> None:
    cases = [("valid-padding", "gumbel"), ("valid-padding", "softmax")]
    alone = [losses_of_20_steps(*case, "gpu")[0] for case in cases]
    with ThreadPoolExecutor(2) as pool:
        together = [future.result()[0] for future in [pool.submit(losses_of_20_steps, *case, "gpu") for case in cases]]
    assert together == alone


@pytest.mark.parametrize(
    "make",
    [SGD, lambda: SGD(0.1, 0.9), lambda: SGD(0.1, 0.9, nesterov=True), Adam, lambda: Adam(epsilon_placement="pytorch")],
)
@pytest.mark.parametrize("head", HEADS)
def test_every_head_and_optimizer_is_one_graph(head: str, make: Any) -> None:
    check_one_graph(lambda: Sequential([Dense(7), ReLU()]), (4,), HEADS[head](), make)


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_every_layer_of_the_catalogue_is_one_graph(name: str) -> None:
    check_one_graph(EXAMPLES[name].make, EXAMPLES[name].input_shape, SoftmaxCrossEntropy(), Adam)


def test_a_layer_of_ones_own_is_one_graph() -> None:
    """After its replay has been compared with its step, on the GPU too."""
    check_one_graph(LayerNormalization, (6, 5, 3), SoftmaxCrossEntropy(), Adam)


def check_one_graph(make: Callable[[], Any], shape: tuple[int, ...], head: Any, make_optimizer: Any) -> None:
    """A step is one launch after what is prepared; in float64 three epochs with a smaller last batch are the CPU's."""
    results = []
    for device in ("cpu", "gpu"):
        first = [] if len(shape) == 3 else [Flatten(), Dense(prod(shape)), Reshape(shape)]
        network = Sequential([*first, make(), Flatten(), Dense(5)])
        data = images(shape if len(shape) == 3 else (4, 4, 1), 5, (30, 10))
        network.build(data.train.images.shape[1:], dtype="float64", device=device)
        with Trainer(network, head, make_optimizer(), data, batch_size=8, workers=1) as trainer:
            losses = [trainer.train_epoch(epoch).loss for epoch in (1, 2, 3)]
            programs = trainer.engine.replica.programs  # type: ignore[union-attr]
            results.append((losses, [trainer.predict("test") for _ in range(2)][1], network.weights()))
    for program in (programs["train", 8], programs["train", 6], programs["predict test", 10]):
        assert isinstance(program.calls[-1][0], Graph)
        assert len(program.calls) == len(program.preparations) + 1
    (loss, logits, weights), (loss_2, logits_2, weights_2) = results
    assert loss_2 == pytest.approx(loss, rel=1e-9)
    np.testing.assert_allclose(logits_2, logits, rtol=1e-6, atol=1e-8)
    assert all(np.allclose(weights_2[name], weights[name], rtol=1e-6, atol=1e-8) for name in weights)


def test_no_step_waits_for_the_gpu_or_is_drawn_on_the_host(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a kernel that takes its time, steps with every kind of noise go on the stream while it still runs."""
    with gpu.session():
        if all(slow_work(gpu)[0].done for _ in range(10)):
            pytest.skip("this device has done all work when it is asked for, so nothing can be seen to wait")
    network = Sequential([Conv2D(4, 3), ReLU(), Dropout(0.3), Flatten(), Dense(20), GumbelSoftmax(0.7), Dense(100)])
    network.build((32, 32, 3), device=gpu)
    with Trainer(network, GumbelSoftmaxCrossEntropy(0.5), Adam(), images(), batch_size=50) as trainer:
        for step in range(2):  # recorded, then captured
            trainer.engine.train(0, 50, step)
        monkeypatch.setattr("scratchnet.backend.noise.fill_uniform", None)
        for _ in range(20):  # as some other reason may have delayed the steps
            with gpu.session():
                event, _ = slow_work(gpu, 3_000_000)
                for step in (2, 3):
                    trainer.engine.train(0, 50, step)
                if not event.done:
                    break
        else:
            pytest.fail("a step waited until the GPU had done what came before it")


def test_a_head_takes_arrays_of_either_kind(gpu: Any) -> None:
    source, head = np.random.default_rng(0), GumbelSoftmaxCrossEntropy(0.5)
    logits, labels = source.standard_normal((3, 5)), np.array([0, 4, 2])
    expected = GumbelSoftmaxCrossEntropy(0.5)(logits, labels, 3)
    for where in (get_device("cpu"), gpu, get_device("cpu"), gpu):
        loss, dlogits = head(where.to_device(logits), where.to_device(labels), 3)
        assert loss == pytest.approx(expected[0], rel=1e-12)
        np.testing.assert_allclose(where.to_host(dlogits), expected[1], rtol=1e-9, atol=1e-12)


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


def test_it_learns(gpu: Any) -> None:
    data = noisy_digits()
    network = RECIPES["same-padding"].network(10)
    network.build((32, 32, 3), device=gpu)
    with Trainer(network, SoftmaxCrossEntropy(), Adam(), data, batch_size=32) as trainer:
        results = [trainer.train_epoch(epoch) for epoch in range(1, 5)]
        accuracy = np.mean(trainer.predict("test").argmax(1) == data.test.labels)
    assert results[-1].loss < 0.8 < results[0].loss < 3
    assert accuracy > 0.7
    assert 0.7 < results[-1].accuracy <= 1


def test_tf32_rounds_factors_to_ten_bits() -> None:
    source = np.random.default_rng(0)
    a, b = (source.standard_normal((256, 256)).astype(np.float32) for _ in range(2))
    exact, errors = a.astype(np.float64) @ b, {}
    for precision in ("fp32", "tf32", "fp32"):
        device = get_device("gpu", precision)
        out = device.zeros((256, 256), np.float32)
        with device.session():
            device.ops.matmul(device.to_device(a), device.to_device(b), out=out)
        errors[precision] = np.linalg.norm(device.to_host(out) - exact) / np.linalg.norm(exact)
    assert errors["fp32"] < 1e-6
    assert errors["fp32"] < errors["tf32"] < 1e-3
