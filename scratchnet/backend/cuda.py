"""CUDA functions compiled at run time and launched, and a whole step of them captured as one graph."""

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from scratchnet.backend.program import Call, run
from scratchnet.errors import DeviceError

FOLDER = Path(__file__).parents[1] / "kernels" / "gpu"  # of all sources
THREADS = 256  # of a block: eight warps
WARP = 32
NULL = np.uintp(0)  # an argument where the source has a pointer
MOST = 2**31 - THREADS  # the kernels count in 32 bits
REAL = {"float32": "float", "float64": "double"}
RING = 64 << 10  # bytes of page-locked memory: what some hundred steps load
LINE = 64  # bytes: arrays in it start at multiples


class Cuda:
    """What a GPU device offers beyond its array module.

    All work of a step goes to one stream, of our own because the default stream cannot be captured. Inside `session` it
    is the current one of the thread, which CuPy's functions and our kernels use.
    """

    def __init__(self, cupy: Any) -> None:
        self.cupy, self.lock = cupy, threading.RLock()
        self.gpu = cupy.cuda.Device()  # the current one is a property of each thread too
        self.stream = cupy.cuda.Stream(non_blocking=True)
        event = partial(cupy.cuda.Event, disable_timing=True)
        self.entered, self.left, self.read = event(), event(), (event(), event())
        ring = np.frombuffer(cupy.cuda.alloc_pinned_memory(RING), np.uint8, RING)
        self.halves, self.half, self.place = ring.reshape(2, -1), 0, 0

    @contextmanager
    def session(self) -> Iterator[None]:
        """Inside, this thread's work goes to our stream, after what it put on its own before; what it puts there later
        comes after ours. Other threads wait, since a capture takes in whatever reaches the stream, whoever sent it.
        """
        with self.lock, self.gpu:
            caller = self.cupy.cuda.get_current_stream()
            if caller == self.stream:
                yield
                return
            if caller.is_capturing():
                raise DeviceError(
                    "device 'gpu' is asked to work while the current stream is being captured, which its own graphs "
                    "cannot be part of: end that capture first, or use another stream"
                )
            self.entered.record(caller)
            self.stream.wait_event(self.entered)
            try:
                with self.stream:
                    yield
            finally:
                self.left.record(self.stream)
                caller.wait_event(self.left)
                caller.use()  # a stream that use() made current is forgotten when a "with stream" ends

    def kernel(self, source: str, name: str, constants: Mapping[str, int | str]) -> Callable[..., None]:
        """The function `name` of a source, compiled (or taken from CuPy's cache on disk) with these macros defined.

        It takes a grid, a block and a tuple of arguments.
        """
        options = ("--std=c++17", *(f"-D{macro}={value}" for macro, value in constants.items()))
        return self.cupy.RawModule(code=source, options=options).get_function(name)

    def load(self, host: np.ndarray, out: Any) -> None:
        """Copy a C-contiguous array into one of the same shape and dtype, in the order of the stream.

        The GPU may be many steps behind. A small array goes by page-locked memory, from where the copy is made without
        waiting for it.
        """
        with self.session():
            out.set(self._page_locked(host) if host.nbytes <= RING // LINE else host)

    def _page_locked(self, host: np.ndarray) -> np.ndarray:
        """A copy in the ring, which has two halves: one is written again when all copies from it are done."""
        if self.place + host.nbytes > RING // 2:
            self.read[self.half].record(self.stream)
            self.half, self.place = 1 - self.half, 0
            self.read[self.half].synchronize()
        end = self.place + host.nbytes
        slot = self.halves[self.half, self.place : end].view(host.dtype).reshape(host.shape)
        slot[...] = host
        self.place = end + -end % LINE
        return slot

    def capture(self, calls: Sequence[Call], owners: Sequence[str]) -> "Graph":
        """A function that repeats the calls as one graph; nothing runs yet.

        Raises DeviceError, naming the call and its owner, where one cannot be captured. Memory allocated by a captured
        call would be handed out again while the graph goes on writing to it, so the first allocation is refused too.
        """
        place = 0
        with self.session(), self.cupy.cuda.using_allocator(_refuse):
            self.stream.begin_capture()
            try:
                for place in range(len(calls)):
                    function, arguments = calls[place]
                    function(*arguments)
                    if not self.stream.is_capturing():
                        raise RuntimeError("it ended the capture")
                return Graph(self.stream.end_capture(), self.stream, calls)
            except BaseException as error:
                with suppress(Exception):
                    self.stream.end_capture()
                if not isinstance(error, Exception):
                    raise
                raise DeviceError(
                    f"device 'gpu' cannot make a graph of the step: `{_name(calls[place][0])}` in {owners[place]} "
                    f"fails while it is captured ({type(error).__name__}: {error}); let what a step runs neither ask "
                    "for memory nor wait for the GPU, but write into buffers made in `allocate`"
                ) from error


@dataclass(frozen=True)
class Graph:
    """Launches a captured graph; holds the calls, because their arrays and compiled modules are the graph's too."""

    graph: Any
    stream: Any
    calls: Sequence[Call]

    def __call__(self) -> None:
        self.graph.launch(self.stream)


def _refuse(size: int) -> Any:
    raise MemoryError(f"it asks for {size} bytes of memory")


def _name(function: Any) -> str:
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__qualname__", None) or getattr(function, "name", None) or type(function).__name__


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

    def __init__(self, device: Any, file: str, name: str, dtype: np.dtype[Any], **constants: int | str) -> None:
        self.dtype, self.function = dtype, _compiled(device.cuda, file, name, real=REAL[str(dtype)], **constants)

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
