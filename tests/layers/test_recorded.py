"""What was not recorded is not repeated: layers that compute beside the record are refused, and told how to do it."""

from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np
import pytest

from scratchnet import (
    Adam,
    Dense,
    Flatten,
    Head,
    Layer,
    Parallel,
    ReLU,
    Residual,
    Sequential,
    SoftmaxCrossEntropy,
    Trainer,
    check_gradients,
)
from scratchnet.backend import run
from scratchnet.heads import HEADS
from scratchnet.layers.recorded import check_replay
from tests.backend.strict_device import StrictDevice
from tests.kernels.gpu.host_cuda import NEEDS_COMPILER, KernelDevice
from tests.training.problem import dataset


class Tanh(Layer):
    """As it is to be: y = tanh(x), and dx = dy (1 - y^2)."""

    def allocate(self) -> None:
        super().allocate()
        self.kept, self.one = self.activation(), self.memory.constant(1)

    def compute(self, training: bool) -> None:
        run(np.tanh, self.x, self.kept)
        self.ops.copy(self.kept, out=self.y)

    def compute_gradients(self) -> None:
        self.ops.multiply(self.kept, self.kept, out=self.dx)
        self.ops.subtract(self.one, self.dx, out=self.dx)
        self.ops.multiply(self.dx, self.dy, out=self.dx)


class Plain(Tanh):
    def compute(self, training: bool) -> None:
        np.tanh(self.x, self.kept)
        np.copyto(self.y, self.kept)


class PlainAssignment(Tanh):
    def compute(self, training: bool) -> None:
        self.kept[...] = self.y[...] = np.tanh(self.x)


class PlainInTraining(Tanh):
    def compute(self, training: bool) -> None:
        super().compute(training)
        if training:
            self.y *= 1.1


class PlainAsideOfTheRecord(Tanh):
    """y is recorded, what backward needs is not."""

    def compute(self, training: bool) -> None:
        run(np.tanh, self.x, self.y)
        self.kept[...] = np.tanh(self.x)


class PlainGradients(Tanh):
    def compute_gradients(self) -> None:
        np.multiply(self.dy, 1 - self.kept**2, self.dx)


class PlainGradientOfAParameter(Dense):
    def compute_gradients(self) -> None:
        super().compute_gradients()
        self.dbias *= 2


class PlainBias(Dense):
    """The bias is 0 when the layer is new, and what is left out does not show."""

    def compute(self, training: bool) -> None:
        self.ops.matmul(self.x, self.kernel, out=self.y)
        self.y += self.bias


class PlainMovingAverage(Tanh):
    def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self.moving_average("mean", input_shape)
        return input_shape

    def compute(self, training: bool) -> None:
        super().compute(training)
        if training:
            self.mean += 0.1 * (self.x.mean(0) - self.mean)

    mean: Any


class NewOutput(Tanh):
    def compute(self, training: bool) -> None:
        super().compute(training)
        self.y = np.tanh(self.x)


class NewInputGradient(Tanh):
    def compute_gradients(self) -> None:
        self.dx = self.dy * (1 - self.kept**2)


class WritesIntoItsGradient(Tanh):
    """Which other branches of a network read too."""

    def compute_gradients(self) -> None:
        super().compute_gradients()
        self.ops.multiply(self.dy, self.one, out=self.dy)
        self.ops.add(self.dy, self.dy, out=self.dy)


class WritesIntoItsInput(Tanh):
    """Which the layer before it may need for its gradient."""

    def compute(self, training: bool) -> None:
        run(np.tanh, self.x, self.x)
        self.ops.copy(self.x, out=self.kept)
        self.ops.copy(self.x, out=self.y)


class OwnNumbers(Layer):
    source = np.random.default_rng(0)

    def compute(self, training: bool) -> None:
        run(lambda: np.multiply(self.x, self.source.random(self.x.shape), self.y))

    def compute_gradients(self) -> None:
        self.ops.copy(self.dy, out=self.dx)


class OwnNumbersOnce(OwnNumbers):
    """Drawn when the step is recorded, and never again."""

    def compute(self, training: bool) -> None:
        self.ops.multiply(self.x, self.source.random(self.x.shape), out=self.y)


UNRECORDED = r"{}: (y|dx|a gradient|a moving average) is another when its step is repeated.*run\(np\.tanh, self\.x"
REPLACED = r"{}: it replaces one of its buffers x, dx, y and dy while it computes.*self\.ops\.add\(self\.x, self\.z"
WRITTEN = r"{}: it writes into x or dy, which its neighbours read too"
RANDOM = r"{}: y differs between two computations of one step.*`self\.noise\(seed\)`"
REFUSED: dict[Callable[[], Any], str] = {
    Plain: UNRECORDED,
    PlainAssignment: UNRECORDED,
    PlainInTraining: UNRECORDED,
    PlainAsideOfTheRecord: UNRECORDED,
    PlainGradients: UNRECORDED,
    lambda: PlainGradientOfAParameter(8): UNRECORDED,
    lambda: PlainBias(8): UNRECORDED,
    PlainMovingAverage: UNRECORDED,
    NewOutput: REPLACED,
    NewInputGradient: REPLACED,
    WritesIntoItsGradient: WRITTEN,
    WritesIntoItsInput: WRITTEN,
    OwnNumbers: RANDOM,
    OwnNumbersOnce: RANDOM,
}
IDS = [getattr(make(), "kind", "") for make in REFUSED]


@pytest.mark.parametrize(("make", "message"), REFUSED.items(), ids=IDS)
def test_it_is_refused_wherever_it_is_bound(make: Callable[[], Any], message: str) -> None:
    x, data = np.random.default_rng(0).normal(size=(4, 8)), dataset()
    wanted = message.format(make().kind)
    with pytest.raises(TypeError, match=wanted) as caught:
        make().forward(x)
    assert "\n" not in str(caught.value)
    for network in (Sequential([Dense(8), make()]), Residual([make()]), Parallel([[ReLU(), make()], []])):
        with pytest.raises(TypeError, match=wanted):
            network.forward(x, training=True)
        with pytest.raises(TypeError, match=wanted):
            check_gradients(network.unbuilt(), x)
    with pytest.raises(TypeError, match=wanted):
        check_gradients(make(), x)
    network = Sequential([Flatten(), Dense(8), make(), Dense(5)])
    network.build((8, 8, 3))
    with Trainer(network, SoftmaxCrossEntropy(), Adam(), data, batch_size=30, workers=1) as trainer:
        before = network.parameters.copy()
        with pytest.raises(TypeError, match=wanted):
            trainer.train_epoch(1)
        np.testing.assert_array_equal(network.parameters, before)


def test_it_is_refused_again_and_again() -> None:
    layer, x = Plain(), np.ones((2, 3))
    for _ in range(2):
        with pytest.raises(TypeError, match="plain: y is another"):
            layer.forward(x)
        with pytest.raises(TypeError, match="plain: y is another"):
            layer.plan(5)


def test_a_frozen_layer_is_asked_for_its_gradients_too() -> None:
    layer = PlainGradientOfAParameter(3)
    layer.trainable = False
    with pytest.raises(TypeError, match="a gradient is another"):
        layer.forward(np.ones((2, 4)))


def test_workers_refuse_it_too() -> None:
    network = Sequential([Flatten(), Plain(), Dense(5)])
    network.build((8, 8, 3))
    with (
        Trainer(network, SoftmaxCrossEntropy(), Adam(), dataset(), batch_size=30, workers=2) as trainer,
        pytest.raises(Exception, match=r"worker \d of 2 failed.*plain: y is another"),
    ):
        trainer.train_epoch(1)


class InPython(Tanh):
    """A function of one's own, which the record calls."""

    def compute(self, training: bool) -> None:
        run(self.tanh)

    def tanh(self) -> None:
        self.kept[...] = np.tanh(self.x)
        self.y[...] = self.kept


class Remembers(Tanh):
    """Python state that no result depends on: how many rows it has seen, replays included."""

    def allocate(self) -> None:
        super().allocate()
        self.seen = [0]

    def compute(self, training: bool) -> None:
        super().compute(training)
        run(self.count)

    def count(self) -> None:
        self.seen[0] += len(self.x)


@pytest.mark.parametrize(("kind", "workers"), [(Tanh, 1), (InPython, 1), (InPython, 2), (Remembers, 1)])
def test_what_is_recorded_trains(kind: type, workers: int) -> None:
    """As with the activation written out: the same steps, replays and all."""
    assert check_gradients(kind(), np.random.default_rng(0).normal(size=(4, 8))) < 1e-7
    network = Sequential([Flatten(), Dense(16), kind(), Dense(5)])
    network.build((8, 8, 3), dtype="float64", seed=1)
    with Trainer(network, SoftmaxCrossEntropy(), Adam(1e-2), dataset(), batch_size=32, workers=workers) as trainer:
        records = [trainer.train_epoch(epoch) for epoch in range(1, 11)]
        if kind is Remembers:
            bound = trainer.engine.replica.bound  # type: ignore[union-attr]
            assert sum(plan.nodes[2][0].seen[0] for plan in (each.plan for each in bound.values())) == 10 * 90
    assert records[-1].accuracy > 0.9
    assert records[-1].loss < 0.3 * records[0].loss


class Growing(Layer):
    """y = x (1 + step): what is new in a step comes by its record."""

    def allocate(self) -> None:
        super().allocate()
        self.factor = self.memory.record.field(lambda: 1 + self.clock.step, self.dtype)

    def compute(self, training: bool) -> None:
        self.ops.multiply(self.x, self.factor, out=self.y)

    def compute_gradients(self) -> None:
        self.ops.multiply(self.dy, self.factor, out=self.dx)


def test_what_is_new_in_a_step_comes_by_its_record() -> None:
    layer, x = Growing(), np.random.default_rng(0).normal(size=(4, 8))
    assert check_gradients(layer, x) < 1e-7
    for step in range(3):
        np.testing.assert_array_equal(layer.forward(x, training=True), x * (1 + step))


# --- heads are layers


class Squared(Head):
    """loss = mean of (x - onehot(label))^2 / 2, as it is to be."""

    name = "squared"

    def allocate(self) -> None:
        super().allocate()
        self.wanted, self.square = self.activation(dtype=bool), self.activation()
        self.numbers, self.per_row = self.device.xp.arange(self.classes), self.memory.constant(1 / self.batch.total)
        self.largest, self.half = self.memory.buffer(self.batch.size, dtype=np.int64), self.memory.constant(0.5)
        self.hits = self.memory.buffer(self.batch.size, dtype=bool)

    def compute(self, training: bool) -> None:
        ops = self.ops
        ops.equal(self.labels[:, None], self.numbers, out=self.wanted)
        ops.subtract(self.x, self.wanted, out=self.square)
        ops.multiply(self.square, self.per_row, out=self.dx)
        ops.multiply(self.square, self.dx, out=self.square)
        ops.multiply(self.square, self.half, out=self.square)
        ops.sum(self.square, axis=(0, 1), out=self.loss)
        ops.argmax(self.x, axis=1, out=self.largest)
        ops.equal(self.largest, self.labels, out=self.hits)
        ops.sum(self.hits, axis=0, out=self.correct)


class PlainLoss(Squared):
    def compute(self, training: bool) -> None:
        super().compute(training)
        self.loss[...] = 2 * self.loss


class PlainDx(Squared):
    def compute(self, training: bool) -> None:
        super().compute(training)
        self.dx *= 2


class NewLoss(Squared):
    def compute(self, training: bool) -> None:
        super().compute(training)
        self.loss = (self.x**2).sum()


class PlainHits(Squared):
    def compute(self, training: bool) -> None:
        super().compute(training)
        self.correct[...] = (self.x[:, 0] > 0).sum()


class PlainTargets(Squared):
    """The labels of the step that was recorded, for ever."""

    def allocate(self) -> None:
        super().allocate()
        self.targets = self.activation()

    def compute(self, training: bool) -> None:
        super().compute(training)
        self.targets[...] = np.eye(self.classes)[self.labels]
        self.ops.multiply(self.dx, self.targets, out=self.dx)


class RandomLoss(Squared):
    def compute(self, training: bool) -> None:
        super().compute(training)
        run(lambda: np.multiply(self.loss, np.random.default_rng().random(), self.loss))


class PlainParameter(Squared):
    """With a temperature that is trained."""

    def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self.parameter("scale", (1,), "ones")
        return super().infer(input_shape)

    def compute_gradients(self) -> None:
        self.dscale[...] = self.dx.sum()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (PlainLoss, "loss is another when its step is repeated"),
        (PlainDx, "dx is another when its step is repeated"),
        (PlainTargets, "dx is another when its step is repeated"),
        (NewLoss, "it replaces one of its buffers x, dx, loss, correct and dy while it computes"),
        (PlainHits, "correct is another when its step is repeated"),
        (RandomLoss, "loss differs between two computations of one step"),
        (PlainParameter, "a gradient is another when its step is repeated"),
    ],
)
def test_a_head_is_refused_as_a_layer_is(kind: type[Head], message: str) -> None:
    x, labels = np.random.default_rng(0).normal(size=(6, 5)), np.array([0, 1, 2, 3, 4, 0])
    with pytest.raises(TypeError, match=f"squared: {message}"):
        kind()(x, labels)
    with pytest.raises(TypeError, match=f"squared: {message}"):
        check_gradients(kind(), x, labels)
    network = Sequential([Flatten(), Dense(5)])
    network.build((8, 8, 3))
    with (
        Trainer(network, kind(), Adam(), dataset(), batch_size=32, workers=1) as trainer,
        pytest.raises(TypeError, match=f"squared: {message}"),
    ):
        trainer.train_epoch(1)


def test_a_head_that_is_recorded_trains() -> None:
    x, labels = np.random.default_rng(0).normal(size=(6, 5)), np.array([0, 1, 2, 3, 4, 0])
    assert check_gradients(Squared(), x, labels) < 1e-7
    loss, _ = Squared()(x, labels)
    assert loss == pytest.approx(0.5 * np.mean(((x - np.eye(5)[labels]) ** 2).sum(1)), rel=1e-12)
    network = Sequential([Flatten(), Dense(16), ReLU(), Dense(5)])
    network.build((8, 8, 3))
    with Trainer(network, Squared(), Adam(1e-2), dataset(), batch_size=32, workers=1) as trainer:
        records = [trainer.train_epoch(epoch) for epoch in range(1, 13)]
    assert records[-1].accuracy > 0.9


@pytest.mark.parametrize("make", [*HEADS.values(), Squared])
@pytest.mark.parametrize("where", [None, StrictDevice, pytest.param(KernelDevice, marks=NEEDS_COMPILER)])
def test_a_replay_of_every_head_is_its_step(make: Any, where: Any) -> None:
    head = make(64) if "classes" in signature(make).parameters else make()
    head.build((7,), device=where and where())
    check_replay(head)
