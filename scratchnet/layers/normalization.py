"""Normalisation, over the batch or over each row of features."""

from math import prod

from scratchnet.arguments import fraction, positive_number
from scratchnet.backend import Array, run
from scratchnet.layers.layer import Layer


class _Normalization(Layer):
    """y = gamma normal + beta, where normal = (x - mean) / sqrt(variance + epsilon)."""

    gamma: Array
    dgamma: Array
    beta: Array
    dbeta: Array
    inverse: Array

    def __init__(self, epsilon: float = 1e-3) -> None:
        super().__init__()
        self.epsilon = positive_number(epsilon, "epsilon", self.name)

    def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self.parameter("gamma", input_shape[-1:], "ones")
        self.parameter("beta", input_shape[-1:])
        return input_shape

    def allocate(self) -> None:
        super().allocate()
        self.normal = self.activation()
        self.tiny, self.one = map(self.memory.constant, (self.epsilon, 1))

    def _scale(self, variance: Array) -> None:
        """y, where `normal` is x less its mean."""
        ops, normal = self.ops, self.normal
        ops.add(variance, self.tiny, out=self.inverse)
        ops.sqrt(self.inverse, out=self.inverse)
        ops.divide(self.one, self.inverse, out=self.inverse)
        ops.multiply(normal, self.inverse, out=normal)
        ops.multiply(normal, self.gamma, out=self.y)
        ops.add(self.y, self.beta, out=self.y)

    def _parameter_gradients(self, part: Array) -> None:
        """`part` is scratch of the shape of x."""
        self.sum_to_last(self.dy, out=self.dbeta)
        self.ops.multiply(self.dy, self.normal, out=part)
        self.sum_to_last(part, out=self.dgamma)


class BatchNormalization(_Normalization):
    """y = gamma (x - mean) / sqrt(variance + epsilon) + beta, by channel (the last axis).

    In training, mean and (biased) variance are those of the whole batch, summed over all workers, and the moving
    averages follow them, `moving = momentum * moving + (1 - momentum) * batch`, as in Keras; otherwise the moving
    averages are used, and always where the layer is frozen. Input (N, ..., C). Raises ValueError unless
    0 <= momentum < 1 and epsilon > 0. Source: Ioffe and Szegedy 2015, algorithm 1.
    """

    by_image = False

    moving_mean: Array
    moving_variance: Array

    def __init__(self, momentum: float = 0.99, epsilon: float = 1e-3) -> None:
        super().__init__(epsilon)
        self.momentum = fraction(momentum, "momentum", self.name)
        self.of_batch = False

    def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self.moving_average("moving_mean", input_shape[-1:])
        self.moving_average("moving_variance", input_shape[-1:], "ones")
        return super().infer(input_shape)

    def allocate(self) -> None:
        super().allocate()
        memory, channels = self.memory, self.input_shape[-1]
        self.mean, self.variance, self.inverse = (memory.buffer(channels) for _ in range(3))
        self.sums = memory.buffer(2, channels)
        self.per_entry = memory.constant(1 / (self.batch.total * prod(self.input_shape[:-1])))
        self.stays, self.negligible = memory.buffer(channels, dtype=bool), memory.negligible()
        self.keep, self.take_in = memory.constant(self.momentum), memory.constant(1 - self.momentum)

    def compute(self, training: bool) -> None:
        ops, self.of_batch = self.ops, training and self.trainable
        if self.of_batch:
            self._mean_of(self.x, out=self.mean)
            ops.subtract(self.x, self.mean, out=self.normal)
            rest = self.sums[0]  # what rounding left of the mean
            self._mean_of(self.normal, out=rest)
            ops.subtract(self.normal, rest, out=self.normal)
            ops.add(self.mean, rest, out=self.mean)
            with self.scratch() as square:
                ops.multiply(self.normal, self.normal, out=square)
                self._mean_of(square, out=self.variance)
            self._follow(self.moving_mean, self.mean)
            self._follow(self.moving_variance, self.variance)
        else:
            ops.copy(self.moving_mean, out=self.mean)
            ops.copy(self.moving_variance, out=self.variance)
            ops.subtract(self.x, self.mean, out=self.normal)
        self._scale(self.variance)

    def compute_gradients(self) -> None:
        ops = self.ops
        with self.scratch() as part:
            self._parameter_gradients(part)
            ops.copy(self.dy, out=self.dx)
            if self.of_batch:  # x moves the mean and the variance too
                ops.copy(self.dbeta, out=self.sums[0])
                ops.copy(self.dgamma, out=self.sums[1])
                self._all_reduce(self.sums)
                ops.multiply(self.sums, self.per_entry, out=self.sums)
                ops.subtract(self.dx, self.sums[0], out=self.dx)
                ops.multiply(self.normal, self.sums[1], out=part)
                ops.subtract(self.dx, part, out=self.dx)
            ops.multiply(self.dx, self.inverse, out=self.dx)
            ops.multiply(self.dx, self.gamma, out=self.dx)

    def _mean_of(self, values: Array, out: Array) -> None:
        self.sum_to_last(values, out=out)
        self._all_reduce(out)
        self.ops.multiply(out, self.per_entry, out=out)

    def _follow(self, moving: Array, batch: Array) -> None:
        with self.memory.scratch() as take:
            part = take(*batch.shape)
            self.ops.multiply(moving, self.keep, out=moving)
            self.ops.multiply(batch, self.take_in, out=part)
            self.ops.add(moving, part, out=moving)
            self.ops.absolute(moving, out=part)  # what decays to next to nothing is set to 0 before it is denormal
            self.ops.greater_equal(part, self.negligible, out=self.stays)
            self.ops.multiply(moving, self.stays, out=moving)

    def _all_reduce(self, sums: Array) -> None:
        if self.batch.all_reduce is not None:
            run(self.batch.all_reduce, sums)


class LayerNormalization(_Normalization):
    """y = gamma (x - mean) / sqrt(variance + epsilon) + beta, with mean and (biased) variance over the last axis.

    As in Keras. Input (N, ..., C). Raises ValueError unless epsilon > 0. Source: Ba, Kiros and Hinton 2016, section 3.
    """

    def allocate(self) -> None:
        super().allocate()
        *outer, channels = self.input_shape
        self.row, self.inverse = (self.activation((*outer, 1)) for _ in range(2))
        self.per_entry = self.memory.constant(1 / channels)

    def compute(self, training: bool) -> None:
        self._mean(self.x)
        self.ops.subtract(self.x, self.row, out=self.normal)
        with self.scratch() as square:
            self.ops.multiply(self.normal, self.normal, out=square)
            self._mean(square)
        self._scale(self.row)

    def compute_gradients(self) -> None:
        ops, dx = self.ops, self.dx
        with self.scratch() as part:
            self._parameter_gradients(part)
            ops.multiply(self.dy, self.gamma, out=dx)  # the gradient by the normal values
            ops.multiply(dx, self.normal, out=part)
            self._mean(part)
            ops.multiply(self.normal, self.row, out=part)
            self._mean(dx)
            ops.subtract(dx, self.row, out=dx)
            ops.subtract(dx, part, out=dx)
        ops.multiply(dx, self.inverse, out=dx)

    def _mean(self, values: Array) -> None:
        """Over the last axis, into `row`."""
        self.ops.sum(values, axis=-1, out=self.row[..., 0])
        self.ops.multiply(self.row, self.per_entry, out=self.row)
