"""Data parallelism: processes that run the same step on their share of the batch.

Every worker computes all gradients for its rows; at the one barrier of a step they lie in shared memory, and each
worker adds up and applies its own slice of them. Between steps a worker sleeps on its pipe, which also tells it when
the parent has died, and the parent when a worker has.
"""

import ctypes
import multiprocessing
import os
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from math import prod
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from multiprocessing.synchronize import Semaphore
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from scratchnet.backend import get_device
from scratchnet.errors import TrainingError
from scratchnet.training.replica import Job, Replica, Together

PAGE = 4096
PATIENCE = 60  # seconds a worker waits for the others within a step
START_PATIENCE = 120.0  # seconds for processes to start: they import the main script
BLAS_THREADS = tuple(
    f"{name}_THREADS" for name in ("OPENBLAS_NUM", "MKL_NUM", "BLIS_NUM", "VECLIB_MAXIMUM", "OMP_NUM")
)

Layout = dict[str, tuple[tuple[int, ...], str]]


class SharedArrays:
    """Arrays by name in one block of shared memory, which lives as long as anybody holds an array of it.

    The block has no name in the file system: unlike multiprocessing.shared_memory it cannot leak, nor be unmapped under
    its arrays.
    """

    def __init__(self, layout: Layout, block: Any) -> None:
        self.layout, self.block, self.arrays = layout, block, {}
        memory, end = np.frombuffer(block, np.uint8), 0
        for name, (shape, dtype) in layout.items():
            start, end = end, end + prod(shape) * np.dtype(dtype).itemsize
            self.arrays[name] = memory[start:end].view(dtype).reshape(shape)
            end += -end % PAGE

    @classmethod
    def create(cls, context: SpawnContext, layout: Layout) -> "SharedArrays":
        size = sum(prod(shape) * np.dtype(dtype).itemsize + PAGE for shape, dtype in layout.values())
        return cls(layout, context.RawArray(ctypes.c_ubyte, size))

    def __reduce__(self) -> Any:
        return SharedArrays, (self.layout, self.block)


class Barrier:
    """All wait for all: each worker owns a semaphore that the others raise."""

    def __init__(self, context: SpawnContext, workers: int) -> None:
        self.raised = [context.Semaphore(0) for _ in range(workers)]

    def wait(self, rank: int) -> None:
        for other, semaphore in enumerate(self.raised):
            if other != rank:
                semaphore.release()
        for _ in range(len(self.raised) - 1):
            self._one_other(self.raised[rank])

    def _one_other(self, mine: Semaphore) -> None:
        # In short waits, as the clock runs on while all are suspended, and one long one would then be over.
        for _ in range(PATIENCE):
            if mine.acquire(timeout=1):
                return
            parent = multiprocessing.parent_process()
            if parent is not None and not parent.is_alive():
                raise EOFError("the parent died in the middle of a step")
        raise RuntimeError(f"another worker did not come within {PATIENCE} seconds")


class Workers:
    """Processes, one a replica. `train` and `predict` are those of a replica, done by all; `close` ends them."""

    def __init__(self, job: Job, layout: Layout) -> None:
        context = multiprocessing.get_context("spawn")
        self.shared = SharedArrays.create(context, layout)
        self.arrays = self.shared.arrays
        self.job, self.pipes, self.processes = job, [], []
        barrier = Barrier(context, job.replicas)
        try:
            with one_blas_thread(), no_interrupt():
                for rank in range(job.replicas):
                    pipe, theirs = context.Pipe()
                    process = context.Process(
                        target=_serve, args=(theirs, rank, job, self.shared, barrier), daemon=True
                    )
                    process.start()
                    theirs.close()  # else we would never see the end of a worker
                    self.pipes.append(pipe)
                    self.processes.append(process)
            self._collect(START_PATIENCE)
        except BaseException:
            self.close()
            raise

    def train(self, start: int, size: int, step: int) -> None:
        self._order([("train", (start, size, step))] * len(self.pipes))

    def predict(self, split: str, start: int, stop: int) -> None:
        bounds = [start + (stop - start) * rank // len(self.pipes) for rank in range(len(self.pipes) + 1)]
        self._order([("predict", (split, *part)) for part in pairwise(bounds)])

    def _order(self, messages: list[tuple[str, tuple[Any, ...]]]) -> None:
        for pipe, message in zip(self.pipes, messages, strict=True):
            with suppress(OSError):  # a dead worker is reported by _collect
                pipe.send(message)
        self._collect(None)

    def _collect(self, patience: float | None) -> None:
        """One answer from each, in the order they come: who waits for a dead worker would never answer."""
        waiting: list[Any] = list(self.pipes)
        while waiting:
            ready = wait(waiting, patience)
            if not ready:
                self.close()
                raise TrainingError(
                    f"the worker processes did not start within {START_PATIENCE:.0f} seconds: try one worker"
                )
            for pipe in ready:
                waiting.remove(pipe)
                try:
                    failure = pipe.recv()  # type: ignore[union-attr, call-arg]
                except (EOFError, OSError):
                    failure = "died", None
                if failure is not None:
                    self._fail(self.pipes.index(pipe), *failure)  # type: ignore[arg-type]

    def _fail(self, rank: int, what: str, trace: str | None) -> None:
        self.processes[rank].join(1)
        code = self.processes[rank].exitcode
        self.close()
        if trace is not None:
            error = TrainingError(f"worker {rank} of {self.job.replicas} failed, and the run with it: {what}")
            error.add_note(trace)
            raise error
        cause = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
        raise TrainingError(
            f"worker {rank} of {self.job.replicas} {what} ({cause}), and the run with it: was it killed, or out of "
            "memory? A script that trains with workers needs the guard `if __name__ == '__main__':`"
        )

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join(1)
            if process.is_alive():  # it waits for one that failed
                process.terminate()
                process.join(1)
            if process.is_alive():
                process.kill()
                process.join()


def _serve(pipe: Connection, rank: int, job: Job, shared: SharedArrays, barrier: Barrier) -> None:
    """The life of a worker: build, then do what each message says, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with threadpool_limits(1):
            together = Together(lambda: barrier.wait(rank), shared.arrays["exchange"])
            replica = Replica(job, shared.arrays, get_device("cpu"), rank, together)
            pipe.send(None)
            while True:
                kind, arguments = pipe.recv()
                getattr(replica, kind)(*arguments)
                pipe.send(None)
    except (EOFError, OSError):
        pass  # the parent is gone, and so are we
    except Exception as error:
        with suppress(OSError):
            pipe.send((f"{type(error).__name__}: {error}", traceback.format_exc()))


@contextmanager
def no_interrupt() -> Iterator[None]:
    """Processes started meanwhile do not see Ctrl-C, which reaches the whole group: their parent decides."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """For processes started meanwhile: a BLAS reads these when a worker imports NumPy."""
    before = {name: os.environ.get(name) for name in BLAS_THREADS}
    os.environ.update(dict.fromkeys(BLAS_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
