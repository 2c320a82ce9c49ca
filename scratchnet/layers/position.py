"""What tells tokens apart by their place."""

from scratchnet.backend import Array
from scratchnet.initializers import Initializer, get_initializer
from scratchnet.layers.layer import Layer


class PositionEmbedding(Layer):
    """y = x + embedding, with a trained vector for each place: input and output (N, T, D), embedding (T, D).

    dx = dy, and dembedding is the sum of dy over the batch. Source: Gehring et al. 2017, section 3.1.
    """

    embedding: Array
    dembedding: Array

    def __init__(self, initializer: str | Initializer = "glorot_uniform") -> None:
        super().__init__()
        self.initializer = get_initializer(initializer)

    def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(input_shape) != 2:
            raise ValueError(f"{self.name}: the input shape is {input_shape} where (T, D) is wanted")
        self.parameter("embedding", input_shape, self.initializer)
        return input_shape

    def compute(self, training: bool) -> None:
        self.ops.add(self.x, self.embedding, out=self.y)

    def compute_gradients(self) -> None:
        self.ops.sum(self.dy, axis=0, out=self.dembedding)
        self.ops.copy(self.dy, out=self.dx)
