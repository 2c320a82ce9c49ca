"""The classifier for scikit-learn: its checks, its tools, and the same bits whichever way rows come."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from scratchnet import (
    SGD,
    Adam,
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePooling2D,
    GumbelSoftmax,
    GumbelSoftmaxCrossEntropy,
    MaxPooling2D,
    NetworkClassifier,
    PiecewiseConstantDecay,
    ReLU,
    TwoLevelSoftmax,
)
from scratchnet.backend import get_device
from scratchnet.errors import TrainingError
from tests.backend.strict_device import StrictDevice

X, Y = load_iris(return_X_y=True)
DIGITS, OF_DIGITS = load_digits(return_X_y=True)
IMAGES = DIGITS.reshape(-1, 8, 8, 1)
VARIED: Any = [Dense(16), BatchNormalization(), ReLU(), Dropout(0.1)]


@parametrize_with_checks([NetworkClassifier()])
def test_is_an_estimator(estimator: Any, check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # without it one of the checks is skipped
    check(estimator)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")  # of what the test above shows as skipped
def test_is_an_estimator_with_objects_as_its_parameters() -> None:
    check_estimator(NetworkClassifier(VARIED, GumbelSoftmaxCrossEntropy(0.5), SGD(0.1, 0.9), epochs=50))


@pytest.fixture
def processes() -> Iterator[None]:
    """joblib keeps its processes for the next time; other tests look whether theirs are gone."""
    yield
    get_reusable_executor().shutdown(wait=True)


@pytest.mark.usefixtures("processes")
def test_the_tools_of_scikit_learn_take_it() -> None:
    pipeline = make_pipeline(StandardScaler(), NetworkClassifier(epochs=30, optimizer=Adam(1e-2)))
    assert cross_val_score(pipeline, X, Y, cv=3).mean() > 0.9
    grid = {"networkclassifier__optimizer": [Adam(1e-5), Adam(1e-2)], "networkclassifier__layers": [[], VARIED]}
    search = GridSearchCV(pipeline, grid, cv=3, n_jobs=2).fit(X, Y)
    assert search.best_params_["networkclassifier__optimizer"].learning_rate == 1e-2
    assert search.score(X, Y) > 0.95
    here, there = (cross_val_predict(pipeline, X, Y, cv=3, method="predict_proba", n_jobs=jobs) for jobs in (1, 2))
    assert np.array_equal(here, there)  # whichever process computed it


@pytest.mark.parametrize("layers", [None, VARIED])
def test_the_same_random_state_gives_the_same_bits_and_another_does_not(layers: Any) -> None:
    fitted = [NetworkClassifier(layers, epochs=3, random_state=seed).fit(X, Y) for seed in (1, 1, 2)]
    ours, same, other = (classifier.predict_proba(X) for classifier in fitted)
    assert np.array_equal(ours, same)
    assert not np.array_equal(ours, other)
    assert np.array_equal(fitted[0].fit(X, Y).predict_proba(X), ours)  # nothing is left of the fit before
    unlike = [NetworkClassifier(layers, epochs=1, random_state=None).fit(X, Y).predict_proba(X) for _ in range(2)]
    assert not np.array_equal(*unlike)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("head", ["softmax", "gumbel", "two-level"])
@pytest.mark.parametrize("input_shape", [None, (8, 8, 1)], ids=["rows", "images"])
def test_a_row_alone_or_among_others_gives_the_same_bits(
    input_shape: Any, head: str, dtype: str, tmp_path: Path
) -> None:
    x, source = DIGITS[:150].astype(dtype), np.random.default_rng(0)
    classifier = NetworkClassifier(head=head, epochs=1, input_shape=input_shape).fit(x, OF_DIGITS[:150])
    whole = classifier.predict_proba(x)
    assert whole.dtype == dtype
    order = source.permutation(len(x))
    assert np.array_equal(classifier.predict_proba(x[order]), whole[order])
    for size in (1, 2, 63, 64, 65, 131):
        start = int(source.integers(len(x) - size + 1))
        assert np.array_equal(classifier.predict_proba(x[start : start + size]), whole[start : start + size])
    joblib.dump(classifier, tmp_path / "classifier")
    assert np.array_equal(joblib.load(tmp_path / "classifier").predict_proba(x), whole)


def test_layers_that_draw_noise_predict_the_same_every_time() -> None:
    classifier = NetworkClassifier([Dense(8), GumbelSoftmax()], epochs=2).fit(X, Y)
    assert np.array_equal(classifier.predict_proba(X), classifier.predict_proba(X))


def test_fit_in_parts_is_fit(tmp_path: Path) -> None:
    """Moments, moving averages, noise and the order of the images go on where they were, from a file too."""
    whole = NetworkClassifier(VARIED, epochs=4).fit(X, Y)
    parts = NetworkClassifier(VARIED)
    for _ in range(2):
        parts.partial_fit(X, Y, classes=[0, 1, 2])
    joblib.dump(parts, tmp_path / "classifier")
    parts = joblib.load(tmp_path / "classifier").partial_fit(X, Y).partial_fit(X, Y)
    assert np.array_equal(parts.predict_proba(X), whole.predict_proba(X))
    assert parts.loss_curve_ == whole.loss_curve_
    assert parts.n_iter_ == whole.n_iter_ == 4
    assert np.array_equal(
        whole.partial_fit(X, Y).predict_proba(X), NetworkClassifier(VARIED, epochs=5).fit(X, Y).predict_proba(X)
    )


def test_parts_of_other_sizes_count_their_steps() -> None:
    """5 steps, 1 and 12: by the schedule, the last ones alone change the weights."""
    classifier = NetworkClassifier(optimizer=SGD(PiecewiseConstantDecay([5, 17], [0.0, 0.1, 0.2])), batch_size=10)
    found = []
    for size in (50, 7, 120):
        classifier.partial_fit(X[:size], Y[:size], classes=range(3))
        found.append(classifier.predict_proba(X))
    assert [record["learning_rate"] for record in classifier.history_] == [0.0, 0.0, 0.1]
    assert [record["epoch"] for record in classifier.history_] == [1, 2, 3]
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[1], found[2])
    kernel = classifier.network_.weights()["dense/kernel"]
    classifier.optimizer = SGD(PiecewiseConstantDecay([17, 18], [0.0, 0.1, 0.0]))
    classifier.partial_fit(X[:10], Y[:10])
    assert not np.array_equal(classifier.network_.weights()["dense/kernel"], kernel)  # by step 18 alone


def test_it_stops_early_with_the_weights_of_its_best_epoch() -> None:
    settings: Any = {"optimizer": Adam(0.03), "validation_fraction": 0.3, "random_state": 1}
    stopped = NetworkClassifier(epochs=200, n_iter_no_change=4, **settings).fit(DIGITS, OF_DIGITS)
    losses = [record["val_loss"] for record in stopped.history_]
    best = int(np.argmin(losses)) + 1
    assert len(losses) == stopped.n_iter_ == best + 4
    assert best < 100
    until = NetworkClassifier(epochs=best, **settings).fit(DIGITS, OF_DIGITS)
    assert np.array_equal(stopped.predict_proba(DIGITS), until.predict_proba(DIGITS))
    by_training_loss = NetworkClassifier(optimizer=SGD(1.0), n_iter_no_change=2).fit(X, Y)
    assert by_training_loss.n_iter_ == int(np.argmin(by_training_loss.loss_curve_)) + 3 < 50


def test_what_is_held_out_has_its_share_of_every_class(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("scratchnet.classifier.Dataset", lambda *splits, **more: seen.append((splits, more)))
    with pytest.raises(TypeError, match="Dataset is wanted"):
        NetworkClassifier(validation_fraction=0.2).fit(X, Y)
    (((_, train, *_), more),) = seen
    assert np.array_equal(np.bincount(train.labels), [40, 40, 40])
    assert np.array_equal(np.bincount(more["validation"].labels), [10, 10, 10])
    assert len(np.unique(np.concatenate([train.images, more["validation"].images]), axis=0)) == len(
        np.unique(X, axis=0)
    )


@pytest.mark.parametrize("kind", [object, str, "int8", bool])
def test_labels_are_what_they_were(kind: Any) -> None:
    names = np.array(["setosa", "versicolor", "virginica"])
    y = names[Y].astype(kind) if kind in (object, str) else (Y > 0).astype(kind)
    classifier = NetworkClassifier().fit(X, y)
    assert classifier.classes_.tolist() == sorted(set(y.tolist()))
    assert classifier.score(X, y) > 0.9
    assert classifier.predict(X[:3]).tolist() == y[:3].tolist()


def test_images_are_rows_whose_shape_is_known() -> None:
    layers: Any = [Conv2D(8, 3), ReLU(), MaxPooling2D(), Flatten()]
    settings: Any = {"epochs": 5, "optimizer": Adam(1e-2)}
    of_images = NetworkClassifier(layers, **settings).fit(IMAGES, OF_DIGITS)
    of_rows = NetworkClassifier(layers, input_shape=(8, 8, 1), **settings).fit(DIGITS, OF_DIGITS)
    assert of_images.n_features_in_ == of_rows.n_features_in_ == 64
    assert of_images.score(IMAGES, OF_DIGITS) > 0.9
    for x in DIGITS, IMAGES:
        assert np.array_equal(of_images.predict_proba(x), of_rows.predict_proba(IMAGES))
    ending_in_an_image = NetworkClassifier(layers[:-1], **settings).fit(IMAGES, OF_DIGITS)
    assert np.array_equal(ending_in_an_image.predict_proba(IMAGES), of_rows.predict_proba(IMAGES))


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ((64,), "flatten dense re_lu"),
        ((8, 8), "flatten dense re_lu"),
        ((4, 16, 1), "conv2d re_lu max_pooling2d conv2d_1 re_lu_1 max_pooling2d_1 flatten dense re_lu_2"),
        ((2, 32, 1), "flatten dense re_lu"),
    ],
)
def test_without_layers_it_takes_what_suits_the_shape(shape: Any, names: str) -> None:
    classifier = NetworkClassifier(epochs=3, input_shape=shape).fit(DIGITS, OF_DIGITS)
    assert [layer.name for layer in classifier.network_.leaves][:-2] == names.split()
    assert classifier.score(DIGITS, OF_DIGITS) > 0.9


def test_the_numbers_are_computed_as_they_come() -> None:
    for dtype, computed in ("float64", "float64"), ("int64", "float64"), ("float32", "float32"), ("uint8", "float32"):
        classifier = NetworkClassifier(epochs=1).fit(DIGITS.astype(dtype), OF_DIGITS)
        assert classifier.network_.dtype == classifier.predict_proba(DIGITS).dtype == computed
    pixels = (DIGITS * 15).astype(np.uint8)
    of_bytes = NetworkClassifier(epochs=2).fit(pixels, OF_DIGITS)
    of_floats = NetworkClassifier(epochs=2).fit((pixels / 255).astype(np.float32), OF_DIGITS)
    for x in pixels, pixels / 255:
        np.testing.assert_allclose(of_bytes.predict_proba(x), of_floats.predict_proba(x), atol=1e-5)


@pytest.mark.parametrize("head", ["gumbel", GumbelSoftmaxCrossEntropy(0.5), "two-level", TwoLevelSoftmax(10)])
def test_heads(head: Any) -> None:
    classifier = NetworkClassifier(head=head, epochs=5).fit(DIGITS, OF_DIGITS)
    assert classifier.score(DIGITS, OF_DIGITS) > 0.95
    np.testing.assert_allclose(classifier.predict_proba(DIGITS).sum(axis=1), 1)


def test_what_it_is_given_stays_as_it_was() -> None:
    given: Any = {"layers": [Dense(8), ReLU()], "head": TwoLevelSoftmax(3), "optimizer": Adam(1e-2)}
    before = joblib.hash(given)
    NetworkClassifier(**given, epochs=2).fit(X, Y).partial_fit(X, Y).predict(X)
    assert joblib.hash(given) == before


@pytest.mark.parametrize(
    "kind", [StrictDevice, pytest.param(partial(get_device, "gpu", "fp32"), marks=pytest.mark.gpu)]
)
@pytest.mark.parametrize("head", ["softmax", "two-level"])
def test_every_device_finds_the_same(head: str, kind: Any) -> None:
    found = []
    for device in get_device("cpu"), kind():
        classifier = NetworkClassifier(head=head, epochs=2, n_iter_no_change=1, device=device)
        classifier.fit(IMAGES[:150], OF_DIGITS[:150]).partial_fit(IMAGES[:100], OF_DIGITS[:100])
        assert classifier.network_.device is device
        found.append(classifier.predict_proba(IMAGES))
    np.testing.assert_allclose(*found, rtol=1e-8)


def test_workers_share_the_work() -> None:
    alone, together = (NetworkClassifier(epochs=2, workers=workers).fit(X, Y) for workers in (1, 2))
    np.testing.assert_allclose(together.predict_proba(X), alone.predict_proba(X), rtol=1e-9)
    assert not np.array_equal(together.predict_proba(X), alone.predict_proba(X))  # another order of the sums


def test_verbose_says_how_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    NetworkClassifier(epochs=2, validation_fraction=0.2, verbose=True).fit(X, Y)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("epoch 1, loss ")
    assert "val_accuracy" in second
    NetworkClassifier(epochs=1).fit(X, Y)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"layers": 3}, TypeError, "a int is given where a list of layers is wanted"),
        ({"layers": [3]}, TypeError, "entry 0 is a int, not a layer"),
        ({"layers": [Dense(3)]}, ValueError, r"layers end in Dense\(3\), which is added to them: leave it out"),
        ({"layers": [GlobalAveragePooling2D()]}, ValueError, r"the input shape is \(4,\) where \(H, W, C\) is wanted"),
        ({"head": "hinge"}, ValueError, "head is 'hinge' where 'softmax' or .* is wanted"),
        ({"head": TwoLevelSoftmax(9)}, ValueError, "the head is for 9 classes where y has 3"),
        ({"optimizer": "lbfgs"}, ValueError, "optimizer is 'lbfgs' where 'adam' or 'sgd' is wanted"),
        ({"epochs": 0}, ValueError, "epochs is 0 where a positive integer is wanted"),
        ({"batch_size": 0.5}, ValueError, "batch_size is 0.5 where a positive integer is wanted"),
        ({"workers": 0}, ValueError, "workers is 0 where a positive integer is wanted"),
        ({"input_shape": (3, 3)}, ValueError, r"has the shape \(4,\) where the input shape is \(3, 3\)"),
        ({"input_shape": "8x8"}, ValueError, "the input shape is '8x8' where a tuple of positive integers"),
        ({"validation_fraction": 1}, ValueError, "validation_fraction is 1 where a number from 0 up to"),
        ({"n_iter_no_change": 0}, ValueError, "n_iter_no_change is 0 where a positive integer is wanted"),
        ({"device": "tpu"}, ValueError, "unknown device 'tpu'"),
        ({"random_state": "x"}, ValueError, "'x' cannot be used to seed"),
        ({"optimizer": SGD(1e300)}, TrainingError, "diverged at step .* try a smaller learning rate than 1e"),
    ],
)  # fmt: skip
def test_wrong_arguments(arguments: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        NetworkClassifier(**arguments).fit(X, Y)
    assert "\n" not in str(caught.value)


def test_wrong_rows_and_labels() -> None:
    classifier = NetworkClassifier(epochs=1)
    with pytest.raises(NotFittedError):
        classifier.predict(IMAGES)
    with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
        classifier.partial_fit(X, Y)
    with pytest.raises(ValueError, match="y has 2, which is none of the classes"):
        clone(classifier).partial_fit(X, Y, classes=[0, 1])
    with pytest.raises(ValueError, match="y has 'a', which is none of the classes"):
        classifier.partial_fit(X, Y, classes=[0, 1, 2]).partial_fit(X, np.full(len(X), "a"))
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        classifier.fit(X, X[:, 0])
    classifier.fit(IMAGES, OF_DIGITS)
    with pytest.raises(ValueError, match=r"shape \(4, 16, 1\) where the input shape is \(8, 8, 1\): give rows of 64"):
        classifier.predict(IMAGES.reshape(-1, 4, 16, 1))
    with pytest.raises(ValueError, match="X has 4 features, but NetworkClassifier is expecting 64"):
        classifier.predict(X)
    with pytest.raises(ValueError, match="contains NaN"):
        classifier.fit(np.full_like(IMAGES, np.nan), OF_DIGITS)
