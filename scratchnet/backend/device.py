"""Processors: a device names an array module, moves arrays to and from it, and says how images lie in its memory."""

import ctypes
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache, wraps
from importlib.metadata import distributions
from typing import Any

import numpy as np

from scratchnet.arguments import one_of
from scratchnet.backend.cublas import WORKSPACE, Cublas
from scratchnet.backend.cuda import Cuda
from scratchnet.backend.gpu_ops import GpuOps
from scratchnet.backend.ops import Ops
from scratchnet.backend.program import Capture
from scratchnet.errors import DeviceError

DEVICES = "cpu", "gpu"
PRECISIONS = "fp32", "tf32"
EXTRAS = "scratchnet[cuda12] or scratchnet[cuda13]"
AMPERE = 80  # the first compute capability with TF32

Array = Any  # a numpy.ndarray or a cupy.ndarray


class Device:
    """One processor and its array module.

    `image_axes` are the places in memory of an activation's logical axes N, H, W, C, slowest first. Where there is a
    compiler for CUDA, `cuda`, the kernels of kernels/gpu do the work; `capture` is for Program. `precision` is how
    float32 matrix products are made: "fp32", or on a GPU "tf32" with factors rounded to 10 bits.
    """

    name: str
    image_axes: tuple[int, int, int, int]
    cuda: Any = None
    capture: Capture | None = None
    precision = "fp32"

    def __init__(self, xp: Any = np, ops: Ops | None = None) -> None:
        self.xp, self.ops = xp, ops or Ops(xp)

    def session(self) -> AbstractContextManager[None]:
        """Whoever computes on the device does so inside: on a GPU it sets the stream, and keeps the order of others."""
        return nullcontext()

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> Array:
        return self.xp.zeros(shape, dtype)

    def to_device(self, array: np.ndarray) -> Array:
        return self.xp.asarray(array)

    def to_host(self, array: Array) -> np.ndarray:
        """A fresh, C-contiguous NumPy array of the same values."""
        return np.array(array, order="C")

    def load(self, host: np.ndarray, out: Array) -> None:
        """Copy a NumPy array into a buffer of the device."""
        self.xp.copyto(out, self.xp.asarray(host))

    def __reduce__(self) -> tuple[Any, ...]:
        return get_device, (self.name, self.precision)


def in_session(method: Callable[..., Any]) -> Any:
    """For methods of what has a `device`: the whole method is a session of it."""

    @wraps(method)
    def inside(self: Any, *arguments: Any, **options: Any) -> Any:
        with self.device.session():
            return method(self, *arguments, **options)

    return inside


class Cpu(Device):
    """NumPy. Images lie as (H, W, N, C): a ufunc on a row of pixels then streams over a run of W*N*C values."""

    name = "cpu"
    image_axes = (1, 2, 0, 3)


class Gpu(Device):
    """CuPy. Images lie as (N, H, W, C). The precision is by default "tf32" on a card that has it."""

    name = "gpu"
    image_axes = (0, 1, 2, 3)

    def __init__(self, precision: str | None = None) -> None:
        packages = _cupy_packages()
        if len(packages) > 1:  # before the import, which two packages can break or warn of
            raise DeviceError(
                f"device 'gpu' needs one CuPy package and here are {len(packages)}, {' and '.join(packages)}, which "
                f"overwrite each other: uninstall all of them, then install {EXTRAS}"
            )
        try:
            problem = "needs CuPy, which cannot be imported"
            advice = f"install {EXTRAS}, whichever matches the driver"
            import cupy

            problem = "needs a CUDA GPU and a driver as new as CuPy's CUDA, and CuPy finds none"
            advice = "check nvidia-smi, install scratchnet[cuda12] for an older driver"
            if cupy.cuda.runtime.getDeviceCount() == 0:
                raise RuntimeError("this machine shows none")
            problem = "cannot be set up"
            advice = "another program may have its memory (see nvidia-smi), or a library of CUDA is missing, "
            advice += f"which {EXTRAS} brings"
            capability = int(cupy.cuda.Device().compute_capability)
            self.precision = precision or ("tf32" if capability >= AMPERE else "fp32")
            self.cuda = _cuda(cupy)
            self.workspace = cupy.empty(WORKSPACE, np.uint8)
            tf32, address = self.precision == "tf32", self.workspace.data.ptr
            self.cublas = Cublas(_cublas_library(), self.cuda.stream.ptr, address, tf32)
            cupy.cuda.nvrtc.getVersion()
        except Exception as error:  # of any kind, as it is CuPy's, CUDA's or the driver's
            raise DeviceError(f"device 'gpu' {problem} ({error}): {advice}, or choose the device 'cpu'") from error
        self.capture = self.cuda.capture
        super().__init__(cupy, GpuOps(cupy, self.cublas, self.cuda))

    def session(self) -> AbstractContextManager[None]:
        return self.cuda.session()

    def to_host(self, array: Array) -> np.ndarray:
        return self.xp.asnumpy(array, order="C")

    def load(self, host: np.ndarray, out: Array) -> None:
        if out.flags.c_contiguous:
            self.cuda.load(np.asarray(host, out.dtype, order="C"), out)
        else:
            super().load(host, out)


def _cupy_packages() -> list[str]:
    names = {str(distribution.metadata["Name"]).lower() for distribution in distributions()}  # or None, if damaged
    return sorted(name for name in names if name == "cupy" or name.startswith(("cupy-cuda", "cupy-rocm")))


def _cublas_library() -> ctypes.CDLL:
    """The library that CuPy itself uses: of NVIDIA's wheel or of the CUDA toolkit."""
    from cuda.pathfinder import load_nvidia_dynamic_lib  # comes with CuPy

    return ctypes.CDLL(load_nvidia_dynamic_lib("cublas").abs_path)


_cuda = cache(Cuda)  # one for all devices: whatever they do is then in one order
_made: dict[tuple[str, str | None], Device] = {}
_making = threading.Lock()


def get_device(name: str, precision: str | None = None) -> Any:
    """The device called "cpu" or "gpu", and there the one of this precision ("fp32", "tf32", None: its default).

    Raises ValueError for other names, DeviceError where the device cannot be used.
    """
    if name not in DEVICES:
        raise ValueError(f"unknown device {name!r}: choose one of {', '.join(map(repr, DEVICES))}")
    if precision is not None:
        one_of(precision, PRECISIONS if name == "gpu" else PRECISIONS[:1], "precision", f"device {name!r}")
    with _making:
        if (name, precision) not in _made:
            device = Gpu(precision) if name == "gpu" else Cpu()
            _made[name, precision] = _made.setdefault((name, device.precision), device)  # one, by default or by name
        return _made[name, precision]
