"""What heads share that make logits of features by weights of their own."""

from math import prod

import numpy as np

from scratchnet.backend import Array
from scratchnet.heads.cross_entropy import SoftmaxCrossEntropy
from scratchnet.heads.head import Head
from scratchnet.initializers import glorot_uniform
from scratchnet.kernels.rows import Blocks
from scratchnet.kernels.table import on


class OwnWeights(Head):
    """A head of features x (N, D). Its `inputs` are x and a 1, so the last of a class's D + 1 weights is its bias."""

    inputs: Array
    dinputs: Array
    kernel: Array
    dkernel: Array

    def outputs_for(self, classes: int) -> int | None:
        return None

    def class_weights(self, name: str, shape: tuple[int, ...], features: int) -> None:
        """In `infer`: a parameter (*shape, features + 1), drawn like the kernel of a dense layer, with biases of 0."""

        def drawn(shape: tuple[int, ...], source: np.random.Generator) -> np.ndarray:
            rows = np.zeros((prod(shape[:-1]), shape[-1]))
            rows[:, :-1] = glorot_uniform((features, len(rows)), source).T
            return rows.reshape(shape)

        self.parameter(name, (*shape, features + 1), drawn)

    def _forget(self) -> None:
        super()._forget()
        vars(self).pop("blocks", None)  # they hold the gradient

    def hold(self, parameters: Array, gradients: Array, moving: Array) -> None:
        super().hold(parameters, gradients, moving)
        self.blocks = on(self.device, Blocks)(self.dkernel, self.clock, self.device)

    def allocate(self) -> None:
        super().allocate()
        self.inputs, self.dinputs = (self.memory.buffer(self.batch.size, self.input_shape[0] + 1) for _ in range(2))
        self.inputs[:, -1] = 1
        self.x, self.dx = self.inputs[:, :-1], self.dinputs[:, :-1]

    def cross_entropy_of(self, classes: int) -> SoftmaxCrossEntropy:
        """In `allocate`: a softmax cross-entropy for what this head makes logits of, bound to the same rows."""
        inner = SoftmaxCrossEntropy()
        inner.build((classes,), self.dtype, self.device)
        return inner.bound(self.batch, self.memory, (), input_gradient=True)
