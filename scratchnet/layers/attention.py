"""Multi-head self-attention."""

from dataclasses import replace
from math import sqrt
from types import SimpleNamespace
from typing import Any

import numpy as np

from scratchnet import arguments
from scratchnet.backend import Array, BatchSlice, slice_of, view
from scratchnet.initializers import Initializer, get_initializer
from scratchnet.layers.dropout import Mask, checked_rate
from scratchnet.layers.layer import Layer, token_shape
from scratchnet.layers.softmax import checked_temperature, gumbel_in_place, softmax, softmax_gradient

PIECE = 1 << 19  # bytes of weights p at once, on a CPU: with what belongs to them, they stay in the second-level cache


class MultiHeadAttention(Layer):
    """y = concat over heads (p v) Wo + bo, where p = softmax(q k' / sqrt(key_dim)) and q, k, v = x W + b of that head.

    Self-attention as Keras's MultiHeadAttention(num_heads, key_dim)(x, x): input and output (N, T, D), dropout of the
    weights p in training. `kernel` (D, 3, num_heads, key_dim) and `bias` have those of query, key and value,
    `output_kernel` is (num_heads, key_dim, D). With a `temperature` p = softmax((q k' / sqrt(key_dim) + g) /
    temperature), with fresh Gumbel noise g at every forward, training or not. Source: Vaswani et al. 2017, section 3.2.
    """

    kernel: Array
    dkernel: Array
    bias: Array
    dbias: Array
    output_kernel: Array
    doutput_kernel: Array
    output_bias: Array
    doutput_bias: Array

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        dropout: float = 0.0,
        use_bias: bool = True,
        temperature: float | None = None,
        kernel_initializer: str | Initializer = "glorot_uniform",
        bias_initializer: str | Initializer = "zeros",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.num_heads = arguments.positive_integer(num_heads, "num_heads", self.name)
        self.key_dim = arguments.positive_integer(key_dim, "key_dim", self.name)
        self.dropout = checked_rate(dropout, "dropout", self.name)
        self.use_bias = arguments.boolean(use_bias, "use_bias", self.name)
        self.temperature = temperature
        if temperature is not None:
            self.temperature = checked_temperature(temperature, "temperature", self.name)
        self.kernel_initializer, self.bias_initializer = map(get_initializer, (kernel_initializer, bias_initializer))
        self.seed = arguments.seed(seed, self.name)

    def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        features, heads = token_shape(input_shape, self.name)[1], (self.num_heads, self.key_dim)

        def three(shape: tuple[int, ...], source: np.random.Generator) -> np.ndarray:
            return np.stack([self.kernel_initializer((features, *heads), source) for _ in range(3)], axis=1)

        self.parameter("kernel", (features, 3, *heads), three)
        self.parameter("output_kernel", (*heads, features), self.kernel_initializer)
        if self.use_bias:
            self.parameter("bias", (3, *heads), self.bias_initializer)
            self.parameter("output_bias", (features,), self.bias_initializer)
        return input_shape

    def allocate(self) -> None:
        super().allocate()
        memory, rows, tokens = self.memory, self.batch.size, self.input_shape[0]
        heads, size = self.num_heads, self.key_dim
        self.qkv, self.dqkv = (memory.buffer(rows * tokens, 3 * heads * size) for _ in range(2))
        self.o, self.do = (memory.buffer(rows * tokens, heads * size) for _ in range(2))
        self.per_root = memory.constant(1 / sqrt(size))
        if self.temperature is not None:
            self.inverse_temperature = memory.constant(1 / self.temperature)
        at_once = PIECE // (heads * tokens**2 * memory.dtype.itemsize) if self.device.name == "cpu" else rows
        count = -(-rows // max(at_once, 1))
        parts = [slice_of(rows, number, count) for number in range(count)]
        if self.dropout or self.temperature is not None:
            self.uniform = memory.buffer(parts[0].size, tokens, heads, tokens)  # by image, as noise is drawn
        self.pieces = [self._piece(part) for part in parts]

    def _piece(self, part: BatchSlice) -> Any:
        """Of some images: views (N, heads, T, key_dim), and the weights p[key, image, head, query], summed by key."""
        tokens, heads, memory = self.input_shape[0], self.num_heads, self.memory
        images, shape = slice(part.start, part.start + part.size), (tokens, heads, tokens)

        def by_head(array: Array) -> Array:
            return view(array, self.batch.size, tokens, -1, heads, self.key_dim)[images].transpose(2, 0, 3, 1, 4)

        piece = SimpleNamespace(p=memory.buffer(tokens, part.size, heads, tokens))
        (piece.q, piece.k, piece.v), (piece.dq, piece.dk, piece.dv) = by_head(self.qkv), by_head(self.dqkv)
        (piece.o,), (piece.do,) = by_head(self.o), by_head(self.do)
        rows = replace(self.batch, start=self.batch.start + part.start, size=part.size)
        if self.dropout:
            kept = memory.buffer(part.size, *shape, dtype=bool)
            piece.mask = Mask(
                self.dropout, self.noise(self.seed, shape, 1, rows), self.uniform[: part.size], kept, memory
            )
        if self.temperature is not None:
            piece.noise, piece.gumbel = self.noise(self.seed, shape, 2, rows), self.uniform[: part.size]
        return piece

    def compute(self, training: bool) -> None:
        ops, x = self.ops, view(self.x, -1, self.input_shape[1])
        self.dropping = training and self.dropout > 0
        ops.matmul(x, view(self.kernel, len(self.kernel), -1), out=self.qkv)
        if self.use_bias:
            ops.add(self.qkv, view(self.bias, -1), out=self.qkv)
        for piece in self.pieces:
            self._attend(piece)
        ops.matmul(self.o, view(self.output_kernel, -1, x.shape[1]), out=view(self.y, *x.shape))
        if self.use_bias:
            ops.add(self.y, self.output_bias, out=self.y)

    def _attend(self, piece: Any) -> None:
        """o = p v, with p = softmax(q k' / sqrt(key_dim))."""
        ops, p = self.ops, piece.p
        ops.multiply(piece.q, self.per_root, out=piece.q)
        ops.matmul(piece.k, piece.q.swapaxes(2, 3), out=by_image(p))
        if self.temperature is not None:
            piece.noise.draw(piece.gumbel)
            gumbel_in_place(ops, piece.gumbel)
            ops.add(p, piece.gumbel.swapaxes(0, 1), out=p)
            ops.multiply(p, self.inverse_temperature, out=p)
        with self.memory.scratch() as take:
            softmax(ops, p, take(*p.shape[1:]), out=p, axis=0)
            if self.dropping:
                piece.mask.draw()
            ops.matmul(by_image(self._dropped(piece, take)).swapaxes(2, 3), piece.v, out=piece.o)

    def _dropped(self, piece: Any, take: Any) -> Array:
        """The weights after dropout."""
        if not self.dropping:
            return piece.p
        dropped = take(*piece.p.shape)
        piece.mask.apply(piece.p.swapaxes(0, 1), out=dropped.swapaxes(0, 1))
        return dropped

    def compute_gradients(self) -> None:
        ops, features = self.ops, self.input_shape[1]
        x, dx, dy = (view(array, -1, features) for array in (self.x, self.dx, self.dy))
        kernel, dkernel = view(self.kernel, features, -1), view(self.dkernel, features, -1)
        ops.matmul(dy, view(self.output_kernel, -1, features).T, out=self.do)
        ops.matmul(self.o.T, dy, out=view(self.doutput_kernel, -1, features))
        for piece in self.pieces:
            self._attend_back(piece)
        ops.matmul(x.T, self.dqkv, out=dkernel)
        if self.use_bias:
            self.sum_to_last(self.dy, out=self.doutput_bias)
            self.sum_to_last(view(self.dqkv, self.batch.size, -1, dkernel.shape[1]), out=view(self.dbias, -1))
        if self.input_gradient:
            with self.memory.scratch() as take:  # a product with a contiguous operand is twice as fast
                transposed = take(*kernel.T.shape)
                ops.copy(kernel.T, out=transposed)
                ops.matmul(self.dqkv, transposed, out=dx)

    def _attend_back(self, piece: Any) -> None:
        """dv = p' do, dp = do v', ds = p (dp - sum(p dp)), dq = ds k and dk = ds' q; q is divided by sqrt(key_dim)."""
        ops, p, do = self.ops, piece.p, piece.do
        with self.memory.scratch() as take:
            ops.matmul(by_image(self._dropped(piece, take)), do, out=piece.dv)
            dp, ds = take(*p.shape), take(*p.shape)
            ops.matmul(piece.v, do.swapaxes(2, 3), out=by_image(dp))
            if self.dropping:
                masked = dp.swapaxes(0, 1)  # one view, as CuPy copies where it sees two of the same memory
                piece.mask.apply(masked, out=masked)
            softmax_gradient(ops, p, dp, take(*p.shape[1:]), out=ds, axis=0)
            if self.temperature is not None:
                ops.multiply(ds, self.inverse_temperature, out=ds)
            ops.matmul(by_image(ds), piece.q, out=piece.dk)
            ops.matmul(by_image(ds).swapaxes(2, 3), piece.k, out=piece.dq)
            ops.multiply(piece.dq, self.per_root, out=piece.dq)


def by_image(p: Array) -> Array:
    """As matrices (image, head, key, query)."""
    return p.transpose(1, 2, 0, 3)
