"""Ctrl-C and SIGTERM during a run: noted at once, obeyed after the step."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Interruption(KeyboardInterrupt):
    """A signal ended a run after a step, with a checkpoint; `signum` tells which."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class Terminated(KeyboardInterrupt):
    """SIGTERM outside of the training."""

    signum = signal.SIGTERM


@contextmanager
def raised() -> Iterator[None]:
    """Within, SIGTERM raises Terminated as Ctrl-C raises KeyboardInterrupt; only the main thread can do this."""

    def stop(signum: int, frame: FrameType | None) -> NoReturn:
        raise Terminated

    with _handled(stop, signal.SIGTERM):
        yield


@contextmanager
def postponed() -> Iterator[list[int]]:
    """Within, SIGINT and SIGTERM only enter the list; a Ctrl-C that is not the first signal interrupts as ever.

    A thread other than the main one, in which Python allows no handlers, is left alone.
    """
    seen: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        if seen and signum == signal.SIGINT:
            raise KeyboardInterrupt
        seen.append(signum)

    with _handled(note, signal.SIGINT, signal.SIGTERM):
        yield seen


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None], *signals: signal.Signals) -> Iterator[None]:
    """Within, a handler for these signals, where they are not ignored, and in the main thread."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for signum in signals:
            if signal.getsignal(signum) not in (signal.SIG_IGN, None):
                before[signum] = signal.signal(signum, handler)
    try:
        yield
    finally:
        for signum, earlier in before.items():
            signal.signal(signum, earlier)
