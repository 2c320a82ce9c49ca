"""CUDA functions compiled at run time, and a whole step of them captured as one graph. Only a GPU device comes here."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

RING = 64 << 10  # bytes of page-locked memory: what some hundred steps load
LINE = 64

Call = tuple[Callable[..., Any], tuple[Any, ...]]
Launch = Callable[[tuple[int, ...], tuple[int, ...], tuple[Any, ...]], None]  # grid, block, arguments


class Cuda:
    """What a GPU device offers beyond its array module.

    `stream` is the one on which all its work is put: it is the current stream of the thread that asked for the device.
    """

    def __init__(self, cupy: Any) -> None:
        self.cupy = cupy
        self.stream = cupy.cuda.Stream(non_blocking=True)  # the default stream cannot be captured
        # Entered, never left: a stream made current by use() is forgotten when any "with stream" ends, one of CuPy's
        # own too, and what then goes to the default stream would not wait for this one.
        self.stream.__enter__()
        self.ring = np.frombuffer(cupy.cuda.alloc_pinned_memory(RING), np.uint8, RING)
        self.place = 0

    def kernel(self, source: str, name: str, constants: Mapping[str, int | str]) -> Launch:
        """The function `name` of a source, compiled (or taken from CuPy's cache on disk) with these macros defined."""
        options = ("--std=c++17", *(f"-D{macro}={value}" for macro, value in constants.items()))
        return self.cupy.RawModule(code=source, options=options).get_function(name)

    def load(self, host: np.ndarray, out: Any) -> None:
        """Copy a C-contiguous array into one of the same shape and dtype, in the order of the stream.

        The GPU may be many steps behind. A small array goes by page-locked memory, from where the copy is made without
        waiting for it; a slot is used again when all copies before are known to be done. Others wait for the stream.
        """
        if host.nbytes <= RING // LINE:
            if self.place + host.nbytes > RING:
                self.stream.synchronize()
                self.place = 0
            slot = self.ring[self.place : self.place + host.nbytes].view(host.dtype).reshape(host.shape)
            self.place += host.nbytes + -host.nbytes % LINE
            slot[...], host = host, slot
        out.set(host)

    def capture(self, calls: Sequence[Call]) -> "Graph | None":
        """A function that repeats the calls as one graph, or None where one of them cannot be captured.

        Nothing runs yet. Memory allocated by a captured call would be handed out again while the graph goes on writing
        to it, so the attempt ends at the first allocation.
        """
        with self.cupy.cuda.using_allocator(_refuse):
            self.stream.begin_capture()
            try:
                for function, arguments in calls:
                    function(*arguments)
                graph = self.stream.end_capture()
            except Exception:  # whatever it was, the same call made eagerly works or says what is wrong
                with suppress(Exception):
                    self.stream.end_capture()
                return None
        return Graph(graph, self.stream, calls)


@dataclass(frozen=True)
class Graph:
    """Launches a captured graph; holds the calls, because their arrays and compiled modules are the graph's too."""

    graph: Any
    stream: Any
    calls: Sequence[Call]

    def __call__(self) -> None:
        self.graph.launch(self.stream)


def _refuse(size: int) -> Any:
    raise MemoryError(f"{size} bytes asked for while a graph is captured")
