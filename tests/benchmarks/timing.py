"""Contenders, each in a process of its own, timed in interleaved rounds: A B C, A B C, ...

Processes keep the contenders apart: no import, thread pool or allocator of one is there when another is timed. A
machine's speed drifts by more than what is to be seen, so each round times all of them, and what counts is the median
of the rounds' ratios.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, Self

import numpy as np

from tests.benchmarks.setting import Setting

WARM, STEPS = 3, 12  # steps of a contender in one round: not timed, and timed
MIN_ROUNDS = 5  # of works in this process, however little time there is
MakeStep = Callable[[Setting], AbstractContextManager[Callable[[], None]]]


class Contender:
    """A named process that runs target(pipe, *arguments); with it ends the process and all that it started."""

    def __init__(self, name: str, target: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_run, args=(theirs, target, arguments))
        self.process.start()
        theirs.close()

    def ask(self, question: Any) -> Any:
        with suppress(OSError):  # where it has failed, there is no answer either
            self.pipe.send(question)
        return self.answer()

    def answer(self) -> Any:
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            raise RuntimeError(f"{self.name} failed: its own message is above") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.pipe.close()
        self.process.join()


def _run(pipe: Connection, target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    with suppress(EOFError, KeyboardInterrupt):  # no more questions
        target(pipe, *arguments)


def serve_steps(pipe: Connection, make_step: MakeStep) -> None:
    """As the target of a contender: for each setting received, time steps as often as asked, until None comes."""
    while True:
        with make_step(pipe.recv()) as step:
            pipe.send("ready")
            while (question := pipe.recv()) is not None:
                warm, steps = question
                for _ in range(warm):
                    step()
                pipe.send(_median_seconds(step, steps))


def time_works(
    works: Sequence[Callable[[], object]], seconds: float, clock: Callable[[], float] | None = None
) -> np.ndarray:
    """Milliseconds in this process, a row a round and a column a work, for about `seconds`; by default the wall's."""
    clock = clock or time.perf_counter
    rounds: list[list[float]] = []
    end = time.perf_counter() + seconds
    while len(rounds) < MIN_ROUNDS or time.perf_counter() < end:
        times = [clock()]
        for work in works:
            work()
            times.append(clock())
        rounds.append(times)
    return 1e3 * np.diff(rounds)


def _median_seconds(step: Callable[[], None], steps: int) -> float:
    seconds = []
    for _ in range(steps):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


@contextmanager
def prepared(contenders: Sequence[Contender], setting: Setting) -> Iterator[None]:
    """Meanwhile the contenders have a network, its optimizer and its data for this setting."""
    for contender in contenders:
        contender.ask(setting)
    yield
    for contender in contenders:
        contender.pipe.send(None)


def time_rounds(contenders: Sequence[Contender], rounds: int, warm: int = WARM, steps: int = STEPS) -> np.ndarray:
    """Median seconds of a step, a row a round and a column a contender; they must be prepared."""
    return np.array([[contender.ask((warm, steps)) for contender in contenders] for _ in range(rounds)])
