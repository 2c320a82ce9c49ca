"""The GPU's benchmark from end to end, with stand-ins for CuPy and the card: what it prints, and who is left out."""

import os
import sys
import threading
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import pytest

from scratchnet import Conv2D, Dense, Flatten, MaxPooling2D, ReLU, Sequential
from tests.benchmarks import gpu_step, timing
from tests.kernels.gpu.host_cuda import NEEDS_COMPILER, HostCuda, KernelDevice

torch = pytest.importorskip("torch", reason="the benchmarks compare with PyTorch: pip install 'scratchnet[test]'")
pytest.importorskip("torch._dynamo")  # its optimizers import it late, when it would take the stand-in for a CuPy


class Event:
    """Of either library; a millisecond lies between any two."""

    def __init__(self, enable_timing: bool = True) -> None:
        self.recorded = False

    def record(self) -> None:
        self.recorded = True

    def synchronize(self) -> None: ...

    def elapsed_time(self, end: Self) -> float:
        assert self.recorded
        assert end.recorded
        return 1.0


def fake_cupy() -> Any:
    runtime = SimpleNamespace(
        getDeviceProperties=lambda number: {"name": b"a card"},
        runtimeGetVersion=lambda: 13000,
        driverGetVersion=lambda: 13010,
    )
    return SimpleNamespace(
        __version__="14", ones=np.ones, copyto=np.copyto,
        cuda=SimpleNamespace(Event=Event, get_elapsed_time=Event.elapsed_time, runtime=runtime),
        get_default_memory_pool=lambda: SimpleNamespace(total_bytes=lambda: 3 << 20),
    )  # fmt: skip


class Card(KernelDevice):
    def __init__(self) -> None:
        super().__init__()
        self.cuda = HostCuda()
        self.cuda.stream = SimpleNamespace(synchronize=lambda: None)  # type: ignore[attr-defined]
        self.capture = lambda calls, owners: lambda: [function(*arguments) for function, arguments in calls] and None
        self.cublas = SimpleNamespace(product=lambda a, b, out: np.matmul(a, b, out=out))


class Thread(threading.Thread):
    """In place of a contender's process; a failure ends it and closes its pipe."""

    def __init__(self, target: Any, args: Any) -> None:
        pipe = Connection(os.dup(args[0].fileno()))  # the parent closes its own copy

        def run() -> None:
            with pipe:
                try:
                    target(pipe, *args[1:])
                except Exception as error:
                    print(f"{type(error).__name__}: {error}")

        super().__init__(target=run)


def network(classes: int) -> Sequential:
    return Sequential([Conv2D(4, 3), ReLU(), MaxPooling2D(), Flatten(), Dense(classes)])


@NEEDS_COMPILER
def test_it_runs_and_leaves_out_who_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    device = Card()
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    for name, value in {"WARM": 1, "CUDA": "cpu", "why_not_torch": lambda: None}.items():
        monkeypatch.setattr(gpu_step, name, value)
    monkeypatch.setattr(gpu_step, "get_device", lambda name, precision="": device)
    monkeypatch.setattr(gpu_step, "kernels", lambda contender: contender.step(0) or 41)
    monkeypatch.setitem(gpu_step.RECIPES, "valid-padding", SimpleNamespace(network=network, batch_size=4))  # type: ignore[arg-type]
    monkeypatch.setattr(gpu_step, "time_round", lambda contender, steps: TIME_ROUND(contender, 4))
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy())
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    pipe = SimpleNamespace(Pipe=PIPE, Process=Thread)
    monkeypatch.setattr(timing.multiprocessing, "get_context", lambda kind: pipe)
    arguments = "--recipe valid-padding --precision tf32 --rounds 2 --images 4 --epochs 1 --square 8"
    monkeypatch.setattr(sys, "argv", ["gpu_step", *arguments.split()])
    try:
        gpu_step.main()
    finally:
        switches[0].allow_tf32, switches[1].allow_tf32, switches[1].benchmark = before
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split("  ")[1]: line.split()[-6:] for line in lines if line.startswith(("  ours", "  PyTorch"))}
    assert list(rows) == ["ours", "PyTorch eager"]
    for events, clock, ratio, *_, kernels, peak in rows.values():
        assert (events, ratio, kernels) == ("1.000", "1.000", "41")
        assert float(clock) > 0
        assert float(peak) in (0, 3)
    assert [line.split(" failed")[0] for line in lines if "LEFT OUT" in line] == [
        "LEFT OUT: PyTorch graph", "LEFT OUT: PyTorch compiled"
    ]  # fmt: skip
    assert any(line.startswith("a card, CUDA 13000") for line in lines)
    assert any("1 epochs of ours with evaluation" in line for line in lines)
    errors = {row[0]: [float(cell) for cell in row[1:]] for row in map(str.split, lines) if row and row[0] in
              gpu_step.PRECISIONS}  # fmt: skip
    assert errors["fp32"] == errors["tf32"]  # the host rounds no factors
    assert all(1e-9 < error < 1e-5 for error in errors["fp32"])


TIME_ROUND, PIPE = gpu_step.time_round, timing.multiprocessing.get_context("spawn").Pipe
