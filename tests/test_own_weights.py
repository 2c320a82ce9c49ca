"""Heads that compute some of the classes: against loops in float64, PyTorch, and what probability theory says."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp

from scratchnet import SGD, Adam, Dense, Flatten, ReLU, Sequential, Trainer, check_gradients
from scratchnet.backend import BatchSlice, Memory, get_device, noise, whole
from scratchnet.errors import ScratchnetError
from scratchnet.experiments import configure, run, run_experiment
from scratchnet.heads import Head, SampledSoftmax, TwoLevelSoftmax
from scratchnet.kernels.batch import Batch
from scratchnet.kernels.rows import Blocks
from tests.experiments.test_resume import some_digits
from tests.kernels.gpu.host_cuda import NEEDS_COMPILER, KernelDevice
from tests.reference import reference
from tests.reference.checks import TOLERANCE, assert_close
from tests.reference.strategies import generators
from tests.training.problem import dataset

DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])
UNBALANCED = [3, 0, 3, 3, 7, 0, 3]  # 7 classes in clusters of 2, 4 and 1, with gaps in the numbers
MAKE: dict[str, Any] = {
    "two-level": partial(TwoLevelSoftmax, 7),
    "unbalanced": partial(TwoLevelSoftmax, 7, UNBALANCED),
    "sampled": partial(SampledSoftmax, 7, 5, seed=1),
    "log-uniform": partial(SampledSoftmax, 7, 6, "log_uniform", seed=1),
}
HEADS = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
STEP = 9


def built(head: Head, features: int, rng: np.random.Generator, dtype: str = "float64") -> Any:
    """With random weights, so that no bias is 0."""
    head.build((features,), dtype)
    for array in head.parameters.values():
        array[...] = rng.normal(size=array.shape)
    return head


def probabilities(head: SampledSoftmax) -> np.ndarray:
    """Q, as its definition has it."""
    k = np.arange(head.classes)
    return np.log((k + 2) / (k + 1)) / np.log(len(k) + 1) if head.distribution == "log_uniform" else 0 * k + 1 / len(k)


def sample_of(head: SampledSoftmax, step: int = STEP) -> list[int]:
    """The classes drawn, by inverting their distribution function in a loop."""
    q = probabilities(head)
    drawn = noise.uniform(head.seed, noise.HEAD, step, 0, 1, head.samples)[0].astype(np.float64)
    return [next((c for c in range(head.classes - 1) if u < q[: c + 1].sum()), head.classes - 1) for u in drawn]


def dots(x: np.ndarray, weights: np.ndarray) -> list[float]:
    """x w + bias for each row w of the weights, whose last number is the bias."""
    return [sum(a * b for a, b in zip(x, w[:-1], strict=True)) + w[-1] for w in weights.astype(np.float64)]


Loops = tuple[float, dict[str, np.ndarray]]


def empty(head: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    return {"x": np.zeros(x.shape), **{name: np.zeros(array.shape) for name, array in head.parameters.items()}}


def put(dx: np.ndarray, dw: np.ndarray, x: np.ndarray, w: np.ndarray, dz: float) -> None:
    """The gradients of z = x w + bias, added to views."""
    dx += dz * w[:-1]
    dw += dz * np.append(x, 1)


def two_level_loops(head: Any, x: np.ndarray, labels: np.ndarray) -> Loops:
    x, loss, found = x.astype(np.float64), 0.0, empty(head, x)
    clusters = sorted(set(head.superclasses))
    for n, label in enumerate(labels):
        c = clusters.index(head.superclasses[label])
        members = [k for k in range(head.classes) if head.superclasses[k] == head.superclasses[label]]
        upper = head.cluster_kernel, found["cluster_kernel"], c, len(clusters)
        lower = head.kernel[c], found["kernel"][c], members.index(label), len(members)
        for weights, gradient, wanted, count in (upper, lower):
            z = np.array([dots(x[n], weights[:count])])
            of_row, dz = reference.softmax_cross_entropy(z, np.array([wanted]))
            loss += of_row / len(x)
            for k in range(count):
                put(found["x"][n], gradient[k], x[n], weights[k].astype(np.float64), dz[0, k] / len(x))
    return loss, found


def sampled_loops(head: Any, x: np.ndarray, labels: np.ndarray) -> Loops:
    x, loss, found, sample = x.astype(np.float64), 0.0, empty(head, x), sample_of(head)
    q = probabilities(head)
    for n, label in enumerate(labels):
        candidates = [label, *(s for s in sample if s != label)]
        z = np.array([dots(x[n], head.kernel[candidates])]) - np.log(head.samples * q[candidates])
        of_row, dz = reference.softmax_cross_entropy(z, np.array([0]))
        loss += of_row / len(x)
        for each, d in zip(candidates, dz[0], strict=True):
            put(found["x"][n], found["kernel"][each], x[n], head.kernel[each].astype(np.float64), d / len(x))
    return loss, found


def check_against(loops: Any, head: Any, x: np.ndarray, labels: np.ndarray) -> None:
    loss, dx = head(x, labels, STEP)
    expected, gradients = loops(head, x, labels)
    tolerance = 10 * TOLERANCE[str(x.dtype)]
    assert_close(loss, expected, tolerance)
    assert_close(dx, gradients.pop("x"), tolerance)
    for name, gradient in gradients.items():
        assert_close(head.gradients[name], gradient, tolerance)
        assert not head.gradients[name][(gradient == 0).all(-1)].any()


# --- values and gradients


@DTYPES
@given(clusters=st.lists(st.integers(0, 4), min_size=1, max_size=9), rows=st.integers(1, 6), rng=generators())
def test_two_level_softmax(dtype: str, clusters: list[int], rows: int, rng: np.random.Generator) -> None:
    head = built(TwoLevelSoftmax(len(clusters), clusters), features := int(rng.integers(1, 5)), rng, dtype)
    for _ in range(2):  # and no gradient of the first is left in the second
        x, labels = rng.normal(size=(rows, features)).astype(dtype), rng.integers(0, len(clusters), rows)
        check_against(two_level_loops, head, x, labels)


@DTYPES
@given(
    classes=st.integers(1, 9), rows=st.integers(1, 6), seed=st.integers(0, 2**63 - 1),
    distribution=st.sampled_from(["uniform", "log_uniform"]), rng=generators(),
)  # fmt: skip
def test_sampled_softmax(
    dtype: str, classes: int, rows: int, seed: int, distribution: str, rng: np.random.Generator
) -> None:
    head = SampledSoftmax(classes, int(rng.integers(1, classes + 1)), distribution, seed)
    built(head, features := int(rng.integers(1, 5)), rng, dtype)
    for _ in range(2):
        x, labels = rng.normal(size=(rows, features)).astype(dtype), rng.integers(0, classes, rows)
        check_against(sampled_loops, head, x, labels)


@HEADS
def test_gradients_are_the_slopes(make: Any) -> None:
    """With labels that repeat, classes drawn twice, and drawn classes that are labels."""
    rng, head, labels = np.random.default_rng(0), make(), np.array([0, 4, 2, 2, 1, 3, 5, 6, 6])
    if isinstance(head, SampledSoftmax):
        sample = sample_of(head, 0)
        assert len(set(sample)) < len(sample)
        assert set(sample) & set(labels.tolist())
    assert check_gradients(head, rng.normal(size=(9, 4)), labels) < 1e-7


@HEADS
def test_the_same_as_pytorch(make: Any) -> None:
    torch = pytest.importorskip("torch", reason="these tests compare with PyTorch: pip install 'scratchnet[test]'")
    rng = np.random.default_rng(1)
    head, x, labels = built(make(), 5, rng), rng.normal(size=(8, 5)), np.array([0, 4, 2, 2, 1, 3, 5, 6])
    point, ones = torch.tensor(x, requires_grad=True), torch.ones(8, 1, dtype=torch.float64)
    given = {name: torch.tensor(array, requires_grad=True) for name, array in head.parameters.items()}
    inputs, target = torch.hstack([point, ones]), torch.tensor(labels)
    if isinstance(head, SampledSoftmax):
        sample = torch.tensor(sample_of(head))
        z = (inputs @ given["kernel"].T) - torch.tensor(head.log_counts())
        others = z[:, sample].masked_fill(sample == target[:, None], -torch.inf)
        joined = torch.hstack([z.gather(1, target[:, None]), others])
        expected = torch.nn.functional.cross_entropy(joined, torch.zeros(8, dtype=torch.int64))
    else:
        z = torch.einsum("nd,csd->ncs", inputs, given["kernel"])
        z = z.masked_fill(torch.tensor(head.class_at < 0), -torch.inf).log_softmax(2)
        log_p = (z + (inputs @ given["cluster_kernel"].T).log_softmax(1)[..., None])[:, head.cluster, head.place]
        expected = -log_p.gather(1, target[:, None]).mean()
        assert_close(head.predict(x), log_p.detach())
    expected.backward()
    loss, dx = head(x, labels, STEP)
    assert_close(loss, expected.detach())
    assert_close(dx, point.grad)
    for name, parameter in given.items():
        assert_close(head.gradients[name], parameter.grad)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_sample_of_nothing_but_the_label_teaches_nothing(dtype: str) -> None:
    head = built(SampledSoftmax(3, 1), 2, np.random.default_rng(0), dtype)
    loss, dx = head(np.ones((2, 2), dtype), np.array(2 * sample_of(head)), STEP)
    assert loss == 0
    assert not dx.any()
    assert not head.dkernel.any()


@HEADS
def test_far_logits_are_finite(make: Any) -> None:
    rng = np.random.default_rng(2)
    head = built(make(), 3, rng, "float32")
    x = np.float32(1e4) * rng.normal(size=(6, 3)).astype(np.float32)
    loss, dx = head(x, np.arange(6), STEP)
    assert np.isfinite(loss)
    assert all(np.isfinite(array).all() for array in (dx, *head.gradients.values(), head.predict(x)))


@HEADS
def test_parts_of_a_batch_add_up_to_the_whole(make: Any) -> None:
    """As groups and workers do it, and all with one sample."""
    rng = np.random.default_rng(3)
    head, x, labels, found = built(make(), 4, rng), rng.normal(size=(9, 4)), rng.integers(0, 7, 9), []
    for start, size in ((0, 9), (0, 4), (4, 5)):
        bound = head.bound(BatchSlice(start, size, 9), Memory(head.device, "float64"), (), input_gradient=True)
        bound.x[...], bound.labels[...] = x[start : start + size], labels[start : start + size]
        bound.compute(training=True)
        bound.compute_gradients()
        gradients = [gradient.copy() for gradient in head.gradients.values()]
        found.append(([float(bound.loss), int(bound.correct), *gradients], bound.dx))
    (all_of_it, dx), *parts = found
    for together, *each in zip(all_of_it, *(sums for sums, _ in parts), strict=True):
        assert_close(sum(each), together)
    assert_close(np.concatenate([part for _, part in parts]), dx)


# --- what probability theory says


def test_exact_probabilities_sum_to_1_and_are_what_the_loss_says() -> None:
    rng = np.random.default_rng(4)
    for head in TwoLevelSoftmax(7), TwoLevelSoftmax(7, UNBALANCED), TwoLevelSoftmax(1), TwoLevelSoftmax(10):
        built(head, 5, rng)
        x, labels = rng.normal(size=(6, 5)), rng.integers(0, head.classes, 6)
        log_p = head.predict(x)
        assert log_p.shape == (6, head.classes)
        assert_close(np.exp(log_p).sum(1), np.ones(6))
        assert_close(head(x, labels)[0], -log_p[np.arange(6), labels].mean())


def test_the_greedy_prediction_is_the_best_class_of_the_best_cluster() -> None:
    rng, head, differ = np.random.default_rng(5), TwoLevelSoftmax(7, UNBALANCED), 0
    built(head, 4, rng)
    scores = head.predict(x := rng.normal(size=(200, 4)))
    labels = rng.integers(0, 7, 200)
    for row, found in zip(scores, greedy := head.greedy(scores), strict=True):
        of = {c: [k for k in range(7) if UNBALANCED[k] == c] for c in UNBALANCED}
        best = max(of, key=lambda c: sum(np.exp(row[k]) for k in of[c]))
        assert found == max(of[best], key=lambda k: row[k])
        differ += found != row.argmax()
    assert 0 < differ < 100
    assert head.own_figures(scores, labels) == {"accuracy_greedy": (greedy == labels).mean()}
    bound = head.bound(whole(200), Memory(head.device, "float64"), (), input_gradient=True)
    bound.x[...], bound.labels[...] = x, labels
    bound.compute(training=True)
    assert bound.correct == (greedy == labels).sum()


@pytest.mark.parametrize("distribution", ["uniform", "log_uniform"])
def test_samples_have_their_distribution_and_correct_for_it(distribution: str) -> None:
    """By chi square (19 degrees of freedom, probability 0.001); and sum of exp(z - log m Q) has the mean sum exp z."""
    head = SampledSoftmax(20, 8, distribution, seed=1)
    head.build((1,), "float32")
    bound = head.bound(whole(1), Memory(head.device, "float32"), (), input_gradient=True)
    drawn = []
    for head.clock.step in range(4000):
        bound.draw()
        drawn.append(bound.index[1:].copy())
    expected = len(drawn) * np.exp(head.log_counts())
    assert expected.sum() == pytest.approx(4000 * 8)
    assert np.sum((np.bincount(np.ravel(drawn), minlength=20) - expected) ** 2 / expected) < 43.8
    z = np.random.default_rng(6).normal(size=20)
    partition = np.exp((z - head.log_counts())[np.array(drawn)]).sum(1)
    error = partition.std() / np.sqrt(len(drawn))
    assert abs(partition.mean() - np.exp(logsumexp(z))) < 4 * error < 0.05 * np.exp(logsumexp(z))


def test_a_step_has_its_own_sample_whatever_the_rows() -> None:
    head = SampledSoftmax(1000, 50, seed=2)
    head.build((1,))
    found = {}
    for step, start in ((3, 0), (3, 40), (4, 0)):
        bound = head.bound(BatchSlice(start, 5, 90), Memory(head.device, "float32"), (), input_gradient=True)
        head.clock.step, head.clock.row = step, start
        bound.draw()
        found[step, start] = bound.index[5:].tolist()
    assert found[3, 0] == found[3, 40] == sample_of(head, 3)
    assert found[4, 0] == sample_of(head, 4) != found[3, 0]


def test_the_scores_of_a_sampled_softmax_are_all_logits() -> None:
    rng = np.random.default_rng(7)
    head, x = built(SampledSoftmax(7, 2), 4, rng), rng.normal(size=(300, 4))
    assert_close(head.predict(x), x @ head.kernel[:, :-1].T + head.kernel[:, -1])


def test_weights_begin_as_those_of_a_dense_layer() -> None:
    """Glorot-uniform over all classes, whatever their clusters, and biases of 0."""
    for head, width in (SampledSoftmax(900, 9), 900), (TwoLevelSoftmax(900), 900), (TwoLevelSoftmax(6, [0] * 6), 6):
        head.build((300,), seed=1)
        assert not head.kernel[..., -1].any()
        limit = np.sqrt(6 / (300 + width))
        assert 0.98 * limit < np.abs(head.kernel).max() <= limit
        assert head.kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.05)


# --- in a training


def network(dtype: str = "float32", device: Any = None) -> Sequential:
    made = Sequential([Flatten(), Dense(12), ReLU()])
    made.build((8, 8, 3), dtype, device)
    return made


def trained(make: Any, optimizer: Any, epochs: int = 2, meddle: bool = False, **options: Any) -> list[np.ndarray]:
    net, head = network(options.pop("dtype", "float32"), options.pop("device", None)), make()
    x, labels = np.full((3, 12), 100, net.dtype), np.array([0, 2, 4])
    with Trainer(net, head, optimizer, dataset(), **({"workers": 1} | options)) as trainer:
        for epoch in range(1, epochs + 1):
            trainer.train_epoch(epoch, lambda *_: head(x, labels) if meddle else None)
        predicted = trainer.predict("test")
    return [predicted, *net.weights().values(), *head.weights().values()]


def equal(ours: list[np.ndarray], theirs: list[np.ndarray]) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(ours, theirs, strict=True))


@HEADS
@pytest.mark.parametrize("batch_size", [70, 7, 2])  # with a last batch of 20, of 6, of 2
def test_what_a_step_did_not_touch_has_no_gradient(make: Any, batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bits as with a gradient that is set to 0 as a whole before every step, or group of images."""
    monkeypatch.setattr(Batch, "group", min(batch_size // 3, 64) or 64)  # so few images that a group misses a class
    ours = trained(make, SGD(0.1), batch_size=batch_size)
    monkeypatch.setattr(Blocks, "_clear", lambda self, blocks: self.gradient.fill(0))
    assert equal(ours, trained(make, SGD(0.1), batch_size=batch_size))


@HEADS
def test_classes_without_images_and_samples_stay_where_they_began(make: Any) -> None:
    """Of 7 classes the data set has 5. SGD leaves the others alone unless they are drawn, or share a cluster."""
    head, net = make(), network()
    head.build((12,))
    before = head.kernel.copy().reshape(-1, 13)
    with Trainer(net, head, SGD(0.1), dataset(), batch_size=90, workers=1) as trainer:
        trainer.fit(1)
    moved = (head.kernel.reshape(-1, 13) != before).any(1)
    if isinstance(head, SampledSoftmax):
        touched = {*range(5), *sample_of(head, 0)}
        assert set(np.flatnonzero(moved)) == touched
        assert 5 < len(touched) < 7
    else:
        hit = np.isin(head.cluster, head.cluster[:5]) & (np.bincount(head.cluster)[head.cluster] > 1)  # else p is 1
        at = head.cluster * head.size + head.place
        assert moved[at].tolist() == hit.tolist()
        assert not np.delete(moved, at).any()  # and what only fills up


@pytest.mark.parametrize("name", ["unbalanced", "log-uniform"])
def test_workers_agree_and_repeat_themselves(name: str) -> None:
    """Also if the head is called in between."""
    cases, options = ((1, False), (2, False), (2, True)), {"batch_size": 3, "dtype": "float64"}
    one, two, again = (trained(MAKE[name], Adam(), 1, meddle, workers=n, **options) for n, meddle in cases)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-6, atol=1e-9)
    assert equal(two, again)


@HEADS
def test_a_head_that_is_called_while_it_is_trained_is_trained_the_same(make: Any) -> None:
    assert equal(*(trained(make, Adam(), 1, meddle, batch_size=3) for meddle in (False, True)))


def test_an_unbuilt_head_holds_no_gradient() -> None:
    head = SampledSoftmax(7, 5)
    head.build((3,))
    assert not any(isinstance(value, Blocks | np.ndarray) for value in vars(head.unbuilt()).values())


@HEADS
@pytest.mark.parametrize(
    "device",
    [
        pytest.param(KernelDevice, marks=NEEDS_COMPILER, id="host"),
        pytest.param(partial(get_device, "gpu", "fp32"), marks=pytest.mark.gpu, id="gpu"),
    ],
)
def test_every_device_trains_the_same(make: Any, device: Any) -> None:
    """With batches of 40, 40 and 10 images; on a GPU captured, with the same classes in the sample."""
    options = {"batch_size": 40, "dtype": "float64"}
    ours, theirs = trained(make, Adam(), **options), trained(make, Adam(), device=device(), **options)
    for a, b in zip(theirs, ours, strict=True):
        assert_close(a, b, 1e-8)


# --- files


@HEADS
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_head_is_saved_and_loaded(make: Any, dtype: str, tmp_path: Path) -> None:
    head = built(make(), 4, rng := np.random.default_rng(8), dtype)
    head.save(tmp_path / "head.safetensors")
    again = type(head).load(tmp_path / "head.safetensors")
    x = rng.normal(size=(5, 4)).astype(dtype)
    assert again.arguments() == head.arguments()
    assert again.predict(x).tobytes() == head.predict(x).tobytes()
    with pytest.raises(ScratchnetError, match=r"head.safetensors is no network that can be loaded .* not known"):
        Sequential.load(tmp_path / "head.safetensors")


RUN: dict[str, Any] = {"data": "digits", "device": "cpu", "workers": 1, "batch_size": 150}


@pytest.mark.parametrize("name", ["two-level", "sampled"])
def test_a_run_can_be_predicted_with_and_goes_on_with_the_same_bits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "load_dataset", some_digits)
    for module in "matplotlib", "matplotlib.figure":  # figures take most of the time
        monkeypatch.setitem(sys.modules, module, None)
    own = {"samples": 4} if name == "sampled" else {}
    results = {}
    for folder, epochs in (("whole", [2]), ("in parts", [1, 2])):
        for number, last in enumerate(epochs):
            options = RUN | own | {"epochs": last, "resume": number > 0, "output": tmp_path / folder}
            results[folder] = run_experiment(configure("valid-padding", name, **options))
    ours, theirs = results.values()
    for file in "weights.safetensors", "head.safetensors", "predictions.safetensors":
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "in parts" / file).read_bytes()
    assert ours.final == theirs.final is not None
    assert ("accuracy_greedy" in ours.final) == (name == "two-level")
    assert ours.settings.samples == own.get("samples")
    kind = {"two-level": TwoLevelSoftmax, "sampled": SampledSoftmax}[name]
    head = kind.load(tmp_path / "whole" / "head.safetensors")
    assert getattr(head, "samples", 4) == 4
    features = Sequential.load(tmp_path / "whole" / "weights.safetensors").predict(some_digits().test.images)
    assert_close(head.predict(features), ours.predictions.logits, 1e-5)


# --- errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TwoLevelSoftmax(3, [0, 1]), r"superclasses are \[0 1\] where each of 3 classes has a cluster, from 0"),
        (lambda: TwoLevelSoftmax(3, [0, 1, 1, 0]), r"superclasses are \[0 1 1 0\] where each of 3 classes"),
        (lambda: TwoLevelSoftmax(3, [0, -1, 1]), r"superclasses are \[ 0 -1  1\] where each of 3 classes"),
        (lambda: TwoLevelSoftmax(2, [0.0, 1.0]), r"superclasses are \[0\. 1\.\] where each of 2 classes"),
        (lambda: TwoLevelSoftmax(900, [0] * 901), r"superclasses are \[0 0 0 \.\.\. 0 0 0\] where"),
        (lambda: TwoLevelSoftmax(0), "two-level head: classes is 0 where a positive integer is wanted"),
        (lambda: SampledSoftmax(3, 4), "sampled head: 4 samples are more than 3 classes: draw fewer, or take softmax"),
        (lambda: SampledSoftmax(3, 0), "sampled head: samples is 0 where a positive integer is wanted"),
        (lambda: SampledSoftmax(3, 2, "zipf"), "distribution is 'zipf' where 'uniform' or 'log_uniform' is wanted"),
        (lambda: SampledSoftmax(3, 2, seed=-1), "sampled head: seed is -1"),
        (lambda: configure(head="sampled", samples=0), "samples is 0 where a positive integer is wanted"),
        (lambda: configure(samples=3), "samples has no meaning with head 'softmax': leave it out, or choose head 'sa"),
    ],
)
def test_what_cannot_be_is_one_sentence(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_more_samples_than_the_data_has_classes(tmp_path: Path) -> None:
    with pytest.raises(ScratchnetError, match="sampled head: 11 samples are more than 10 classes"):
        run_experiment(configure(head="sampled", samples=11, **RUN, output=tmp_path))


@pytest.mark.parametrize(
    ("x", "labels", "message"),
    [
        (np.zeros((2, 4)), np.array([0, 7]), "labels go from 0 to 7 where 7 classes allow 0 to 6"),
        (np.zeros((2, 4)), np.array([0]), r"labels have the shape \(1,\) where \(2,\) is wanted"),
        (np.zeros((2, 2, 2)), np.array([0, 1]), "is wanted"),
    ],
)
@HEADS
def test_wrong_arrays(make: Any, x: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()(x, labels)


@pytest.mark.parametrize("shape", [(3, 1), (4,), (0, 4), (3, 5)])
def test_wrong_features_in_a_prediction(shape: tuple[int, ...]) -> None:
    head = TwoLevelSoftmax(7)
    with pytest.raises(RuntimeError, match="predict needs the shapes"):
        head.predict(np.zeros(shape))
    head.build((4,))
    with pytest.raises(ValueError, match=r"two-level: x (has the shape .* where \(N, 4\) is wanted|holds no images)"):
        head.predict(np.zeros(shape))
