"""The vocabulary of a step: operations that write into `out`, allocate nothing and are recorded."""

from functools import partial
from typing import Any

import numpy as np

from scratchnet.backend.products import parts, pieces
from scratchnet.backend.program import run


class Ops:
    """Recorded operations of one array module, `numpy` or `cupy`.

    Outputs go by position where the module allows it: a keyword costs a quarter of a microsecond a call, and a step
    makes about fifteen hundred.
    """

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        # NumPy's wrappers around reductions cost microseconds; its ufunc methods do not. CuPy has only the functions.
        self._sum: Any = np.add.reduce if xp is np else xp.sum
        self._max: Any = np.maximum.reduce if xp is np else xp.amax

    def add(self, a: Any, b: Any, out: Any) -> None:
        run(self.xp.add, a, b, out)

    def subtract(self, a: Any, b: Any, out: Any) -> None:
        run(self.xp.subtract, a, b, out)

    def multiply(self, a: Any, b: Any, out: Any) -> None:
        run(self.xp.multiply, a, b, out)

    def divide(self, a: Any, b: Any, out: Any) -> None:
        run(self.xp.divide, a, b, out)

    def maximum(self, a: Any, b: Any, out: Any) -> None:
        run(partial(self.xp.maximum, out=out), a, b)  # NumPy 2.4 deprecates its third position

    def greater(self, a: Any, b: Any, out: Any) -> None:
        run(self.xp.greater, a, b, out)

    def greater_equal(self, a: Any, b: Any, out: Any) -> None:
        run(self.xp.greater_equal, a, b, out)

    def equal(self, a: Any, b: Any, out: Any) -> None:
        run(self.xp.equal, a, b, out)

    def logical_or(self, a: Any, b: Any, out: Any) -> None:
        run(self.xp.logical_or, a, b, out)

    def matmul(self, a: Any, b: Any, out: Any) -> None:
        for part, of_b, of_out in pieces(a, b, out) if self.xp is np else [(a, b, out)]:
            run(partial(self.xp.matmul, out=of_out), part, of_b)

    def matmul_in_parts(self, a: Any, b: Any, out: Any, take: Any) -> None:
        """The same for a sum of many terms, which may be added up in parts; `take` gives scratch memory for them."""
        (rows, terms), columns = a.shape, b.shape[1]
        count = parts(rows, terms, columns) if self.xp is np else 1
        if count == 1:
            self.matmul(a, b, out)
            return
        each = take(count, rows, columns)
        by_part = a.reshape(rows, count, -1, copy=False).swapaxes(0, 1)
        self.matmul(by_part, b.reshape(count, -1, columns, copy=False), each)
        self.sum(each, 0, out)

    def exp(self, a: Any, out: Any) -> None:
        run(self.xp.exp, a, out)

    def log(self, a: Any, out: Any) -> None:
        run(self.xp.log, a, out)

    def sqrt(self, a: Any, out: Any) -> None:
        run(self.xp.sqrt, a, out)

    def absolute(self, a: Any, out: Any) -> None:
        run(self.xp.absolute, a, out)

    def negative(self, a: Any, out: Any) -> None:
        run(self.xp.negative, a, out)

    def copy(self, source: Any, out: Any, where: Any = None) -> None:
        if where is None:
            run(self.xp.copyto, out, source)
        else:
            run(partial(self.xp.copyto, where=where), out, source)

    def fill(self, value: float, out: Any) -> None:
        run(out.fill, value)

    def sum(self, a: Any, axis: int | tuple[int, ...], out: Any) -> None:
        run(partial(self._sum, axis=axis, out=out), a)

    def max(self, a: Any, axis: int, out: Any) -> None:
        run(partial(self._max, axis=axis, out=out), a)

    def argmax(self, a: Any, axis: int, out: Any) -> None:
        run(partial(self.xp.argmax, axis=axis, out=out), a)
