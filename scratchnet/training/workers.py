"""Data parallelism: processes that run the same step on their share of the batch.

Every worker computes all gradients for its rows; at the one barrier of a step they lie in shared memory, and each
worker adds up and applies its own slice of them. Between steps a worker sleeps on its pipe, which also tells it when
the parent has died, and the parent when a worker has. The parent takes a worker to hang that has not answered after a
minute and a tenth of a second for each image of the order, a hundred times what the published networks need.
"""

import ctypes
import multiprocessing
import os
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import pairwise
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from multiprocessing.util import Finalize
from typing import Any, NoReturn

from joblib import wrap_non_picklable_objects

from scratchnet.backend import Array
from scratchnet.errors import TrainingError
from scratchnet.training.replica import LocalReplica, Peers, TrainingSpec

STOPPING = signal.SIGINT, signal.SIGTERM
START_PATIENCE = 120.0  # seconds for processes to start: they import the main script
PATIENCE, IMAGE_PATIENCE = 60.0, 0.1  # seconds for an answer, and for each image of the order
BLAS_THREADS = [f"{blas}_THREADS" for blas in ("OPENBLAS_NUM", "MKL_NUM", "BLIS_NUM", "OMP_NUM", "VECLIB_MAXIMUM")]


class Barrier:
    """All wait for all: each worker owns a pipe, and the others write to it. `waiting` tells the parent who is here."""

    def __init__(self, context: SpawnContext, workers: int) -> None:
        self.pipes = [context.Pipe(duplex=False) for _ in range(workers)]  # a semaphore has a name, which may leak
        self.waiting = context.RawArray(ctypes.c_bool, workers)

    def wait(self, rank: int) -> None:
        self.waiting[rank] = True
        for other, (_, theirs) in enumerate(self.pipes):
            if other != rank:
                theirs.send_bytes(b"")
        mine, _ = self.pipes[rank]
        for _ in range(len(self.pipes) - 1):
            while not mine.poll(1):  # the parent ends us if this takes too long
                parent = multiprocessing.parent_process()
                if parent is not None and not parent.is_alive():
                    raise EOFError("the parent died in the middle of a step")
            mine.recv_bytes()
        self.waiting[rank] = False


class Workers:
    """Processes, one a replica. `train` and `predict` are those of a replica, done by all; `close` ends them."""

    def __init__(self, spec: TrainingSpec, arrays: dict[str, Array]) -> None:
        # Layers, initializers and temperatures may be defined anywhere, as lambdas too.
        packed = wrap_non_picklable_objects(spec, keep_wrapper=False)
        context = multiprocessing.get_context("spawn")
        self.spec, self.arrays = spec, arrays
        self.pipes: list[Connection] = []
        self.processes: list[Any] = []
        Finalize(self, _hang_up, (self.pipes,), exitpriority=0)  # before the end of Python waits for them
        barrier = Barrier(context, spec.replicas)
        self.waiting = barrier.waiting
        try:
            with one_blas_thread(), no_interrupt():
                for rank in range(spec.replicas):
                    pipe, theirs = context.Pipe()
                    job = theirs, rank, packed, arrays, barrier
                    process = context.Process(target=_serve, args=job, daemon=True)
                    process.start()
                    theirs.close()  # else we would never see the end of a worker
                    self.pipes.append(pipe)
                    self.processes.append(process)
            self._collect(START_PATIENCE)
        except BaseException:
            self.close(0)
            raise

    def train(self, start: int, size: int, step: int) -> None:
        self._order([("train", (start, size, step))] * len(self.pipes), size)

    def predict(self, split: str, start: int, stop: int) -> None:
        bounds = [start + (stop - start) * rank // len(self.pipes) for rank in range(len(self.pipes) + 1)]
        self._order([("predict", (split, *part)) for part in pairwise(bounds)], stop - start)

    def _order(self, messages: list[tuple[str, tuple[Any, ...]]], images: int) -> None:
        for pipe, message in zip(self.pipes, messages, strict=True):
            with suppress(OSError):  # a dead worker is reported by _collect
                pipe.send(message)
        self._collect(PATIENCE + IMAGE_PATIENCE * images)

    def _collect(self, patience: float) -> None:
        """One answer from each, in the order they come: who waits for a dead worker would never answer."""
        waiting = {pipe: rank for rank, pipe in enumerate(self.pipes)}
        silence = 0
        while waiting:
            # In short waits, as the clock runs on while all are suspended, and one long one would then be over.
            ready = wait(list(waiting), 1)
            silence += not ready
            if silence >= patience:
                hung = [rank for rank in waiting.values() if not self.waiting[rank]]  # others wait for these
                self._end(
                    hung or [*waiting.values()],
                    f"gave no answer for {silence} seconds, and the run ends with it: was it stopped, or is memory "
                    "short? Train again, with fewer workers if need be",
                )
            for pipe in ready:
                rank = waiting.pop(pipe)  # type: ignore[call-overload]
                try:
                    failure = pipe.recv()  # type: ignore[union-attr, call-arg]
                except (EOFError, OSError):
                    failure = self._cause_of_death(rank), None
                if failure is not None:
                    self._end([rank], *failure)

    def _cause_of_death(self, rank: int) -> str:
        self.processes[rank].join(1)
        code = self.processes[rank].exitcode
        cause = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
        return (
            f"died ({cause}), and the run with it: was it killed, or out of memory? A script that trains with workers "
            "needs the guard `if __name__ == '__main__':`"
        )

    def _end(self, ranks: list[int], what: str, trace: str | None = None) -> NoReturn:
        self.close(0)
        error = TrainingError(f"worker {' and '.join(map(str, ranks))} of {self.spec.replicas} {what}")
        if trace is not None:
            error.add_note(trace)
        raise error

    def close(self, patience: float = 1) -> None:
        """End the processes, after `patience` seconds by force, which also reaches one that is stopped."""
        _hang_up(self.pipes)
        for process in self.processes:
            process.join(patience)
            process.kill()
            process.join()


def _hang_up(pipes: list[Connection]) -> None:
    for pipe in pipes:
        pipe.close()


def _serve(pipe: Connection, rank: int, spec: TrainingSpec, arrays: dict[str, Array], barrier: Barrier) -> None:
    """The life of a worker: build, then do what each message says, until the pipe closes."""
    for signum in STOPPING:
        signal.signal(signum, signal.SIG_IGN)
    try:
        replica = LocalReplica(spec, arrays, rank, Peers(partial(barrier.wait, rank), arrays["exchange"]))
        pipe.send(None)
        while True:
            kind, arguments = pipe.recv()
            getattr(replica, kind)(*arguments)
            pipe.send(None)
    except (EOFError, OSError):
        pass  # the parent is gone, and so are we
    except Exception as error:
        with suppress(OSError):
            pipe.send((f"failed, and the run with it: {type(error).__name__}: {error}", traceback.format_exc()))


@contextmanager
def no_interrupt() -> Iterator[None]:
    """Block SIGINT and SIGTERM in processes started inside; only the parent reacts to them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which may unblock the signals when it starts with the first process
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """For processes started meanwhile: a BLAS reads these when a worker imports NumPy."""
    before = {name: value for name, value in os.environ.items() if name in BLAS_THREADS}
    os.environ.update(dict.fromkeys(BLAS_THREADS, "1"))
    try:
        yield
    finally:
        for name in BLAS_THREADS:
            del os.environ[name]
        os.environ.update(before)
