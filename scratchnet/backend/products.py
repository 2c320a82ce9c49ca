"""Large matrix products on a CPU, in pieces that OpenBLAS multiplies as they lie.

Up to a million multiply-adds its kernels for AVX-512 skip the copies that a large product begins with, which do not pay
where one side is short, as in every layer here: a piece runs at up to twice the speed of the whole.
"""

import numpy as np

SMALL = 10**6  # multiply-adds
UNIT = 16  # numbers in a register of AVX-512
LEAST = 64  # terms of a part of a sum; with fewer, adding the parts up costs more than it saves

Product = tuple[np.ndarray, np.ndarray, np.ndarray]  # a, b, out


def pieces(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> list[Product]:
    """Products that make out = a b together: a stack of pieces of its rows (or columns, if it has more), and a rest."""
    rows, columns = out.shape[-2:]
    if columns > rows:
        return [(x.mT, y.mT, z.mT) for y, x, z in pieces(b.mT, a.mT, out.mT)]
    fitting = SMALL // max(columns * a.shape[-1], 1)
    if rows <= fitting or fitting < UNIT:
        return [(a, b, out)]
    most = fitting // UNIT * UNIT
    step = next((step for step in range(most, most // 2, -UNIT) if rows % step == 0), most)
    count, whole = rows // step, rows // step * step
    stack, of_stack = (x[..., :whole, :].reshape(*x.shape[:-2], count, step, x.shape[-1], copy=False) for x in (a, out))
    rest = [(a[..., whole:, :], b, out[..., whole:, :])] if whole < rows else []
    return [(stack, b[..., None, :, :], of_stack), *rest]


def parts(rows: int, terms: int, columns: int) -> int:
    """In how many parts a product had better sum over its terms, so that each part is small; 1 if it had better not."""
    least = -(-rows * terms * columns // SMALL)
    return next((n for n in range(least, 2 * least) if terms % n == 0 and terms // n >= LEAST), 1)
