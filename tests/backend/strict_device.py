"""A device that behaves like CuPy where that matters: its arrays are not NumPy's and do not mix with them.

It stands in for a GPU where there is none: a host array that slips into a step, or a function that CuPy does not have,
fails here as it would fail there.
"""

from typing import Any

import numpy as np

from scratchnet.backend import Device

# What the package uses of the array module, all of it part of CuPy's interface.
FUNCTIONS = {
    "absolute", "add", "amax", "arange", "argmax", "array", "asarray", "copyto", "divide", "equal", "exp", "float32",
    "float64", "floor", "greater", "greater_equal", "less", "log", "log1p", "logical_not", "logical_or", "matmul",
    "maximum", "minimum", "multiply", "negative", "sqrt", "subtract", "sum", "take", "tanh", "zeros",
}  # fmt: skip
FROM_HOST = {"arange", "array", "asarray", "zeros"}


class DeviceArray(np.ndarray):
    """An array of the stand-in: NumPy's functions refuse to mix it with a host array."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = (), **options: Any) -> Any:
        refuse_host((*inputs, *out))
        options["out"] = tuple(np.asarray(array) for array in out) or None
        result = getattr(ufunc, method)(*(plain(array) for array in inputs), **options)
        return out[0] if out else result.view(DeviceArray)

    def __setitem__(self, key: Any, value: Any) -> None:
        refuse_host((key, value))
        super().__setitem__(key, value)


def plain(array: Any) -> Any:
    return array.view(np.ndarray) if isinstance(array, DeviceArray) else array


def refuse_host(values: Any) -> None:
    for value in values:
        if isinstance(value, np.ndarray) and not isinstance(value, DeviceArray):
            raise TypeError(f"a host array of shape {value.shape} in a device operation")


class Module:
    """The array module of the stand-in."""

    ndarray = DeviceArray

    def __getattr__(self, name: str) -> Any:
        if name not in FUNCTIONS:
            raise AttributeError(f"the device's array module has no {name!r}")
        function = getattr(np, name)
        if isinstance(function, type):
            return function

        def call(*arguments: Any, **options: Any) -> Any:
            if name not in FROM_HOST:
                refuse_host((*arguments, *options.values()))
            result = function(*(plain(a) for a in arguments), **{key: plain(value) for key, value in options.items()})
            return result.view(DeviceArray) if isinstance(result, np.ndarray) else result

        return call


class StrictDevice(Device):
    """The contract of the GPU device, on the host."""

    name = "gpu"
    image_axes = (0, 1, 2, 3)

    def __init__(self) -> None:
        super().__init__(Module())

    def to_device(self, array: np.ndarray) -> DeviceArray:
        return self.xp.asarray(np.array(array))

    def to_host(self, array: DeviceArray) -> np.ndarray:
        return np.array(array.view(np.ndarray), order="C")

    def load(self, host: np.ndarray, out: DeviceArray) -> None:
        assert not isinstance(host, DeviceArray)
        self.xp.copyto(out, self.xp.asarray(host))
