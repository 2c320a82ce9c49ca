"""Activations that work on each value by itself."""

from scratchnet.layers.layer import Layer


class ReLU(Layer):
    """y = max(x, 0), and dx = dy where x > 0, else 0. Any shape."""

    def allocate(self) -> None:
        super().allocate()
        self.zero = self.memory.constant(0)
        self.positive = self.activation(dtype=bool)

    def compute(self, training: bool) -> None:
        self.ops.greater(self.x, self.zero, out=self.positive)
        self.ops.maximum(self.x, self.zero, out=self.y)

    def compute_gradients(self) -> None:
        self.ops.multiply(self.dy, self.positive, out=self.dx)
