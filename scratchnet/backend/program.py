"""Record a step once, replay it many times.

Every operation goes through `run`, which calls a function at once and, while a program is being recorded on this
thread, also notes the call. All arrays of a step live in fixed buffers, so calling the noted functions again *is* the
next step. What changes between steps (the batch, the learning rate, the noise) is changed inside a buffer, by a
function noted through `prepare`.

On a GPU the first replay captures what `run` noted as one graph, which the replays launch, after what `prepare` noted.
There, a call that cannot be captured is an error, which names the owner of the call.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any, Self

Call = tuple[Callable[..., Any], tuple[Any, ...]]
Capture = Callable[[Sequence[Call], Sequence[str]], Callable[[], None]]  # calls and their owners


class _Recording(threading.local):
    program: "Program | None" = None


_recording = _Recording()


class Program:
    """`with Program() as step: ...` records what runs inside; `step.replay()` runs it again.

    `capture` makes one function of the calls that are the same in every step; without it they are repeated one by one.
    """

    def __init__(self, capture: Capture | None = None) -> None:
        self.calls: list[Call] = []
        self.owners: list[str] = []  # of each call
        self.owner = "the step"
        self.preparations: set[int] = set()  # places in `calls`
        self.capture = capture

    def __enter__(self) -> Self:
        if _recording.program is not None:
            raise RuntimeError("a program is being recorded on this thread already")
        _recording.program = self
        return self

    def __exit__(self, *exception: object) -> None:
        _recording.program = None

    def replay(self) -> None:
        """Run the recorded calls again, in their order, on the same buffers."""
        if self.capture is not None:
            places = [place for place in range(len(self.calls)) if place not in self.preparations]
            graph = self.capture([self.calls[place] for place in places], [self.owners[place] for place in places])
            self.calls = [*(self.calls[place] for place in sorted(self.preparations)), (graph, ())]
            self.capture = None
        for function, arguments in self.calls:
            function(*arguments)


def run(function: Callable[..., Any], *arguments: Any) -> None:
    """Call the function now, and remember the call if a program is being recorded."""
    function(*arguments)
    program = _recording.program
    if program is not None:
        program.calls.append((function, arguments))
        program.owners.append(program.owner)


def owned_by(name: str) -> None:
    """What is recorded from here on belongs to the layer of this name."""
    if _recording.program is not None:
        _recording.program.owner = name


def prepare(function: Callable[..., Any], *arguments: Any) -> None:
    """The same for a function that looks up what is new in a step and loads it into a buffer of its own.

    Nothing else writes to that buffer before, so the call may come at any earlier place of the step.
    """
    if _recording.program is not None:
        _recording.program.preparations.add(len(_recording.program.calls))
    run(function, *arguments)
