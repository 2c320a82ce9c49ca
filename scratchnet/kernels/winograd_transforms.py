"""The one-dimensional transforms of Winograd's F(4, 3).

    B' d: data, 6 -> 6        A' m: output, 6 -> 4        G g: kernel, 3 -> 6

Source: Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016, section 4.3; derived in
docs/derivations/winograd.md.
"""

import numpy as np

from scratchnet.backend import Array, Memory

A = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]).T
G = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24


class Transforms:
    """B' and its adjoint over the first axis, by additions and multiplications with 4.

    `out` must not overlap the operand. Doubling is an addition. Each works on all that the other axes hold.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory, self.ops = memory, memory.device.ops
        self.four, self.minus_four = memory.constant(4), memory.constant(-4)

    def input(self, d: Array, out: Array) -> None:
        """out = B' d (6 -> 6)."""
        ops = self.ops
        with self.memory.scratch() as take:
            even, odd, t = (take(2, *d.shape[1:]) for _ in range(3))
            ops.multiply(d[1:3], self.four, out=t)
            ops.subtract(d[3:5], t, out=t)  # d3 - 4 d1, d4 - 4 d2
            ops.add(t[1], t[0], out=out[1])
            ops.subtract(t[1], t[0], out=out[2])
            ops.subtract(d[0:2], d[2:4], out=even)  # d0 - d2, d1 - d3
            ops.subtract(d[4:6], d[2:4], out=odd)  # d4 - d2, d5 - d3
            ops.add(even[1], even[1], out=t[0])
            ops.subtract(odd[0], t[0], out=out[3])
            ops.add(odd[0], t[0], out=out[4])
            ops.multiply(even, self.four, out=even)
            ops.add(even, odd, out=out[0::5])

    def input_adjoint(self, dv: Array, out: Array) -> None:
        """B dv (6 -> 6): its rows 0 to 3 go to out, its rows 4 and 5 take the place of those of dv; destroys dv."""
        ops = self.ops
        with self.memory.scratch() as take:
            t = take(*dv.shape[1:])
            ops.add(dv[1], dv[2], out=t)
            ops.subtract(dv[1], dv[2], out=dv[1])
            ops.add(dv[3], dv[4], out=dv[2])
            ops.subtract(dv[3], dv[4], out=dv[3])
            ops.add(dv[0], t, out=t)
            ops.add(t, dv[2], out=dv[4])
            ops.multiply(t, self.minus_four, out=t)
            ops.subtract(t, dv[2], out=t)
            ops.subtract(t, dv[0], out=out[2])
            ops.multiply(dv[0], self.four, out=out[0])
            ops.subtract(dv[5], dv[1], out=dv[1])
            ops.add(dv[3], dv[3], out=dv[3])
            ops.multiply(dv[1], self.four, out=t)
            ops.subtract(t, dv[3], out=out[1])
            ops.subtract(dv[3], dv[1], out=dv[3])
            ops.multiply(dv[5], self.four, out=t)
            ops.subtract(dv[3], t, out=out[3])
