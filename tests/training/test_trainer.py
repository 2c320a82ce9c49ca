"""The trainer in one process: what it computes, what it allocates, what it refuses."""

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scratchnet import Adam, BatchNormalization, Dropout, GumbelSoftmaxCrossEntropy, Sequential, SoftmaxCrossEntropy
from scratchnet.backend import Program
from scratchnet.backend.noise import SHUFFLE, generator
from scratchnet.data import Split
from scratchnet.kernels.batch import Batch
from scratchnet.optimizers import SWEEP
from scratchnet.training import Trainer
from tests.training.problem import dataset, network


def by_hand(net: Sequential, head: Any, epochs: int, batch: int = 32, seed: int = 0) -> list[float]:
    """The same training with the public calls: forward, head, backward, update."""
    data, optimizer, losses, step = dataset().train, Adam(), [], 0
    optimizer.build(net.parameters)
    for epoch in range(1, epochs + 1):
        order, total = generator(seed, SHUFFLE, epoch).permutation(len(data)), 0.0
        for start in range(0, len(data), batch):
            rows = order[start : start + batch]
            net.clock.step = step
            logits = net.forward((data.images[rows] / 255).astype(net.dtype), training=True)
            loss, dlogits = head(logits, data.labels[rows], step=step)
            net.backward(dlogits)
            optimizer.update(net.gradients)
            total, step = total + loss * len(rows), step + 1
        losses.append(total / len(data))
    return losses


@pytest.mark.parametrize("group", [64, 10])
@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("head", [SoftmaxCrossEntropy(), GumbelSoftmaxCrossEntropy(0.5, seed=3)])
def test_a_replayed_epoch_is_the_plain_loop(
    head: Any, normalized: bool, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three batches an epoch, the last one smaller; dropout, batch normalisation and the head's noise included.

    Of the 32 and 26 images of a batch four and three groups are made, unless there is batch normalisation.
    """
    monkeypatch.setattr(Batch, "group", group)
    extra = lambda: (*[BatchNormalization()] * normalized, Dropout(0.2, seed=5))  # noqa: E731
    net, twin = network(*extra(), dtype="float64"), network(*extra(), dtype="float64")
    with Trainer(net, head, Adam(), dataset(), batch_size=32, workers=1) as trainer:
        losses = [trainer.train_epoch(epoch).loss for epoch in (1, 2, 3)]
        assert set(trainer.engine.replica.bound) == ({26, 32} if normalized or group == 64 else {8, 9})  # type: ignore
    assert losses == pytest.approx(by_hand(twin, head, 3), rel=1e-9)
    for name, array in twin.weights().items():
        np.testing.assert_allclose(net.weights()[name], array, rtol=1e-6, atol=1e-9)


def test_it_learns() -> None:
    with Trainer(network(), SoftmaxCrossEntropy(), Adam(1e-2), dataset(), batch_size=16, workers=1) as trainer:
        results = [trainer.train_epoch(epoch) for epoch in range(1, 11)]
        accuracy = np.mean(trainer.predict("test").argmax(1) == dataset().test.labels)
    assert results[-1].loss < 0.5 * results[0].loss
    assert results[-1].accuracy > 0.8
    assert accuracy > 0.6
    assert all(result.seconds > 0 for result in results)


def test_units_that_die_leave_no_denormals_behind() -> None:
    """A learning rate so large that most units die at once; then 1,500 steps in which their moments decay."""
    with Trainer(network(), SoftmaxCrossEntropy(), Adam(0.5), dataset(), batch_size=32, workers=1) as trainer:
        for epoch in range(1, 501):
            trainer.train_epoch(epoch)
        state = trainer.state()
    dead = state["m"] == 0
    assert dead[: trainer.network.count_parameters()].mean() > 0.5
    for name, vector in state.items():
        assert not ((vector != 0) & (np.abs(vector) < np.finfo(vector.dtype).tiny)).any(), name


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    found = []
    for seed in (0, 0, 1):
        net = network()
        with Trainer(net, SoftmaxCrossEntropy(), Adam(), dataset(), batch_size=32, seed=seed, workers=1) as trainer:
            trainer.train_epoch(1)
        found.append(net.parameters.tobytes())
    assert found[0] == found[1] != found[2]


def test_predict_is_forward() -> None:
    net, data = network(), dataset()
    with Trainer(net, SoftmaxCrossEntropy(), Adam(), data, batch_size=32, workers=1) as trainer:
        trainer.train_epoch(1)
        for name, split in (("train", data.train), ("test", data.test)):
            logits = trainer.predict(name)
            expected = net.forward((split.images / 255).astype("float32"))
            np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_on_step_reports_the_running_means() -> None:
    seen: list[tuple[int, int, float, float]] = []
    with Trainer(network(), SoftmaxCrossEntropy(), Adam(), dataset(), batch_size=40, workers=1) as trainer:
        result = trainer.train_epoch(1, on_step=lambda *given: seen.append(given))
    assert [step[:2] for step in seen] == [(1, 3), (2, 3), (3, 3)]
    assert seen[-1][2:] == (pytest.approx(result.loss), pytest.approx(result.accuracy))


def test_after_the_first_step_no_array_of_activation_size_is_allocated() -> None:
    net = network(BatchNormalization(), Dropout(0.2), size=16)
    limit = 16 << 10  # bytes; NumPy's own conversion buffers take 8 KiB, the smallest image activation here 256 KiB
    with Trainer(net, GumbelSoftmaxCrossEntropy(), Adam(), dataset(256, size=16), batch_size=64, workers=1) as trainer:
        trainer.train_epoch(1)
        tracemalloc.start()
        try:
            for step in range(5):
                trainer.engine.train(64 * (step % 3), 64, 100 + step)
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            trainer.engine.train(0, 64, SWEEP - 1)  # the optimizer sweeps in its 32nd step
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak - before < limit, f"a step allocated {peak - before} bytes"


def test_a_step_is_recorded_once_for_each_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[Program] = []
    enter = Program.__enter__
    monkeypatch.setattr(Program, "__enter__", lambda self: recorded.append(self) or enter(self))
    with Trainer(network(), SoftmaxCrossEntropy(), Adam(), dataset(), batch_size=32, workers=1) as trainer:
        for epoch in (1, 2):
            trainer.train_epoch(epoch)
            trainer.predict()
    assert len(recorded) == 3  # training with 32 and 26 images, prediction with 37


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("batch", "train", "test", "classes", "head"),
    [
        (1, 7, 5, 5, GumbelSoftmaxCrossEntropy(1e-3, seed=2**63 - 1)),  # batches of one
        (1000, 9, 5, 5, GumbelSoftmaxCrossEntropy(1e3)),  # more than there are
        (4, 1, 1, 5, SoftmaxCrossEntropy()),  # one image
        (4, 10, 3, 1, SoftmaxCrossEntropy()),  # one class
        (4, 10, 3, 1, GumbelSoftmaxCrossEntropy(1e-3)),
    ],
)
def test_the_smallest_and_the_largest(batch: int, train: int, test: int, classes: int, head: Any, dtype: str) -> None:
    net = network(BatchNormalization(), Dropout(0.5, seed=2**63 - 1), classes=classes, dtype=dtype)
    data = dataset(train, test, classes=classes)
    with Trainer(net, head, Adam(), data, batch_size=batch, seed=2**63 - 1, workers=1) as trainer:
        before, result = net.parameters.copy(), trainer.train_epoch(1)
        assert trainer.steps == -(-train // min(batch, train))
        assert np.isfinite(result.loss)
        assert (result.loss, result.accuracy) == (0, 1) or classes > 1
        assert np.array_equal(net.parameters, before) == (classes == 1)  # then there is nothing to learn
        assert trainer.predict("test").shape == (test, classes)


def test_more_workers_than_images() -> None:
    """Never more workers than images in a batch, of whom the test images may still leave some without any."""
    for count, batch, expected in ((2, 64, 2), (90, 1, 1), (3, 2, 1)):
        data = dataset(count, 1)
        with Trainer(network(), SoftmaxCrossEntropy(), Adam(), data, batch_size=batch, workers=64) as trainer:
            assert trainer.workers == expected
            assert np.isfinite(trainer.train_epoch(1).loss)
            assert np.isfinite(trainer.predict("test")).all()


def test_a_learning_rate_too_small_to_move_anything() -> None:
    net = network()
    with Trainer(net, SoftmaxCrossEntropy(), Adam(1e-30), dataset(), batch_size=32, workers=1) as trainer:
        before = net.weights()
        trainer.train_epoch(1)
        assert all(np.abs(net.weights()[name] - array).max() < 1e-28 for name, array in before.items())


def test_the_network_keeps_its_parameters_after_the_trainer_is_closed() -> None:
    net = network()
    with Trainer(net, SoftmaxCrossEntropy(), Adam(), dataset(), batch_size=32, workers=1) as trainer:
        before = net.weights()
        trainer.train_epoch(1)
        trained = net.weights()
    assert any((before[name] != trained[name]).any() for name in before)
    assert all((net.weights()[name] == trained[name]).all() for name in trained)


def test_what_does_not_fit_together_is_refused() -> None:
    data, head = dataset(), SoftmaxCrossEntropy()
    for train, test in ((0, 3), (3, 0)):
        with pytest.raises(ValueError, match=f"corners has {train} training and {test} test images"):
            Trainer(network(), head, Adam(), dataset(train, test), batch_size=8, workers=1)
    with pytest.raises(ValueError, match="batch_size is 0"):
        Trainer(network(), head, Adam(), data, batch_size=0)
    with pytest.raises(ValueError, match="workers is -1"):
        Trainer(network(), head, Adam(), data, batch_size=8, workers=-1)
    with pytest.raises(ValueError, match="built network"):
        Trainer(network().unbuilt(), head, Adam(), data, batch_size=8, workers=1)
    with pytest.raises(ValueError, match="has 3 outputs"):
        Trainer(network(classes=3), head, Adam(), data, batch_size=8, workers=1)
    with pytest.raises(ValueError, match=r"takes \(9, 9, 3\)"):
        Trainer(network(size=9), head, Adam(), data, batch_size=8, workers=1)
    for shape in ((7, 8, 8, 1), (7, 1, 1, 3)):  # which would broadcast
        bad = replace(data, test=Split(np.zeros(shape, np.uint8), np.zeros(7, np.int64)))
        with pytest.raises(ValueError, match=rf"has images of \({shape[1]}, {shape[2]}, {shape[3]}\)"):
            Trainer(network(), head, Adam(), bad, batch_size=8, workers=1)
    for wrong in ((None, head, Adam(), data), (network(), Adam(), head, data), (network(), head, None, data)):
        with pytest.raises(TypeError, match=r"trainer: a .* is given where a .* is wanted"):
            Trainer(*wrong, batch_size=8, workers=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a NoneType is given where a Dataset is wanted"):
        Trainer(network(), head, Adam(), None, batch_size=8, workers=1)  # type: ignore[arg-type]
    bad = replace(data, train=Split(data.train.images, data.train.labels + 1))
    with pytest.raises(ValueError, match="labels of corners go from 1 to 5"):
        Trainer(network(), head, Adam(), bad, batch_size=8, workers=1)


@pytest.mark.parametrize("workers", [1, 2])
def test_wrong_calls_of_an_open_and_of_a_closed_trainer(workers: int) -> None:
    trainer = Trainer(network(), SoftmaxCrossEntropy(), Adam(), dataset(), batch_size=32, workers=workers)
    for epoch in (0, -1, 1.5):
        with pytest.raises(ValueError, match=f"trainer: epoch is {epoch} where a positive integer"):
            trainer.train_epoch(epoch)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="trainer: split is 'validation' where 'train' or 'test'"):
        trainer.predict("validation")
    trainer.close()
    trainer.close()
    before = trainer.network.weights()
    for call in (lambda: trainer.train_epoch(1), trainer.predict):
        with pytest.raises(RuntimeError, match="trainer: it is closed; make a new one"):
            call()
    assert all((before[name] == array).all() for name, array in trainer.network.weights().items())


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((3, 8, 8, 3), int), np.zeros(3, int), r"images are int64 \(3, 8, 8, 3\) where uint8"),
        (np.zeros(3, np.uint8), np.zeros(3, int), r"images are uint8 \(3,\)"),
        ([[0]], np.zeros(1, int), "images are a list"),
        (np.zeros((3, 8, 8, 3), np.uint8), np.eye(3, dtype=int), r"labels are int64 \(3, 3\) where integers \(3,\)"),
        (np.zeros((3, 8, 8, 3), np.uint8), np.zeros(3), r"labels are float64 \(3,\)"),
        (np.zeros((3, 8, 8, 3), np.uint8), np.zeros(4, int), r"labels are int64 \(4,\) .* one an image"),
        (np.zeros((3, 8, 8, 3), np.uint8), [0, 1, 2], "labels are a list"),
    ],
)
def test_a_split_is_images_and_a_label_each(images: Any, labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Split(images, labels)
