"""What docs/extending.md says and its doctest does not show: its kernel, and its layers and heads on other devices."""

import doctest
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scratchnet import Adam, Conv2D, Dense, Flatten, Residual, Sequential, Trainer
from scratchnet.backend import BatchSlice, Device, Memory, get_device
from scratchnet.kernels.table import TABLE
from tests.backend.strict_device import StrictDevice
from tests.benchmarks import memory_order
from tests.kernels.gpu import test_compile
from tests.kernels.gpu.host_cuda import NEEDS_COMPILER, KernelDevice
from tests.reference.checks import TOLERANCE, assert_close
from tests.training.problem import dataset

PAGE = (Path(__file__).parent.parent / "docs" / "extending.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(block["language"], block["code"]) for block in FENCE.finditer(PAGE)]
(SOURCE,) = (code for language, code in BLOCKS if language == "cuda")
PLAIN = [code for language, code in BLOCKS if language == "python" and not code.startswith(">>> ")]
(GPU_TANH,) = (code for code in PLAIN if "class GpuTanh" in code)


@pytest.fixture
def page() -> dict[str, Any]:
    """The classes and functions that the page defines."""
    names: dict[str, Any] = {"__name__": "extending"}
    for example in doctest.DocTestParser().get_examples(PAGE):
        if example.source.startswith(("class ", "def ", "from ", "import ")):
            exec(example.source, names)
    return names


DEVICES: dict[str, Any] = {
    "stand-in": StrictDevice,
    "stand-in with kernels": KernelDevice,
    "gpu": partial(get_device, "gpu", "fp32"),
}
ON_THE_HOST = pytest.param("stand-in with kernels", marks=NEEDS_COMPILER)
ON_A_GPU = pytest.param("gpu", marks=pytest.mark.gpu)


@pytest.fixture(params=["stand-in", ON_THE_HOST, ON_A_GPU])
def device(request: pytest.FixtureRequest) -> Device:
    return DEVICES[request.param]()


def both(network: Sequential, dtype: str, device: Device) -> list[list[np.ndarray]]:
    """Output and gradients of a training step and of inference, on the CPU and on the device."""
    source, results = np.random.default_rng(3), []
    x, dy = source.standard_normal((5, 7, 6, 3)).astype(dtype), source.standard_normal((5, 4)).astype(dtype)
    for where in (get_device("cpu"), device):
        network.build(x.shape[1:], dtype, where)
        found = []
        for training in (True, False):
            y, dx = network.forward(where.to_device(x), training), network.backward(where.to_device(dy))
            gradients = [gradient for layer in network.leaves for gradient in layer.gradients.values()]
            found += [where.to_host(array) for array in (y, dx, *gradients)]
        results.append(found)
    return results


def test_the_layers_are_the_same_on_every_device(page: dict[str, Any], device: Device) -> None:
    tanh, normalization = page["Tanh"], page["RMSNormalization"]
    inner = [normalization(), Conv2D(3, 3, padding="same"), tanh()]  # the margin of a convolution behind one of them
    network = Sequential([tanh(), Residual(inner), Flatten(), Dense(4), normalization(0.1), tanh()])
    for ours, theirs in zip(*both(network, "float64", device), strict=True):
        assert_close(theirs, ours)


@pytest.mark.parametrize("name", ["SmoothedCrossEntropy", "DenseCrossEntropy"])
def test_the_heads_train_the_same_on_every_device(name: str, page: dict[str, Any], device: Device) -> None:
    results = []
    for where in (get_device("cpu"), device):
        head = page[name](5) if name == "DenseCrossEntropy" else page[name]()
        network = Sequential([Flatten(), Dense(head.outputs_for(5) or 6)])
        network.build((8, 8, 3), "float64", where)
        with Trainer(network, head, Adam(), dataset(), batch_size=32, workers=1) as trainer:
            losses = [record["loss"] for record in trainer.fit(2)]
            weights = *network.weights().values(), *head.weights().values()
            results.append([np.array(losses), trainer.predict("test"), *weights])
    for ours, theirs in zip(*results, strict=True):
        assert_close(theirs, ours, 1e-8)


@pytest.mark.parametrize("name", ["SmoothedCrossEntropy", "DenseCrossEntropy"])
def test_parts_of_a_batch_add_up_to_the_whole(name: str, page: dict[str, Any]) -> None:
    """As groups and workers do it: loss, gradient, correct answers, and the gradients of the head's own weights."""
    rng, head = np.random.default_rng(0), page[name](5) if name == "DenseCrossEntropy" else page[name]()
    x, labels, found = rng.standard_normal((9, 5)), rng.integers(0, 5, 9), []
    head.build((5,), "float64")
    for start, size in ((0, 9), (0, 4), (4, 5)):
        bound = head.bound(BatchSlice(start, size, 9), Memory(head.device, "float64"), (), input_gradient=True)
        bound.x[...], bound.labels[...] = x[start : start + size], labels[start : start + size]
        bound.compute(training=True)
        bound.compute_gradients()
        gradients = [gradient.copy() for gradient in head.gradients.values()]
        found.append(([float(bound.loss), int(bound.correct), *gradients], bound.dx))
    (whole, dx), *parts = found
    for together, *each in zip(whole, *(sums for sums, _ in parts), strict=True):
        assert_close(sum(each), together)
    assert_close(np.concatenate([part for _, part in parts]), dx)


def test_a_head_with_weights_knows_its_classes_at_its_first_call(page: dict[str, Any]) -> None:
    """Not those of its outputs, of which there may be fewer."""
    x, head = np.random.default_rng(0).standard_normal((4, 3)), page["DenseCrossEntropy"](5)
    assert head(x, np.array([0, 4, 2, 1]))[1].shape == (4, 3)
    with pytest.raises(ValueError, match="5 classes allow 0 to 4"):
        page["DenseCrossEntropy"](5)(x, np.array([0, 5, 2, 1]))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", [ON_THE_HOST, ON_A_GPU])
def test_the_kernel_is_the_layer(
    kind: str, dtype: str, page: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tanh.cu").write_text(SOURCE)
    tanh = page["Tanh"]
    monkeypatch.setitem(TABLE, tanh, None)  # and out again afterwards
    exec(GPU_TANH, page | {"__file__": str(tmp_path / "gpu_tanh.py")})
    convolutions = [Conv2D(filters, 3, padding="same") for filters in (3, 2)]
    network = Sequential([tanh(), convolutions[0], tanh(), convolutions[1], Flatten(), Dense(4)])
    for ours, theirs in zip(*both(network, dtype, DEVICES[kind]()), strict=True):
        assert_close(theirs, ours, 5 * TOLERANCE[dtype])
    assert {type(layer).__name__ for layer, _ in network.plan(5).nodes} >= {"GpuTanh"}


@pytest.mark.parametrize("real", ["float", "double"])
def test_the_kernel_compiles_for_a_gpu(real: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(test_compile.SOURCES, "tanh.cu", SOURCE)
    monkeypatch.setitem(test_compile.CONSTANTS, "tanh.cu", {})
    test_compile.test_compiles("tanh.cu", real, {}, tmp_path)
    test_compile.test_every_constant_is_known("tanh.cu")


def test_what_does_not_run_is_python_and_said_not_to_run() -> None:
    said = [PAGE.index(words) for words in ("it is not run here", "does not run the next three")]
    catalogue, *of_others = (PAGE.index(code) for code in PLAIN if code != GPU_TANH)
    assert said[0] < catalogue < said[1] < of_others[0]
    assert len(of_others) == 3
    for code in PLAIN:
        compile(code, "extending.md", "exec")


def test_the_files_it_names_exist() -> None:
    named = re.findall(r"`((?:scratchnet|tests|docs)/[\w/.]+)`", PAGE)
    assert len(named) > 10
    for file in named:
        if "NAME" not in file:
            assert (Path(__file__).parents[1] / file).exists(), file


def test_the_benchmark_of_memory_orders_does_the_same_sum_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory_order, "ROUNDS", 2)
    memory_order.main()
    assert len(capsys.readouterr().out.splitlines()) == 3 * len(memory_order.works(8))
    (_, x, *_, sums), (product, matrix, ones, rows) = list(memory_order.works(5).values())[-2:]
    x[...] = np.random.default_rng(0).random(x.shape)
    assert np.shares_memory(matrix, x)
    product(matrix, ones, rows)
    assert_close(sums, x.sum(-1), 1e-6)
