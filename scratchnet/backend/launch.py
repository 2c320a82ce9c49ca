"""One CUDA function of a `.cu` file, compiled for a dtype and for constants, launched over a number of threads."""

import re
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from scratchnet.backend.program import run

FOLDER = Path(__file__).parents[1] / "kernels" / "gpu"  # of all sources
THREADS = 256  # of a block: eight warps
WARP = 32
NULL = np.uintp(0)  # an argument where the source has a pointer
MOST = 2**31 - THREADS  # the kernels count in 32 bits
REAL = {"float32": "float", "float64": "double"}


def source(file: str) -> str:
    """The text of a file of the folder, with that of the headers it includes."""
    text = (FOLDER / file).read_text(encoding="utf-8")
    return re.sub(r'#include "(\w+\.cuh)"', lambda include: source(include[1]), text)


class Kernel:
    """`kernel(threads, *arguments)` starts at least that many threads, in blocks of 256, and is recorded.

    The source is given `threads` (an int) and then the arguments: arrays and NumPy scalars of exactly its types, and
    after an array that may not be contiguous its strides. What an index is divided by is a constant of the compilation,
    as that costs a multiplication; how many images there are is not, so that no batch size compiles anything anew.
    Raises ValueError for more values than can be counted.
    """

    def __init__(self, cuda: Any, file: str, name: str, dtype: np.dtype[Any], **constants: int | str) -> None:
        self.dtype, self.function = dtype, _compiled(cuda, file, name, real=REAL[str(dtype)], **constants)

    def __call__(self, threads: int, *arguments: Any) -> None:
        largest = max(threads, *(argument.size for argument in arguments if argument.dtype == self.dtype), 0)
        if largest > MOST:
            raise ValueError(f"{largest} values in one array are more than a kernel can count: lower the batch size")
        for argument, strides in pairwise((*arguments, NULL)):
            lies_together = not argument.shape or argument.flags.c_contiguous
            assert lies_together or isinstance(strides, np.int32), f"strides {argument.strides} no kernel is told of"
        run(self.function, (-(-threads // THREADS),), (THREADS,), (np.int32(threads), *arguments))


@cache
def _compiled(cuda: Any, file: str, name: str, **constants: int | str) -> Callable[..., None]:
    return cuda.kernel(source(file), name, constants)


def image_strides(image: Any) -> tuple[np.int32, ...]:
    """The numbers between the images, rows and columns of an array (N, H, W, C) whose channels lie together."""
    *strides, channel = (stride // image.itemsize for stride in image.strides)
    assert channel == 1 or image.shape[3] == 1
    return tuple(map(np.int32, strides))
