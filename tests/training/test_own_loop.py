"""Own data and an own loop: fit, evaluate, callbacks, schedules, heads with parameters, lambdas for workers."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scratchnet import (
    SGD,
    Adam,
    CosineDecay,
    Dataset,
    Dense,
    Dropout,
    ExponentialDecay,
    GumbelSoftmaxCrossEntropy,
    Head,
    Layer,
    PiecewiseConstantDecay,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    Split,
    Trainer,
    check_gradients,
)
from tests.training.problem import dataset, network

WORKERS = pytest.mark.parametrize("workers", [1, 2])


def features(count: int = 80, dtype: str = "float32") -> Dataset:
    """Vectors whose larger half tells the class."""
    source = np.random.default_rng(0)
    x = source.standard_normal((count, 6)).astype(dtype)
    labels = (x[:, :3].sum(1) > x[:, 3:].sum(1)).astype(np.int64)
    part = count // 4
    train, validation = Split(x[part:], labels[part:]), Split(x[:part], labels[:part])
    return Dataset("halves", train, None, ("second", "first"), (), np.empty(0, np.int64), validation=validation)


@WORKERS
def test_fit_gives_a_record_an_epoch_and_goes_on(workers: int) -> None:
    given: list[dict[str, Any]] = []
    net = Sequential([Dense(16), ReLU(), Dense(2)])
    net.build((6,))
    with Trainer(net, SoftmaxCrossEntropy(), Adam(1e-2), features(), batch_size=16, workers=workers) as trainer:
        records = trainer.fit(2, on_epoch=given.append) + trainer.fit(18, on_epoch=given.append)
        assert trainer.done == 20 * trainer.steps
        last = trainer.evaluate("validation")
    assert records == given
    assert [record["epoch"] for record in records] == list(range(1, 21))
    assert {*records[0]} == {"epoch", "loss", "accuracy", "seconds", "learning_rate", "val_loss", "val_accuracy"}
    assert records[-1]["val_loss"] == last["loss"] < 0.5 * records[0]["val_loss"]
    assert last["accuracy"] > 0.85
    x = features().validation.images  # type: ignore[union-attr]
    labels = features().validation.labels  # type: ignore[union-attr]
    assert np.mean(net.predict(x).argmax(1) == labels) == last["accuracy"]
    probabilities = net.predict_proba(x)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-6)
    assert -np.log(probabilities[np.arange(len(x)), labels]).mean() == pytest.approx(last["loss"], rel=1e-5)


def test_an_exception_of_a_callback_ends_the_training_and_it_can_go_on() -> None:
    def stop(record: dict[str, Any]) -> None:
        raise KeyError(record["epoch"])

    net = network()
    with Trainer(net, SoftmaxCrossEntropy(), Adam(), dataset(), batch_size=30, workers=1) as trainer:
        with pytest.raises(KeyError, match="1"):
            trainer.fit(3, on_epoch=stop)
        assert [record["epoch"] for record in trainer.fit(1)] == [2]


@WORKERS
def test_floats_are_taken_as_they_are_and_bytes_divided_by_255(workers: int) -> None:
    data, losses = dataset(), []
    as_floats = {
        name: Split(split.images.astype(np.float32) / np.float32(255), split.labels)
        for name, split in (("train", data.train), ("test", data.test))
        if split
    }
    for each in (data, replace(data, **as_floats)):  # type: ignore[arg-type]
        net = network()
        with Trainer(net, SoftmaxCrossEntropy(), Adam(), each, batch_size=30, workers=workers) as trainer:
            losses.append((trainer.fit(1)[0]["loss"], trainer.predict().tolist()))
            assert trainer.dataset.train.images.shape == data.train.images.shape
    assert losses[0] == losses[1]


def test_without_a_test_split() -> None:
    with Trainer(network(), SoftmaxCrossEntropy(), Adam(), replace(dataset(), test=None), batch_size=30) as trainer:
        trainer.fit(1)
        assert trainer.predict("train").shape == (90, 5)
        with pytest.raises(ValueError, match="split is 'test' where 'train' is wanted"):
            trainer.predict()


@WORKERS
def test_lambdas_and_layers_of_a_script_reach_the_workers(workers: int) -> None:
    class Cubed(Layer):
        def compute(self, training: bool) -> None:
            self.ops.power(self.x, 3, out=self.y)

        def compute_gradients(self) -> None:
            self.ops.multiply(self.x, self.x, out=self.dx)
            self.ops.multiply(self.dx, 3, out=self.dx)
            self.ops.multiply(self.dx, self.dy, out=self.dx)

    first = Dense(8, kernel_initializer=lambda shape, source: source.normal(0, 0.5, shape))
    net = Sequential([first, Cubed(), Dense(2)])
    net.build((6,))
    head = GumbelSoftmaxCrossEntropy(temperature=lambda step: 1 / (1 + step))
    with Trainer(net, head, Adam(), features(), batch_size=16, workers=workers) as trainer:
        assert np.isfinite(trainer.fit(1)[0]["loss"])


def test_the_optimizer_of_the_caller_is_left_alone() -> None:
    optimizer = Adam(0.01)
    before = set(vars(optimizer))
    for _ in range(2):
        with Trainer(network(), SoftmaxCrossEntropy(), optimizer, dataset(), batch_size=30, workers=1) as trainer:
            trainer.fit(1)
    assert set(vars(optimizer)) == before


def test_restore_tells_how_far_it_is() -> None:
    arguments = SoftmaxCrossEntropy(), Adam(), dataset()
    with Trainer(network(), *arguments, batch_size=30, workers=1) as trainer:
        trainer.train_epoch(1)
        given: list[Any] = []
        trainer.train_epoch(2, lambda *_: given.append((trainer.state(), replace(trainer.progress), trainer.done)))
    with Trainer(network(), *arguments, batch_size=30, workers=1) as other:
        state, progress, done = given[1]
        other.restore(state, progress)
        assert other.done == done == 5
        assert other.fit(1)[0]["epoch"] == 2


# --- schedules


def test_schedules_are_those_of_keras() -> None:
    """Values of keras.optimizers.schedules, worked out by its documented formulas."""
    decay = ExponentialDecay(0.1, 10, 0.5)
    assert [decay(step) for step in (0, 10, 15)] == pytest.approx([0.1, 0.05, 0.1 * 0.5**1.5])
    assert ExponentialDecay(0.1, 10, 0.5, staircase=True)(19) == pytest.approx(0.05)
    cosine = CosineDecay(0.2, 100, alpha=0.1)
    assert [cosine(step) for step in (0, 50, 100, 500)] == pytest.approx([0.2, 0.2 * (0.5 * 0.9 + 0.1), 0.02, 0.02])
    warm = CosineDecay(0.0, 100, warmup_target=1.0, warmup_steps=10)
    assert [warm(step) for step in (0, 5, 10, 60, 110)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    steps = PiecewiseConstantDecay([10, 20], [3.0, 2.0, 1.0])
    assert [steps(step) for step in (0, 10, 11, 20, 21)] == [3, 3, 2, 2, 1]


def test_schedules_are_those_of_an_installed_keras() -> None:
    schedules = pytest.importorskip("keras.optimizers.schedules", reason="keras is not installed")
    for ours, theirs in (
        (ExponentialDecay(0.1, 7, 0.3), schedules.ExponentialDecay(0.1, 7, 0.3)),
        (CosineDecay(0.2, 30, alpha=0.05), schedules.CosineDecay(0.2, 30, alpha=0.05)),
        (
            CosineDecay(0.01, 30, warmup_target=0.3, warmup_steps=9),
            schedules.CosineDecay(0.01, 30, warmup_target=0.3, warmup_steps=9),
        ),
        (PiecewiseConstantDecay([5, 9], [3.0, 2.0, 1.0]), schedules.PiecewiseConstantDecay([5, 9], [3.0, 2.0, 1.0])),
    ):
        assert [ours(step) for step in range(50)] == pytest.approx([float(theirs(step)) for step in range(50)], abs=1e-7)


@WORKERS
@pytest.mark.parametrize("kind", [Adam, SGD])
def test_each_step_has_its_own_learning_rate(kind: Any, workers: int) -> None:
    """A rate of 0 from the fourth step on leaves the parameters where three steps brought them."""
    rate = PiecewiseConstantDecay([2], [0.01, 0.0])
    found = []
    for learning_rate, steps in ((rate, 2), (0.01, 1)):
        net = network()
        with Trainer(net, SoftmaxCrossEntropy(), kind(learning_rate), dataset(), batch_size=30, workers=workers) as t:
            records = t.fit(steps)
            found.append((net.weights(), records[-1]["learning_rate"]))
    (weights, last), (three, _) = found
    assert last == 0
    assert all(np.array_equal(weights[name], three[name]) for name in three)


def test_wrong_schedules_are_refused() -> None:
    for wrong in (lambda: CosineDecay(0.0, 10), lambda: CosineDecay(0.1, 0), lambda: ExponentialDecay(0.1, 10, -1)):
        with pytest.raises(ValueError, match="decay: .* is wanted"):
            wrong()
    for boundaries, values in (([3, 2], [1.0, 2.0, 3.0]), ([3], [1.0])):
        with pytest.raises(ValueError, match="piecewise constant decay: "):
            PiecewiseConstantDecay(boundaries, values)
    optimizer = Adam(lambda step: -1.0 if step else 0.1)
    optimizer.build(np.zeros(3))
    optimizer.update(np.ones(3))
    with pytest.raises(ValueError, match=r"Adam: the learning rate at step 1 is -1\.0 where a finite number >= 0"):
        optimizer.update(np.ones(3))


# --- a head with parameters


class Linear(Head):
    """Cross-entropy of x kernel, with the kernel in the head: a network ends in features."""

    name = "linear"

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.number = classes

    @property
    def classes(self) -> int:
        return self.number

    def outputs_for(self, classes: int) -> int | None:
        return None

    def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self.parameter("kernel", (*input_shape, self.number), "glorot_uniform")
        return super().infer(input_shape)

    def allocate(self) -> None:
        super().allocate()
        inner = SoftmaxCrossEntropy()
        inner.build((self.number,), self.dtype, self.device)
        self.inner = inner.bound(self.batch, self.memory, (), input_gradient=True)
        self.inner.labels, self.inner.loss, self.inner.correct = self.labels, self.loss, self.correct

    def compute(self, training: bool) -> None:
        self.ops.matmul(self.x, self.kernel, out=self.inner.x)
        self.inner.compute(training)
        self.ops.matmul(self.inner.dx, self.kernel.T, out=self.dx)

    def compute_gradients(self) -> None:
        self.ops.matmul(self.x.T, self.inner.dx, out=self.dkernel)

    def scores(self) -> Any:
        self.ops.matmul(self.x, self.kernel, out=self.inner.x)
        return self.inner.x

    kernel: Any
    dkernel: Any


def test_a_head_with_parameters_is_checked() -> None:
    source = np.random.default_rng(0)
    assert check_gradients(Linear(4), source.normal(size=(6, 5)), source.integers(0, 4, 6)) < 1e-7


@WORKERS
def test_a_head_with_parameters_is_trained_as_a_layer_would_be(workers: int) -> None:
    """The last layer in the head or in the network: the same steps, up to rounding."""
    body = [Dense(7), ReLU(), Dropout(0.1)]
    outside, head = Sequential([*(layer.unbuilt() for layer in body), Dense(2, use_bias=False)]), Linear(2)
    inside = Sequential(body)
    inside.build((6,), dtype="float64", seed=3)
    outside.build((6,), dtype="float64", seed=3)
    head.build((7,), "float64")
    start = head.kernel.copy()
    outside.layers[-1].kernel[...] = start  # type: ignore[attr-defined]
    found = []
    for net, end in ((inside, head), (outside, SoftmaxCrossEntropy())):
        with Trainer(net, end, Adam(1e-2), features(dtype="float64"), batch_size=16, workers=workers) as trainer:
            records = trainer.fit(4)
            found.append([(record["loss"], record["val_loss"], record["accuracy"]) for record in records])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-9)
    assert not np.array_equal(head.kernel, start)
    np.testing.assert_allclose(head.kernel, outside.layers[-1].kernel, rtol=1e-7)  # type: ignore[union-attr]
