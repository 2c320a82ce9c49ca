"""Convolution on the GPU: gather the windows, one matrix product, and an epilogue in one kernel (im2col).

Applies to every convolution: any kernel size, stride, padding and dilation. Padding takes no memory: the kernels know
where the image ends. Kernel and bias are one matrix, and the bias one more term of each window, whose input is 1: the
products add it and sum its gradient.
"""

from math import prod

from scratchnet.backend import Array, Memory
from scratchnet.backend.cuda import Kernel, image_strides
from scratchnet.kernels.geometry import Convolution


class GpuConvolution:
    """One convolution of a batch with its epilogue; owns its input `x`, `dx` (N, H, W, C) and the gathered windows.

    Its parameters are a matrix of `shape`: a row for each term of the kernel, one for the bias, and more that stay 0.
    """

    def __init__(self, convolution: Convolution, memory: Memory, shape: tuple[int, int], bias: bool) -> None:
        images, filters, windows = convolution.images, convolution.filters, convolution.windows
        (height, width, channels), step = convolution.input_shape, 2 if convolution.pool else 1
        rows, columns = (outputs // step * step for outputs in windows.outputs)  # pooling leaves out an odd last one
        self.memory, self.ops, self.input_gradient = memory, memory.device.ops, convolution.input_gradient
        self.products, terms = images * rows * columns, prod(windows.size) * channels
        constants = {
            "HEIGHT": height, "WIDTH": width, "CHANNELS": channels, "ROWS": rows, "COLUMNS": columns, "POOL": step,
            "FILTERS": filters, "RELU": int(convolution.relu), "TERM_PITCH": shape[0], "FILTER_PITCH": shape[1],
        }  # fmt: skip
        pairs = windows.size, windows.strides, windows.dilation
        for name, (of_rows, of_columns) in zip(("KERNEL", "STRIDE", "DILATION"), pairs, strict=True):
            constants |= {f"{name}_H": of_rows, f"{name}_W": of_columns}
        (constants["TOP"], _), (constants["LEFT"], _) = windows.margins
        self.im2col, self.col2im, self.epilogue, self.epilogue_backward = (
            Kernel(memory.device, "convolution.cu", name, memory.dtype, **constants)
            for name in ("im2col", "col2im", "epilogue", "epilogue_backward")
        )
        self.x = memory.activation(images, convolution.input_shape)
        if self.input_gradient:
            self.dx = memory.activation(images, convolution.input_shape)
        self.columns = memory.buffer(self.products, shape[0])
        self.columns[:, terms : terms + bias] = 1
        self.gathered = self.products * terms
        self.choice = memory.buffer(images, rows // step, columns // step, filters, dtype="uint8")

    def forward(self, weights: Array, y: Array) -> None:
        """y = x * kernel + bias, then the epilogue; `y` has axes N, H, W, C and may have margins around it."""
        self.im2col(self.gathered, self.x, self.columns)
        with self.memory.scratch() as take:
            z = take(self.products, weights.shape[1])
            self.ops.matmul(self.columns, weights, out=z)
            self.epilogue(self.choice.size, z, y, *image_strides(y), self.choice)

    def backward(self, weights: Array, dy: Array, dweights: Array) -> None:
        """Gradients of the parameters and (unless nobody asked for it) the input, into `dx`."""
        with self.memory.scratch() as take:
            dz = take(self.products, weights.shape[1])
            self.epilogue_backward(dz.size, dy, *image_strides(dy), self.choice, dz)
            self.ops.matmul(self.columns.T, dz, out=dweights)
            if self.input_gradient:
                dcolumns = take(*self.columns.shape)
                self.ops.matmul(dz, weights.T, out=dcolumns)
                self.col2im(self.dx.size, dcolumns, self.dx)
