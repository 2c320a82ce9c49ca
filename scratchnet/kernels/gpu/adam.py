"""Adam on a flat vector, on the GPU."""

from typing import Any

from scratchnet.backend import Array, Device
from scratchnet.kernels.gpu.launch import Kernel


class Adam:
    """One step of Adam in place; `scalars` are 1 - beta_1, beta_2, 1 - beta_2, rate and floor of this step."""

    def __init__(self, device: Device, size: int, dtype: Any) -> None:
        self.size, self.kernel = size, Kernel(device, "adam.cu", "adam", dtype)

    def __call__(self, scalars: Array, gradient: Array, parameters: Array, m: Array, v: Array) -> None:
        self.kernel(self.size, scalars, gradient, parameters, m, v)
