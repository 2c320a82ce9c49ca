"""The record of a step: all that is new in it, computed on the host and copied once."""

from typing import Any

import numpy as np
import pytest

from scratchnet import (
    Adam,
    AnnealedTemperature,
    Conv2D,
    Dense,
    Dropout,
    ExponentialDecay,
    Flatten,
    GumbelSoftmax,
    GumbelSoftmaxCrossEntropy,
    MaxPooling2D,
    ReLU,
    Residual,
    Sequential,
    Trainer,
)
from scratchnet.backend import Program, StepRecord, get_device
from scratchnet.backend.buffers import CAPACITY
from tests.backend.strict_device import StrictDevice
from tests.kernels.gpu.host_cuda import NEEDS_COMPILER, KernelDevice
from tests.training.problem import dataset


@pytest.mark.parametrize("device", [get_device("cpu"), StrictDevice()], ids=["cpu", "stand-in"])
def test_a_load_writes_what_is_new_and_a_replay_too(device: Any) -> None:
    record, step = StepRecord(device), [0]
    byte = record.field(lambda: step[0] % 2, np.uint8)
    number = record.field(lambda: 1 / (1 + step[0]), np.float32)
    pair = record.field(lambda: (step[0], -step[0]), np.int64, 2)
    total = device.zeros(2, np.int64)
    assert (byte.shape, number.shape, pair.shape) == ((), (), (2,))
    with Program() as program:
        record.load()
        device.ops.add(total, pair, out=total)
    assert len(program.preparations) == 1
    for step[0] in (1, 2, 3):
        program.replay()
        found = [device.to_host(field) for field in (byte, number, pair)]
        assert [field.dtype for field in found] == [np.uint8, np.float32, np.int64]
        assert found[0] == step[0] % 2
        assert found[1] == np.float32(1 / (1 + step[0]))
        assert found[2].tolist() == [step[0], -step[0]]
    assert device.to_host(total).tolist() == [6, -6]


def test_what_no_float_holds_is_infinite_and_no_warning() -> None:
    record = StepRecord(get_device("cpu"))
    number = record.field(lambda: 1e300, np.float32)
    record.load()
    assert np.isposinf(number)


def test_a_full_record_is_refused_in_one_sentence() -> None:
    record = StepRecord(get_device("cpu"))
    fields = [record.field(lambda: 1, np.float64) for _ in range(CAPACITY // 16)]
    with pytest.raises(ValueError, match=f"the step record is full: more than {CAPACITY} bytes are new in each step"):
        record.field(lambda: 1, np.uint8)
    record.load()
    assert all(field == 1 for field in fields)
    with pytest.raises(ValueError, match="the step record is full"):
        StepRecord(get_device("cpu")).field(lambda: 1, np.float64, CAPACITY // 8 + 1)


@NEEDS_COMPILER
def test_a_replayed_step_is_one_copy_to_the_device_with_the_values_of_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise in three layers and the head, a temperature, a learning rate, the first image: all by one copy."""
    device, loads = KernelDevice(), list[int]()
    load = device.load
    monkeypatch.setattr(device, "load", lambda host, out: loads.append(host.nbytes) or load(host, out=out))
    block = Residual([Conv2D(4, 3, padding="same"), Dropout(0.2)])
    layers = [Conv2D(4, 3), ReLU(), MaxPooling2D(), block, Dropout(0.3), Flatten(), Dense(6), GumbelSoftmax(), Dense(5)]
    network = Sequential(layers)
    network.build((8, 8, 3), device=device)
    head = GumbelSoftmaxCrossEntropy(AnnealedTemperature(1.0, 0.1))
    schedule = ExponentialDecay(0.01, decay_steps=10, decay_rate=0.5)
    with Trainer(network, head, Adam(schedule), dataset(), batch_size=32) as trainer:
        trainer.train_epoch(1)
        replica = trainer.engine.replica  # type: ignore[union-attr]
        for step in (3, 7, 4):
            loads.clear()
            trainer.engine.train(32, 32, step)
            assert loads == [replica.memory.record.size]
            optimizer = replica.optimizer
            bound = replica.bound[32]
            corrected = schedule(step) * np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
            assert optimizer.scalars["rate"] == pytest.approx(corrected, rel=1e-6)
            assert bound.head.step_and_scale.tolist() == pytest.approx([step, 1 / head.temperature_at(step)])
            assert bound.batch.first.tolist() == [32]
            draws = [layer.mask.noise for layer, _ in bound.plan.nodes if isinstance(layer, Dropout)]
            draws += [layer.drawn for layer, _ in bound.plan.nodes if isinstance(layer, GumbelSoftmax)]
            assert [draw.now.tolist() for draw in draws] == [[step, 0]] * 3
