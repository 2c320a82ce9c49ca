"""The same network on another device: a stand-in everywhere, CuPy where there is a GPU."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from scratchnet import (
    Adam,
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GumbelSoftmaxCrossEntropy,
    MaxPooling2D,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
)
from scratchnet.backend import Device, get_device
from scratchnet.backend import device as devices
from scratchnet.backend.cublas import WORKSPACE
from scratchnet.backend.device import Gpu
from scratchnet.backend.gpu_ops import GpuOps
from scratchnet.errors import DeviceError
from scratchnet.training import Trainer
from tests.backend.strict_device import DeviceArray, StrictDevice
from tests.backend.test_cublas import Library
from tests.kernels.gpu.host_cuda import NEEDS_COMPILER, KernelDevice
from tests.layers.catalogue import EXAMPLES
from tests.reference.checks import gradients_of
from tests.training.problem import dataset

STAND_INS = {"stand-in": StrictDevice, "stand-in with kernels": KernelDevice}
DEVICES: list[Any] = [
    "stand-in",
    pytest.param("stand-in with kernels", marks=NEEDS_COMPILER),
    pytest.param("gpu", marks=pytest.mark.gpu),
]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Device:
    return STAND_INS[request.param]() if request.param in STAND_INS else get_device("gpu")


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("training", [False, True])
def test_every_layer_is_the_same_as_on_the_cpu(name: str, training: bool, device: Device) -> None:
    source, results, shape = np.random.default_rng(0), [], EXAMPLES[name].input_shape
    x = source.standard_normal((5, *shape))
    for where in (get_device("cpu"), device):
        module = EXAMPLES[name].make()
        module.build(shape, dtype="float64", device=where)
        y = module.forward(where.to_device(x), training)
        dy = np.random.default_rng(1).standard_normal(y.shape)
        dx = module.backward(where.to_device(dy))
        moving = [array for layer in module.leaves for array in layer.moving.values()]
        results.append([where.to_host(array) for array in (y, dx, *gradients_of(module), *moving)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("head", [SoftmaxCrossEntropy(), GumbelSoftmaxCrossEntropy(0.5, seed=1)])
def test_training_is_the_same_as_on_the_cpu(head: Any, device: Device) -> None:
    results = []
    for where in (get_device("cpu"), device):
        network = Sequential(
            [
                Conv2D(6, 3, padding="same"), ReLU(), MaxPooling2D(), Conv2D(16, 3), BatchNormalization(), ReLU(),
                Dropout(0.2), Flatten(), Dense(5),
            ]
        )  # fmt: skip
        network.build((8, 8, 3), dtype="float64", device=where)
        with Trainer(network, head, Adam(), dataset(), batch_size=32, workers=1) as trainer:
            losses = [trainer.train_epoch(epoch).loss for epoch in (1, 2)]
            results.append((losses, trainer.predict("test"), network.weights()))
    (loss, logits, weights), (loss_2, logits_2, weights_2) = results
    assert loss_2 == pytest.approx(loss, rel=1e-9)
    np.testing.assert_allclose(logits_2, logits, rtol=1e-6, atol=1e-8)
    assert all(np.allclose(weights_2[name], weights[name], rtol=1e-6, atol=1e-8) for name in weights)


class FakeCupy(ModuleType):
    """As much of CuPy as the GPU device touches when it is made; notes the order."""

    def __init__(self, count: int, capability: str = "90") -> None:
        super().__init__("cupy")
        self.log: list[str] = []
        self.full = False
        self.cuda = SimpleNamespace(
            runtime=SimpleNamespace(getDeviceCount=lambda: count),
            Stream=lambda non_blocking: SimpleNamespace(ptr=7),
            Event=lambda disable_timing: None,
            Device=lambda: SimpleNamespace(compute_capability=capability),
            alloc_pinned_memory=bytearray,
            nvrtc=SimpleNamespace(getVersion=lambda: (13, 0)),
        )

    def empty(self, size: int, dtype: Any) -> Any:
        if self.full:
            raise MemoryError(f"Out of memory allocating {size} bytes")  # what CuPy's error is derived from
        self.log.append("workspace")
        return SimpleNamespace(data=SimpleNamespace(ptr=8))

    def sum(self) -> None: ...

    def amax(self) -> None: ...


@pytest.mark.parametrize(("capability", "precision"), [("75", "fp32"), ("80", "tf32"), ("90", "tf32")])
def test_the_gpu_device_sets_stream_and_workspace_before_all_else(
    capability: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cupy, library = FakeCupy(1, capability), Library()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(devices, "_cublas_library", lambda: library)
    for chosen in (None, "fp32", "tf32"):
        library.log.clear()
        device = Gpu(chosen)
        assert library.log[:2] == [("stream", 7), ("workspace", (8, WORKSPACE))]
        assert device.precision == (chosen or precision)
        assert library.log[-1] == ("mode", {"fp32": 0, "tf32": 3}[device.precision])
    assert device.cuda is Gpu().cuda  # one stream for all precisions
    assert isinstance(device.ops, GpuOps)


def test_what_keeps_a_gpu_from_being_used_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy(0))
    with pytest.raises(DeviceError, match="shows none"):
        Gpu()

    old = FakeCupy(1)
    old.cuda.runtime.getDeviceCount = lambda: (_ for _ in ()).throw(RuntimeError("cudaErrorInsufficientDriver: CUDA"))
    monkeypatch.setitem(sys.modules, "cupy", old)
    with pytest.raises(DeviceError, match=r"a driver as new as CuPy's CUDA.*InsufficientDriver.*\[cuda12\]"):
        Gpu()

    full = FakeCupy(1)
    full.full = True
    monkeypatch.setitem(sys.modules, "cupy", full)
    with pytest.raises(DeviceError, match=r"cannot be set up \(Out of memory allocating \d+ bytes\): .*nvidia-smi"):
        Gpu()

    monkeypatch.setitem(sys.modules, "cupy", FakeCupy(1))
    for error in (RuntimeError("no libcublas"), ModuleNotFoundError("no libcublas")):
        monkeypatch.setattr(devices, "_cublas_library", lambda error=error: (_ for _ in ()).throw(error))
        with pytest.raises(DeviceError, match=r"cannot be set up \(no libcublas\): .*a library of CUDA is missing"):
            Gpu()


def test_two_cupy_packages_are_named_before_one_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)  # to import it would fail
    names = [SimpleNamespace(metadata={"Name": name}) for name in ("cupy-cuda12x", "numpy", None, "cupy-cuda13x")]
    monkeypatch.setattr(devices, "distributions", lambda: names)
    with pytest.raises(DeviceError, match="here are 2, cupy-cuda12x and cupy-cuda13x, which"):
        Gpu()


def test_the_stand_in_refuses_host_arrays() -> None:
    ours, host = StrictDevice().to_device(np.ones(3)), np.ones(3)
    assert isinstance(ours + 1.0, DeviceArray)
    with pytest.raises(TypeError, match="host array"):
        ours + host
    with pytest.raises(TypeError, match="host array"):
        ours[...] = host
    with pytest.raises(AttributeError, match="sliding_window_view"):
        getattr(StrictDevice().xp, "sliding_window_view")  # noqa: B009
    layer = Dense(2)
    layer.build((3,), dtype="float64", device=StrictDevice())
    with pytest.raises(TypeError, match="not an array of the gpu"):
        layer.forward(np.ones((1, 3)))
