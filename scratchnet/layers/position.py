"""Where a token stands."""

from scratchnet.backend import Array
from scratchnet.layers.layer import Layer, token_shape


class PositionEmbedding(Layer):
    """y = x + embedding, a vector of its own for each place; dx is dy, and has its buffer.

    Input and output (N, T, D), embedding (T, D), which start as Keras Hub's do. Source: Gehring et al. 2017, section
    3.1.
    """

    embedding: Array
    dembedding: Array

    def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self.parameter("embedding", token_shape(input_shape, self.name), "glorot_uniform")
        return input_shape

    def allocate(self) -> None:
        self.x = self.activation()

    def write_to(self, *outputs: tuple[Array, Array]) -> None:
        super().write_to(*outputs)
        self.dx = self.dy

    def compute(self, training: bool) -> None:
        self.ops.add(self.x, self.embedding, out=self.y)

    def compute_gradients(self) -> None:
        self.ops.sum(self.dy, axis=0, out=self.dembedding)
