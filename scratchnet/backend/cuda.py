"""CUDA functions compiled at run time, and a whole step of them captured as one graph. Only a GPU device comes here."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

Call = tuple[Callable[..., Any], tuple[Any, ...]]
Launch = Callable[[tuple[int, ...], tuple[int, ...], tuple[Any, ...]], None]  # grid, block, arguments


class Cuda:
    """What a GPU device offers beyond its array module.

    `stream` is the one on which all its work is put: it is the current stream of the thread that asked for the device.
    """

    def __init__(self, cupy: Any) -> None:
        self.cupy = cupy
        self.stream = cupy.cuda.Stream(non_blocking=True)  # the default stream cannot be captured

    def kernel(self, source: str, name: str, constants: Mapping[str, int | str]) -> Launch:
        """The function `name` of a source, compiled (or taken from CuPy's cache on disk) with these macros defined."""
        options = ("--std=c++17", *(f"-D{macro}={value}" for macro, value in constants.items()))
        return self.cupy.RawModule(code=source, options=options).get_function(name)

    def capture(self, calls: Sequence[Call]) -> "Graph | None":
        """A function that repeats the calls as one graph, or None where one of them cannot be captured.

        Nothing runs yet. Memory allocated by a captured call would be handed out again while the graph goes on writing
        to it, so the attempt ends at the first allocation.
        """
        with self.cupy.cuda.using_allocator(_refuse), self.stream:
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
