"""A batch of the data set, on the device."""

from typing import Any

from scratchnet.backend import Array, Device
from scratchnet.kernels.gpu.launch import Kernel, image_strides


class Gather:
    """x = images[order[start : start + N]] / 255 and their labels, for uint8 images (K, C, H, W) and x (N, H, W, C).

    `start` is an int64 array of one number, read when the kernel runs; with NULL for `order` the images are taken as
    they lie.
    """

    def __init__(self, device: Device, rows: int, image_shape: tuple[int, ...], dtype: Any) -> None:
        height, width, channels = image_shape
        self.threads = rows * height * width * channels
        self.kernel = Kernel(device, "gather.cu", "gather", dtype, HEIGHT=height, WIDTH=width, CHANNELS=channels)

    def __call__(self, images: Array, labels: Array, order: Array, start: Array, x: Array, batch_labels: Array) -> None:
        self.kernel(self.threads, images, labels, order, start, x, *image_strides(x), batch_labels)
