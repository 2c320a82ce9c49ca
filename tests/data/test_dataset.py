import hashlib
from typing import Any

import numpy as np
import pytest

from scratchnet.data import Dataset, Split

RANDOM = np.random.default_rng(7)
X = RANDOM.integers(256, size=(12, 4, 5, 3), dtype=np.uint8)
Y = np.arange(12) % 3


def arrays_of(dataset: Dataset) -> list[Any]:
    splits = dataset.train, dataset.validation, dataset.test
    return [split and (split.images.tolist(), split.labels.tolist()) for split in splits]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(4, 5, 3), (7,), (2, 3), (2, 3, 4, 5)])
def test_images_of_any_shape_are_taken_as_they_are(dtype: Any, shape: tuple[int, ...]) -> None:
    x = RANDOM.integers(256, size=(12, *shape)).astype(dtype)
    dataset = Dataset.from_arrays(x, Y)
    assert dataset.train.images is x
    np.testing.assert_array_equal(dataset.train.labels, Y.astype(np.int64), strict=True)
    assert (dataset.name, dataset.class_names, dataset.num_classes) == ("arrays", ("0", "1", "2"), 3)
    assert dataset.test is dataset.validation is None
    assert dataset.superclass_names == ()
    assert dataset.superclasses.shape == (0,)


def test_lists_are_taken_too() -> None:
    dataset = Dataset.from_arrays([[0.5, 1.0], [2.0, 3.0]], [1, 0])
    np.testing.assert_array_equal(dataset.train.images, np.array([[0.5, 1.0], [2.0, 3.0]]), strict=True)


@pytest.mark.parametrize(
    ("labels", "names", "numbers"),
    [
        (["dog", "cat", "cat", "eel"], ("cat", "dog", "eel"), [1, 0, 0, 2]),
        ([30, -2, 30, 7], ("-2", "7", "30"), [2, 0, 2, 1]),
        (np.array([9, 200, 200, 3], np.uint8), ("3", "9", "200"), [1, 2, 2, 0]),
        (np.array(["b", "a", "b", "b"]), ("a", "b"), [1, 0, 1, 1]),
        (np.array([2**63, 0, 1, 0], np.uint64), ("0", "1", str(2**63)), [2, 0, 1, 0]),
    ],
)
def test_labels_are_numbered_in_their_order(labels: Any, names: tuple[str, ...], numbers: list[int]) -> None:
    dataset = Dataset.from_arrays(X[:4], labels, name="mine")
    assert dataset.class_names == names
    np.testing.assert_array_equal(dataset.train.labels, np.array(numbers, np.int64), strict=True)
    assert dataset.name == "mine"


def test_class_names_can_be_given() -> None:
    assert Dataset.from_arrays(X, Y, class_names=["cat", "dog", "eel"]).class_names == ("cat", "dog", "eel")


def test_a_fraction_is_held_out() -> None:
    dataset = Dataset.from_arrays(X, Y, validation=0.25, seed=1)
    assert dataset.validation is not None
    assert (len(dataset.train), len(dataset.validation)) == (9, 3)
    both = [
        (image.tobytes(), label)
        for split in (dataset.train, dataset.validation)
        for image, label in zip(split.images, split.labels.tolist(), strict=True)
    ]
    assert sorted(both) == sorted((image.tobytes(), label) for image, label in zip(X, Y.tolist(), strict=True))
    for split in (dataset.train, dataset.validation):
        places = [int(np.flatnonzero((image == X).all((1, 2, 3)))[0]) for image in split.images]
        assert places == sorted(places)
    assert arrays_of(dataset) == arrays_of(Dataset.from_arrays(X, Y, validation=0.25, seed=1))
    assert arrays_of(dataset) != arrays_of(Dataset.from_arrays(X, Y, validation=0.25, seed=2))


def test_splits_can_be_given_as_pairs() -> None:
    dataset = Dataset.from_arrays(X, Y, validation=(X[:2], [2, 1]), test=[X[3:6], [0, 0, 2]])
    assert arrays_of(dataset) == [
        (X.tolist(), Y.tolist()), (X[:2].tolist(), [2, 1]), (X[3:6].tolist(), [0, 0, 2])
    ]  # fmt: skip


MASKED = np.ma.masked_array(X, X < 9)
IMAGES = r"where uint8 \(0 to 255\), float32 or float64 of shape \(N, \.\.\.\) is wanted; convert them"
LABELS = r"where integers or text \(12,\) are wanted, one an image; of one-hot labels give argmax\(1\)"


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X.astype(np.int64), Y, rf"images are int64 \(12, 4, 5, 3\) {IMAGES}"),
        (X > 9, Y, rf"images are bool \(12, 4, 5, 3\) {IMAGES}"),
        (X.astype(np.float16), Y, rf"images are float16 \(12, 4, 5, 3\) {IMAGES}"),
        (X.astype(">f4"), Y, rf"images are >f4 \(12, 4, 5, 3\) {IMAGES}"),
        (X.astype(object), Y, rf"images are object \(12, 4, 5, 3\) {IMAGES}"),
        (MASKED, Y, rf"images are a MaskedArray {IMAGES}"),
        (X[:, 0, 0, 0], Y, rf"images are uint8 \(12,\) {IMAGES}"),
        ([[0.5], [1.0, 2.0]], Y, "wanted is a pair .x, y., each of which makes one array .*inhomogeneous"),
        (np.where(X > 9, np.nan, X), Y, "images have values that are NaN or infinite; replace them or leave"),
        (np.where(X > 9, np.float32(-np.inf), np.float32(0)), Y, "images have values that are NaN or infinite"),
        (X, Y[:-1], rf"labels are int64 \(11,\) {LABELS}"),
        (X[:5], Y, r"labels are int64 \(12,\) where integers or text \(5,\)"),
        (X, np.eye(3)[Y], rf"labels are float64 \(12, 3\) {LABELS}"),
        (X, np.eye(3, dtype=int)[Y], rf"labels are int64 \(12, 3\) {LABELS}"),
        (X, Y.astype(float), rf"labels are float64 \(12,\) {LABELS}"),
        (X, Y > 1, rf"labels are bool \(12,\) {LABELS}"),
        (X, [None] * 12, rf"labels are object \(12,\) {LABELS}"),
        (X, np.ma.masked_array(Y, Y < 1), rf"labels are a MaskedArray {LABELS}"),
        (X, 3, rf"labels are int64 \(\) {LABELS}"),
        (X[:0], Y[:0], "there are no images; give some"),
    ],
)
def test_arrays_that_are_refused(x: Any, y: Any, message: str) -> None:
    for where, arguments in (
        ("train", (x, y)),
        ("validation", (X, Y, (x, y), None)),
        ("test", (X, Y, 0.0, (x, y))),
    ):
        with pytest.raises((TypeError, ValueError), match=f"^mine, {where}: {message}") as caught:
            make(*arguments)
        assert "\n" not in str(caught.value)


def make(x: Any, y: Any, validation: Any = 0.0, test: Any = None) -> Dataset:
    return Dataset.from_arrays(x, y, validation=validation, test=test, name="mine")


@pytest.mark.parametrize("pair", [5, (X,), (X, Y, Y), X])
def test_what_is_no_pair(pair: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^mine, test: (images|.* pair)"):
        make(X, Y, test=pair)


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, "half", None, True, float("nan")])
def test_what_is_no_fraction(fraction: Any) -> None:
    with pytest.raises(ValueError, match=r"mine: validation is .* where a number from 0 up to, but not including, 1"):
        make(X, Y, fraction)


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_a_fraction_that_leaves_a_split_empty(fraction: float) -> None:
    with pytest.raises(ValueError, match="there are no images; give some, or another fraction for validation"):
        make(X, Y, fraction)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_class_that_the_training_split_lacks(part: str) -> None:
    for labels, unknown in (([0, 7], "7"), (["a", "b"], "'a'")):
        with pytest.raises(ValueError, match=f"mine, {part}: its class {unknown} is not in train"):
            make(X, Y, **{part: (X[:2], labels)})
    seed = next(seed for seed in range(99) if 0 in np.random.default_rng(seed).permutation(12)[:3])
    with pytest.raises(ValueError, match="mine, validation: its class 9 is not in train"):
        Dataset.from_arrays(X, [9, *Y[1:]], validation=0.25, name="mine", seed=seed)


@pytest.mark.parametrize("x", [X.astype(np.float32), X[:, :, :4]], ids=["type", "size"])
def test_splits_of_different_images(x: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"mine, test: images are .* \(.*\), in train uint8 \(12, 4, 5, 3\)"):
        make(X, Y, test=(x, Y))


def test_a_wrong_number_of_class_names() -> None:
    with pytest.raises(ValueError, match="arrays: 2 class names are given for 3 classes; give one a class"):
        Dataset.from_arrays(X, Y, class_names=["a", "b"])


@pytest.mark.parametrize("labels", [np.array(["a"] * 12), Y.astype(float), Y.tolist()])
def test_a_split_wants_integers(labels: Any) -> None:
    with pytest.raises(ValueError, match=r"split: labels are .* where integers \(12,\)"):
        Split(X, labels)


def test_the_digest_is_that_of_the_content() -> None:
    wide = np.zeros((12, 4, 5, 6), np.uint8)
    wide[..., ::2] = X
    fortran = np.asfortranarray(X)
    rolled = np.ascontiguousarray(X.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    digests = {Dataset.from_arrays(x, Y).digest for x in (X, wide[..., ::2], fortran, rolled)}
    content = np.ascontiguousarray(X.transpose(0, 3, 1, 2)).tobytes() + Y.astype("<i8").tobytes()
    assert digests == {hashlib.sha256(b"train uint8 (12, 3, 4, 5)" + content).hexdigest()}


def test_every_difference_changes_the_digest() -> None:
    pixel, labels = X.copy(), Y.copy()
    pixel[11, 3, 4, 2] ^= 1
    labels[[0, 1]] = labels[[1, 0]]
    datasets = [
        make(X, Y), make(pixel, Y), make(X, labels), make(X[::-1], Y[::-1]), make(X.astype(np.float32), Y),
        make(X.reshape(12, 5, 4, 3), Y), make(X, Y, (X, Y)), make(X, Y, test=(X, Y)), make(X, Y, (X, Y), (X, Y)),
        make(X, Y, (X[:3], Y[:3]), (X[3:], Y[3:])), make(X, Y, (X[:4], Y[:4]), (X[4:], Y[4:])),
    ]  # fmt: skip
    assert len({dataset.digest for dataset in datasets}) == len(datasets)


def test_a_digest_of_many_images() -> None:
    x = RANDOM.integers(256, size=(1_001, 3), dtype=np.uint8)
    digest = hashlib.sha256(b"train uint8 (1001, 3)" + x.tobytes() + bytes(8 * 1001)).hexdigest()
    assert Dataset.from_arrays(x, [0] * 1001).digest == digest


def test_a_digest_that_is_given_stays() -> None:
    split = Split(X, Y)
    assert Dataset("mine", split, split, ("a", "b", "c"), (), np.empty(0, np.int64), None, "known").digest == "known"
