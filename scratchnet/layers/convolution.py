"""Two-dimensional convolution."""

from typing import Any

from scratchnet.arguments import boolean, one_of, pair, positive_integer
from scratchnet.backend import Array
from scratchnet.initializers import Initializer, get_initializer
from scratchnet.kernels.geometry import Convolution, Windows
from scratchnet.kernels.im2col import Im2col
from scratchnet.kernels.winograd import Winograd
from scratchnet.layers.layer import Layer, image_shape

WINOGRAD_CHANNELS = 16  # below, the 36 products are too thin and gathering the windows is faster


class Conv2D(Layer):
    """y[n,i,j,f] = bias[f] + sum over r, s, c of x[n, i*stride + r*dilation, j*stride + s*dilation, c] kernel[r,s,c,f].

    Like Keras's Conv2D, without activation: input (N, H, W, C), output (N, H', W', filters), kernel (kh, kw, C,
    filters). `same` padding gives ceil(H / stride) rows and puts an odd zero after. Raises ValueError for arguments or
    input shapes that make no sense.
    """

    kernel: Array
    dkernel: Array
    bias: Array
    dbias: Array
    work: Any  # of a bound twin: the kernel

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = 1,
        padding: str = "valid",
        dilation_rate: int | tuple[int, int] = 1,
        use_bias: bool = True,
        kernel_initializer: str | Initializer = "glorot_uniform",
        bias_initializer: str | Initializer = "zeros",
    ) -> None:
        super().__init__()
        self.filters = positive_integer(filters, "filters", self.name)
        self.kernel_size = pair(kernel_size, "kernel_size", self.name)
        self.strides = pair(strides, "strides", self.name)
        self.padding = one_of(padding, ("valid", "same"), "padding", self.name)
        self.dilation_rate = pair(dilation_rate, "dilation_rate", self.name)
        self.use_bias = boolean(use_bias, "use_bias", self.name)
        self.kernel_initializer, self.bias_initializer = map(get_initializer, (kernel_initializer, bias_initializer))

    def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        _, _, channels = image_shape(input_shape, self.name)
        try:
            self.windows = Windows(input_shape, self.kernel_size, self.strides, self.padding, self.dilation_rate)
        except ValueError as error:
            raise ValueError(f"{self.name}: for the input shape {input_shape}, {error}") from None
        self.parameter("kernel", (*self.kernel_size, channels, self.filters), self.kernel_initializer)
        if self.use_bias:
            self.parameter("bias", (self.filters,), self.bias_initializer)
        return (*self.windows.outputs, self.filters)

    @property
    def convolution(self) -> Convolution:
        """What is to be done in a step: this layer, and a ReLU and a pooling after it that it does too."""
        relu, pool = len(self.fused) > 0, len(self.fused) > 1
        shapes = self.batch.size, self.input_shape, self.filters, self.windows
        return Convolution(*shapes, relu=relu, pool=pool, input_gradient=self.input_gradient)

    @property
    def suits_winograd(self) -> bool:
        return (
            self.device.image_axes == (1, 2, 0, 3)  # rows of pixels of all images lie together
            and self.kernel_size == (3, 3)
            and self.strides == self.dilation_rate == (1, 1)
            and self.input_shape[2] >= WINOGRAD_CHANNELS
        )

    def allocate(self) -> None:
        self.work = (Winograd if self.suits_winograd else Im2col)(self.convolution, self.memory)
        self.x = self.work.x
        if self.input_gradient:
            self.dx = self.work.dx

    def compute(self, training: bool) -> None:
        self.work.forward(self.kernel, self.bias if self.use_bias else None, self.y)

    def compute_gradients(self) -> None:
        self.work.backward(self.kernel, self.dy, self.dkernel, self.dbias if self.use_bias else None)
