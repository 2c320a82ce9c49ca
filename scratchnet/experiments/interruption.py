"""Ctrl-C and SIGTERM during a run: noted at once, obeyed after the step."""

import signal
import threading
from collections.abc import Iterator
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

    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if main else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


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

    before = {}
    if threading.current_thread() is threading.main_thread():
        for signum in signal.SIGINT, signal.SIGTERM:
            if signal.getsignal(signum) not in (signal.SIG_IGN, None):
                before[signum] = signal.signal(signum, note)
    try:
        yield seen
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
