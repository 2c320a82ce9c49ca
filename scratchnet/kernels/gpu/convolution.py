"""Convolution on the GPU: gather the windows, one matrix product, and an epilogue in one kernel (im2col).

Applies to every convolution: any kernel size, stride, padding and dilation. Padding takes no memory: the kernels know
where the image ends.
"""

from math import prod

from scratchnet.backend import Array, Memory, view
from scratchnet.kernels.geometry import Windows
from scratchnet.kernels.gpu.column_sums import ColumnSums
from scratchnet.kernels.gpu.launch import NULL, Kernel, image_strides


class Convolution:
    """One convolution of a batch with its epilogue; owns its input `x`, `dx` (N, H, W, C) and the gathered windows."""

    def __init__(
        self,
        images: int,
        input_shape: tuple[int, ...],
        filters: int,
        windows: Windows,
        memory: Memory,
        *,
        relu: bool = False,
        pool: bool = False,
        input_gradient: bool = True,
    ) -> None:
        (height, width, channels), step = input_shape, 2 if pool else 1
        rows, columns = (outputs // step * step for outputs in windows.outputs)  # pooling leaves out an odd last one
        self.memory, self.ops, self.input_gradient = memory, memory.device.ops, input_gradient
        self.products = images * rows * columns, filters
        self.terms = prod(windows.size) * channels
        constants = {
            "IMAGES": images, "HEIGHT": height, "WIDTH": width, "CHANNELS": channels,
            "KERNEL_H": windows.rows.size, "STRIDE_H": windows.rows.stride,
            "DILATION_H": windows.rows.dilation, "TOP": windows.rows.before,
            "KERNEL_W": windows.columns.size, "STRIDE_W": windows.columns.stride,
            "DILATION_W": windows.columns.dilation, "LEFT": windows.columns.before,
            "ROWS": rows, "COLUMNS": columns, "FILTERS": filters, "POOL": step, "RELU": int(relu),
        }  # fmt: skip
        self.im2col, self.col2im, self.epilogue, self.epilogue_backward = (
            Kernel(memory.device, "convolution.cu", name, memory.dtype, **constants)
            for name in ("im2col", "col2im", "epilogue", "epilogue_backward")
        )
        self.column_sums = ColumnSums(*self.products, memory)
        self.x = memory.activation(images, input_shape)
        if input_gradient:
            self.dx = memory.activation(images, input_shape)
        self.columns = memory.buffer(self.products[0], self.terms)
        self.choice = memory.buffer(images, rows // step, columns // step, filters, dtype="uint8")

    def forward(self, kernel: Array, bias: Array | None, y: Array) -> None:
        """y = x * kernel + bias, then the epilogue; `y` has axes N, H, W, C and may have margins around it."""
        self.im2col(self.columns.size, self.x, self.columns)
        with self.memory.scratch() as take:
            z = take(*self.products)
            self.ops.matmul(self.columns, view(kernel, self.terms, -1), out=z)
            self.epilogue(self.choice.size, z, NULL if bias is None else bias, y, *image_strides(y), self.choice)

    def backward(self, kernel: Array, dy: Array, dkernel: Array, dbias: Array | None) -> None:
        """Gradients of the kernel, the bias and (unless nobody asked for it) the input, into `dx`."""
        with self.memory.scratch() as take:
            dz = take(*self.products)
            self.epilogue_backward(dz.size, dy, *image_strides(dy), self.choice, dz)
            if dbias is not None:
                self.column_sums(dz, dbias)
            self.ops.matmul(self.columns.T, dz, out=view(dkernel, self.terms, -1))
            if self.input_gradient:
                dcolumns = take(*self.columns.shape)
                self.ops.matmul(dz, view(kernel, self.terms, -1).T, out=dcolumns)
                self.col2im(self.dx.size, dcolumns, self.dx)
