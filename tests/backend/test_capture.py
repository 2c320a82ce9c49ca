"""A step captured as one graph: by a stand-in that repeats the calls, and by backend.cuda with a stand-in for CuPy."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from scratchnet import Adam, Conv2D, Dense, Dropout, Flatten, GumbelSoftmax, MaxPooling2D, ReLU, Sequential
from scratchnet.backend import Device, Program, prepare, run
from scratchnet.backend.cuda import LINE, RING, Cuda
from scratchnet.heads import GumbelSoftmaxCrossEntropy
from scratchnet.training import Trainer
from tests.backend.strict_device import StrictDevice
from tests.kernels.gpu.host_cuda import NEEDS_COMPILER, KernelDevice
from tests.training.problem import dataset


def repeat(calls: Sequence[Any]) -> Callable[[], None]:
    """What a graph does: all that was captured, with the arguments it was captured with."""
    frozen = [(function, arguments) for function, arguments in calls]

    def launch() -> None:
        for function, arguments in frozen:
            function(*arguments)

    return launch


# --- programs


def test_what_was_prepared_comes_before_the_graph() -> None:
    seen: list[str] = []
    captured: list[Any] = []

    def capture(calls: Sequence[Any]) -> Callable[[], None]:
        captured.extend(calls)
        return lambda: seen.append("graph")

    with Program(capture) as program:
        run(seen.append, "a")
        prepare(seen.append, "new")
        run(seen.append, "b")
    assert seen == ["a", "new", "b"]
    for _ in range(2):
        program.replay()
    assert seen[3:] == ["new", "graph"] * 2
    assert [arguments for _, arguments in captured] == [("a",), ("b",)]  # captured once


def test_what_cannot_be_captured_is_repeated_call_by_call() -> None:
    seen: list[str] = []
    with Program(lambda calls: None) as program:
        run(seen.append, "a")
        prepare(seen.append, "new")
    program.replay()
    assert seen == ["a", "new"] * 2


@pytest.mark.parametrize(
    "kind", [StrictDevice, pytest.param(KernelDevice, marks=NEEDS_COMPILER)], ids=["ufuncs", "kernels"]
)
def test_eager_and_captured_training_give_the_same_bits(kind: type[Device], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs with a smaller last batch, dropout and Gumbel noise. The stand-in without kernels gathers eagerly."""
    results, launches = [], 0

    def capture(calls: Sequence[Any]) -> Callable[[], None] | None:
        nonlocal launches
        launches += 1
        names = [getattr(function, "__name__", "") for function, _ in calls]
        return None if "take" in names else repeat(calls)

    for captured in (False, True):
        device = kind()  # type: ignore[call-arg]
        device.capture = capture if captured else None
        network = Sequential(
            [Conv2D(4, 3, padding="same"), ReLU(), MaxPooling2D(), Dropout(0.3), Flatten(), Dense(6), ReLU(),
             GumbelSoftmax(0.7), Dense(5)]
        )  # fmt: skip
        network.build((8, 8, 3), device=device)
        with Trainer(network, GumbelSoftmaxCrossEntropy(0.5), Adam(), dataset(), batch_size=32) as trainer:
            losses = [trainer.train_epoch(epoch).loss for epoch in (1, 2, 3)]
            results.append((losses, network.weights()))
    (loss, weights), (loss_2, weights_2) = results
    assert launches == 2  # one program a batch size: 32 and 26
    assert loss == loss_2
    assert len(set(loss)) == 3
    for name in weights:
        np.testing.assert_array_equal(weights[name], weights_2[name])


# --- capturing with CuPy


class FakeStream:
    """A stream of CuPy: a copy from page-locked memory reads it when its turn comes, not when it is asked for."""

    def __init__(self, cupy: "FakeCupy") -> None:
        self.cupy = cupy
        self.copies: list[tuple[np.ndarray, np.ndarray]] = []

    def __enter__(self) -> None:
        self.cupy.entered.append(self)
        self.cupy.current = self

    def __exit__(self, *exception: object) -> None:
        self.cupy.entered.pop()
        self.cupy.current = self.cupy.entered[-1]  # whatever use() had made current is forgotten

    def use(self) -> None:
        self.cupy.current = self

    def synchronize(self) -> None:
        for target, source in self.copies:
            target[...] = source
        self.copies.clear()

    def begin_capture(self) -> None:
        self.cupy.log.append("begin")

    def end_capture(self) -> "FakeStream":
        self.cupy.log.append("end")
        return self

    def launch(self, stream: "FakeStream") -> None:
        assert stream is self
        self.cupy.log.append("launch")


class FakeCupy:
    """The part of CuPy that capturing uses; notes what is done, in order."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.allocator: Any = None
        self.cuda = self
        self.entered: list[Any] = ["the default stream"]
        self.current = self.entered[0]

    def Stream(self, non_blocking: bool) -> FakeStream:
        assert non_blocking
        return FakeStream(self)

    def alloc_pinned_memory(self, size: int) -> bytearray:
        return bytearray(size)

    @contextmanager
    def using_allocator(self, allocator: Any) -> Iterator[None]:
        self.allocator = allocator
        yield
        self.allocator = None


def test_capture_records_the_calls_and_launches_them() -> None:
    cupy = FakeCupy()
    kept: Any = [(cupy.log.append, ("a",)), (cupy.log.append, ("b",))]
    launch = Cuda(cupy).capture(kept)
    assert launch is not None
    assert launch.calls is kept  # or the arrays and modules that the graph uses could go
    launch()
    launch()
    assert cupy.log == ["begin", "a", "b", "end", "launch", "launch"]


def test_a_call_that_allocates_or_fails_is_not_captured() -> None:
    def fail() -> None:
        raise NotImplementedError("not while capturing")

    cupy = FakeCupy()
    for call in (lambda: cupy.allocator(8), fail):
        cupy.log.clear()
        assert Cuda(cupy).capture([(call, ())]) is None
        assert cupy.log == ["begin", "end"]  # the stream no longer captures
    assert cupy.allocator is None


def test_the_stream_stays_current_when_cupy_enters_another() -> None:
    cupy = FakeCupy()
    cuda = Cuda(cupy)
    with cupy.Stream(non_blocking=True):
        cuda.capture([])
    assert cupy.current is cuda.stream


class Buffer:
    """An array of the GPU: `set` puts a copy on the current stream."""

    def __init__(self, cupy: FakeCupy) -> None:
        self.cupy, self.values = cupy, np.zeros((2, 3))

    def set(self, host: np.ndarray) -> None:
        assert (host.shape, host.dtype, host.flags.c_contiguous) == (self.values.shape, self.values.dtype, True)
        self.cupy.current.copies.append((self.values, host))


def test_what_is_loaded_may_change_before_the_gpu_reads_it() -> None:
    """More loads than the page-locked memory has place for, by a GPU that does nothing until it is waited for."""
    cupy, host = FakeCupy(), np.zeros((2, 3))
    cuda, buffers = Cuda(cupy), [Buffer(cupy) for _ in range(3 * RING // LINE)]
    for number, buffer in enumerate(buffers):
        host[...] = number
        cuda.load(host, buffer)
    cuda.stream.synchronize()
    assert [buffer.values.tolist() for buffer in buffers] == [[[number] * 3] * 2 for number in range(len(buffers))]
