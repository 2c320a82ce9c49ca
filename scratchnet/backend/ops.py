"""The vocabulary of a step: operations that write into `out`, allocate nothing and are recorded."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from scratchnet.backend.products import parts, pieces
from scratchnet.backend.program import run

BY_KEYWORD = "maximum", "minimum"  # whose third position NumPy 2.4 deprecates
QUICK = {"sum": np.add.reduce, "amax": np.maximum.reduce}  # without the microseconds of NumPy's wrappers


class Ops:
    """Recorded operations of one array module, `numpy` or `cupy`.

    Beside those below, whatever works elementwise there: `ops.add(a, b, out=y)`, `ops.tanh(x, out=y)`. Outputs go by
    position where the module allows it: a keyword costs a quarter of a microsecond a call, and a step makes about
    fifteen hundred.
    """

    special = "scipy.special"

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    def __getattr__(self, name: str) -> Callable[..., None]:
        function = getattr(self.xp, name)

        def recorded(*operands: Any, out: Any) -> None:
            if name in BY_KEYWORD:
                run(partial(function, out=out), *operands)
            else:
                run(function, *operands, out)

        vars(self)[name] = recorded
        return recorded

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

    def copy(self, source: Any, out: Any, where: Any = None) -> None:
        run(self.xp.copyto if where is None else partial(self.xp.copyto, where=where), out, source)

    def erf(self, x: Any, out: Any) -> None:
        """The error function, which the array modules leave to SciPy and its counterpart."""
        run(import_module(self.special).erf, x, out)

    def take(self, a: Any, indices: Any, out: Any, axis: int = 0) -> None:
        """out = the entries of `a` at these places of an axis."""
        mode = {"mode": "clip"} if self.xp is np else {}  # by default, NumPy makes a copy first
        run(partial(self.xp.take, axis=axis, out=out, **mode), a, indices)

    def fill(self, value: float, out: Any) -> None:
        run(out.fill, value)

    def sum(self, a: Any, axis: int | tuple[int, ...], out: Any) -> None:
        self._reduce("sum", a, axis, out)

    def max(self, a: Any, axis: int, out: Any) -> None:
        self._reduce("amax", a, axis, out)

    def argmax(self, a: Any, axis: int, out: Any) -> None:
        self._reduce("argmax", a, axis, out)

    def _reduce(self, name: str, a: Any, axis: int | tuple[int, ...], out: Any) -> None:
        function = QUICK[name] if self.xp is np and name in QUICK else getattr(self.xp, name)
        run(partial(function, axis=axis, out=out), a)
