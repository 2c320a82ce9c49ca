"""Record a step once, replay it many times.

Every operation goes through `run`, which calls a function at once and, while a program is being recorded on this
thread, also notes the call. All arrays of a step live in fixed buffers, so calling the noted functions again *is* the
next step. What changes between steps (the batch, the learning rate, the noise) is changed inside a buffer, by a
function that is itself noted.
"""

import threading
from collections.abc import Callable
from typing import Any, Self

_recording = threading.local()


class Program:
    """`with Program() as step: ...` records what runs inside; `step.replay()` runs it again."""

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def __enter__(self) -> Self:
        if getattr(_recording, "calls", None) is not None:
            raise RuntimeError("a program is being recorded on this thread already")
        _recording.calls = self.calls
        return self

    def __exit__(self, *exception: object) -> None:
        _recording.calls = None

    def replay(self) -> None:
        """Run the recorded calls again, in their order, on the same buffers."""
        for function, arguments in self.calls:
            function(*arguments)


def run(function: Callable[..., Any], *arguments: Any) -> None:
    """Call the function now, and remember the call if a program is being recorded."""
    function(*arguments)
    calls = getattr(_recording, "calls", None)
    if calls is not None:
        calls.append((function, arguments))
