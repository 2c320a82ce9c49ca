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
from itertools import pairwise
from math import prod
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from multiprocessing.util import Finalize
from typing import Any

import numpy as np
from joblib import wrap_non_picklable_objects
from threadpoolctl import threadpool_limits

from scratchnet.backend import get_device
from scratchnet.errors import TrainingError
from scratchnet.training.replica import Peers, Replica, TrainingSpec

PAGE = 4096
STOPPING = signal.SIGINT, signal.SIGTERM
START_PATIENCE = 120.0  # seconds for processes to start: they import the main script
PATIENCE, IMAGE_PATIENCE = 60.0, 0.1  # seconds for an answer, and for each image of the order
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

    def __init__(self, spec: TrainingSpec, layout: Layout) -> None:
        # Layers, initializers and temperatures may be defined anywhere, as lambdas too.
        packed = wrap_non_picklable_objects(spec, keep_wrapper=False)
        context = multiprocessing.get_context("spawn")
        self.shared = SharedArrays.create(context, layout)
        self.arrays = self.shared.arrays
        self.spec = spec
        self.pipes: list[Connection] = []
        self.processes: list[Any] = []
        Finalize(self, _hang_up, (self.pipes,), exitpriority=0)  # before the end of Python waits for them
        barrier = Barrier(context, spec.replicas)
        self.waiting = barrier.waiting
        try:
            with one_blas_thread(), no_interrupt():
                for rank in range(spec.replicas):
                    pipe, theirs = context.Pipe()
                    process = context.Process(
                        target=_serve, args=(theirs, rank, packed, self.shared, barrier), daemon=True
                    )
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
        waiting: list[Any] = list(self.pipes)
        silence = 0
        while waiting:
            # In short waits, as the clock runs on while all are suspended, and one long one would then be over.
            ready = wait(waiting, 1)
            silence += not ready
            if silence >= patience:
                self._give_up([self.pipes.index(pipe) for pipe in waiting], silence)
            for pipe in ready:
                waiting.remove(pipe)
                try:
                    failure = pipe.recv()  # type: ignore[union-attr, call-arg]
                except (EOFError, OSError):
                    failure = "died", None
                if failure is not None:
                    self._fail(self.pipes.index(pipe), *failure)  # type: ignore[arg-type]

    def _give_up(self, silent: list[int], seconds: int) -> None:
        self.close(0)
        hung = [rank for rank in silent if not self.waiting[rank]] or silent  # the others wait for these
        raise TrainingError(
            f"worker {' and '.join(map(str, hung))} of {self.spec.replicas} gave no answer for {seconds} seconds, and "
            "the run ends with it: was it stopped, or is memory short? Train again, with fewer workers if need be"
        )

    def _fail(self, rank: int, what: str, trace: str | None) -> None:
        self.processes[rank].join(1)
        code = self.processes[rank].exitcode
        self.close(0)
        if trace is not None:
            error = TrainingError(f"worker {rank} of {self.spec.replicas} failed, and the run with it: {what}")
            error.add_note(trace)
            raise error
        cause = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
        raise TrainingError(
            f"worker {rank} of {self.spec.replicas} {what} ({cause}), and the run with it: was it killed, or out of "
            "memory? A script that trains with workers needs the guard `if __name__ == '__main__':`"
        )

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


def _serve(pipe: Connection, rank: int, spec: TrainingSpec, shared: SharedArrays, barrier: Barrier) -> None:
    """The life of a worker: build, then do what each message says, until the pipe closes."""
    for signum in STOPPING:
        signal.signal(signum, signal.SIG_IGN)
    try:
        with threadpool_limits(1):
            peers = Peers(lambda: barrier.wait(rank), shared.arrays["exchange"])
            replica = Replica(spec, shared.arrays, get_device("cpu"), rank, peers)
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
