"""A step captured as one graph: by a stand-in that repeats the calls, and by backend.cuda with a stand-in for CuPy."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest

from scratchnet import Adam, Conv2D, Dense, Dropout, Flatten, GumbelSoftmax, MaxPooling2D, ReLU, Sequential
from scratchnet.backend import Device, Program, prepare, run
from scratchnet.backend.cuda import LINE, RING, Cuda
from scratchnet.errors import DeviceError
from scratchnet.heads import GumbelSoftmaxCrossEntropy
from scratchnet.training import Trainer
from tests.backend.strict_device import StrictDevice
from tests.kernels.gpu.host_cuda import NEEDS_COMPILER, KernelDevice
from tests.training.problem import dataset


def repeat(calls: Sequence[Any], owners: Sequence[str]) -> Callable[[], None]:
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

    def capture(calls: Sequence[Any], owners: Sequence[str]) -> Callable[[], None]:
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


def test_a_failed_capture_is_an_error_again_and_again() -> None:
    def capture(calls: Sequence[Any], owners: Sequence[str]) -> Callable[[], None]:
        raise DeviceError("cannot")

    seen: list[str] = []
    with Program(capture) as program:
        run(seen.append, "a")
    for _ in range(2):
        with pytest.raises(DeviceError, match="cannot"):
            program.replay()
    assert seen == ["a"]


@pytest.mark.parametrize(
    "kind", [StrictDevice, pytest.param(KernelDevice, marks=NEEDS_COMPILER)], ids=["ufuncs", "kernels"]
)
def test_eager_and_captured_training_give_the_same_bits(kind: type[Device], monkeypatch: pytest.MonkeyPatch) -> None:
    """Three epochs with a smaller last batch, dropout and Gumbel noise."""
    results, launches = [], 0

    def capture(calls: Sequence[Any], owners: Sequence[str]) -> Callable[[], None]:
        nonlocal launches
        launches += 1
        return repeat(calls, owners)

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

    def __init__(self, cupy: "FakeCupy", name: str) -> None:
        self.cupy, self.name, self.capturing = cupy, name, False
        self.copies: list[tuple[np.ndarray, np.ndarray]] = []

    def __enter__(self) -> None:
        self.cupy.entered.append(self)
        self.cupy.current = self

    def __exit__(self, *exception: object) -> None:
        self.cupy.entered.pop()
        self.cupy.current = self.cupy.entered[-1]  # whatever use() had made current is forgotten

    def use(self) -> None:
        self.cupy.current = self

    def is_capturing(self) -> bool:
        return self.capturing

    def wait_event(self, event: "FakeEvent") -> None:
        self.cupy.log.append(f"{self.name} waits for {event.recorded}")

    def begin_capture(self) -> None:
        self.cupy.log.append("begin")
        self.capturing = True

    def end_capture(self) -> "FakeStream":
        self.cupy.log.append("end")
        self.capturing = False
        return self

    def launch(self, stream: "FakeStream") -> None:
        assert stream is self
        self.cupy.log.append("launch")


class FakeEvent:
    """Stands for all that its stream had to do when it was recorded."""

    recorded: str | None = None

    def record(self, stream: FakeStream) -> None:
        self.recorded, self.stream, self.pending = stream.name, stream, list(stream.copies)

    def synchronize(self) -> None:
        if self.recorded is not None:
            asked = {id(copy) for copy in self.pending}
            for copy in [copy for copy in self.stream.copies if id(copy) in asked]:
                target, source = copy
                target[...] = source
                self.stream.copies = [other for other in self.stream.copies if other is not copy]


class FakeCupy:
    """The part of CuPy that capturing uses; notes what is done, in order."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.allocator: Any = None
        self.cuda = self
        self.entered = [FakeStream(self, "theirs")]
        self.current = self.entered[0]

    def Device(self) -> Any:
        return nullcontext()

    def Stream(self, non_blocking: bool) -> FakeStream:
        assert non_blocking
        return FakeStream(self, "ours")

    def Event(self, disable_timing: bool) -> FakeEvent:
        assert disable_timing
        return FakeEvent()

    def get_current_stream(self) -> FakeStream:
        return self.current

    def alloc_pinned_memory(self, size: int) -> bytearray:
        return bytearray(size)

    @contextmanager
    def using_allocator(self, allocator: Any) -> Iterator[None]:
        self.allocator = allocator
        try:
            yield
        finally:
            self.allocator = None


BEFORE, AFTER = "ours waits for theirs", "theirs waits for ours"


def test_capture_records_the_calls_and_launches_them() -> None:
    cupy = FakeCupy()
    kept: Any = [(cupy.log.append, ("a",)), (cupy.log.append, ("b",))]
    launch = Cuda(cupy).capture(kept, ["", ""])
    assert launch.calls is kept  # or the arrays and modules that the graph uses could go
    launch()
    launch()
    assert cupy.log == [BEFORE, "begin", "a", "b", "end", AFTER, "launch", "launch"]


@pytest.mark.parametrize("failure", ["allocates", "fails", "ends the capture", "interrupted"])
def test_a_call_that_cannot_be_captured_is_named_with_its_layer(failure: str) -> None:
    def guilty() -> None:
        if failure == "allocates":
            cupy.allocator(8)
        elif failure == "ends the capture":
            cuda.stream.capturing = False
        else:
            raise KeyboardInterrupt if failure == "interrupted" else NotImplementedError("not while capturing")

    cupy = FakeCupy()
    cuda = Cuda(cupy)
    calls = [(list, ()), (partial(guilty), ()), (list, ())]
    expected: Any = KeyboardInterrupt if failure == "interrupted" else DeviceError
    with pytest.raises(expected) as caught:
        cuda.capture(calls, ["conv2d", "softmax", "dense"])
    if expected is DeviceError:
        assert "guilty` in softmax fails" in str(caught.value)
        assert "asks for 8 bytes" in str(caught.value) or failure != "allocates"
    assert cupy.log == [BEFORE, "begin", "end", AFTER]  # the stream no longer captures
    assert cupy.allocator is None
    assert cupy.current.name == "theirs"


@pytest.mark.parametrize("used", [False, True])
def test_a_session_keeps_the_callers_stream_and_its_order(used: bool) -> None:
    cupy = FakeCupy()
    cuda, caller = Cuda(cupy), FakeStream(cupy, "theirs")
    if used:
        caller.use()
    else:
        caller.__enter__()
    with cuda.session():
        assert cupy.current is cuda.stream
        with cupy.Stream(non_blocking=True):  # CuPy enters streams too
            pass
        assert cupy.current is cuda.stream
        with cuda.session():
            cupy.log.append("work")
    assert cupy.log == [BEFORE, "work", AFTER]
    assert cupy.current is caller
    with pytest.raises(ZeroDivisionError), cuda.session():
        raise ZeroDivisionError
    assert cupy.log[-1] == AFTER
    assert cupy.current is caller


def test_two_threads_take_turns() -> None:
    cupy, inside = FakeCupy(), threading.Event()
    cuda = Cuda(cupy)

    def other() -> None:
        inside.set()
        with cuda.session():
            cupy.log.append("second")

    thread = threading.Thread(target=other)
    with cuda.session():
        thread.start()
        inside.wait()
        time.sleep(0.05)
        cupy.log.append("first")
    thread.join()
    assert cupy.log == [BEFORE, "first", AFTER, BEFORE, "second", AFTER]


def test_a_stream_that_is_being_captured_is_refused() -> None:
    cupy = FakeCupy()
    cuda = Cuda(cupy)
    cupy.current.capturing = True
    with pytest.raises(DeviceError, match="while the current stream is being captured"), cuda.session():
        pass
    assert cupy.log == []


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
    last = FakeEvent()
    last.record(cuda.stream)
    last.synchronize()
    assert [buffer.values.tolist() for buffer in buffers] == [[[number] * 3] * 2 for number in range(len(buffers))]
