"""The metrics against their definitions, one image and one class at a time."""

from math import exp, log

import numpy as np
import pytest

from scratchnet.backend.noise import SAMPLING, gumbel, uniform
from scratchnet.experiments.metrics import Evaluation, evaluate

N, CLASSES = 300, 7


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 2, (N, CLASSES)).astype(np.float32)


@pytest.fixture
def labels(logits: np.ndarray) -> np.ndarray:
    random = np.random.default_rng(1)
    return np.where(random.random(N) < 0.4, logits.argmax(1), random.integers(0, CLASSES, N))


def evaluated(logits: np.ndarray, labels: np.ndarray, draw: int = 0) -> Evaluation:
    return evaluate(logits, labels, gumbel(uniform(0, SAMPLING, draw, 0, *logits.shape)))


def test_loss_and_expected_accuracy_are_those_of_the_softmax(logits: np.ndarray, labels: np.ndarray) -> None:
    probabilities = [exp(row[label]) / sum(map(exp, row)) for row, label in zip(logits.tolist(), labels, strict=True)]
    result = evaluated(logits, labels)
    assert result.loss == pytest.approx(-sum(map(log, probabilities)) / N, rel=1e-12)
    assert result.figures["expected_sampled_accuracy"] == pytest.approx(sum(probabilities) / N, rel=1e-12)


def test_loss_stays_finite_where_the_softmax_underflows() -> None:
    result = evaluated(np.array([[0, 3000], [1e30, 0]], np.float32), np.array([0, 0]))
    assert result.loss == 1500
    assert result.figures["expected_sampled_accuracy"] == 0.5


@pytest.mark.parametrize("sampled", [False, True])
def test_figures_are_macro_averages(logits: np.ndarray, labels: np.ndarray, sampled: bool) -> None:
    noise = gumbel(uniform(0, SAMPLING, 0, 0, N, CLASSES))
    prediction = (logits + noise if sampled else logits).argmax(axis=1)
    precisions, recalls, f1s = [], [], []
    for k in range(CLASSES):
        hits = sum((prediction == k) & (labels == k))
        precisions.append(hits / sum(prediction == k))
        recalls.append(hits / sum(labels == k))
        f1s.append(2 * precisions[-1] * recalls[-1] / (precisions[-1] + recalls[-1]))
    expected = np.mean(prediction == labels), np.mean(precisions), np.mean(recalls), np.mean(f1s)
    final = evaluated(logits, labels).figures
    found = [final[score + "_sampled" * sampled] for score in ("accuracy", "precision", "recall", "f1")]
    assert found == pytest.approx(expected, rel=1e-12)


def test_precision_of_a_class_never_predicted_is_zero() -> None:
    logits = np.array([[9, 0], [9, 0]], np.float32)
    final = evaluated(logits, np.array([0, 1])).figures
    assert (final["precision"], final["recall"], final["f1"]) == pytest.approx((0.25, 0.5, 1 / 3))


def test_confusion_counts_true_classes_by_row(logits: np.ndarray, labels: np.ndarray) -> None:
    counts = np.zeros((CLASSES, CLASSES), int)
    for label, row in zip(labels, logits, strict=True):
        counts[label, row.argmax()] += 1
    np.testing.assert_array_equal(evaluated(logits, labels).confusion, counts)


def test_confusion_has_all_classes_even_where_some_do_not_occur() -> None:
    assert evaluated(np.eye(3, 5, dtype=np.float32), np.arange(3)).confusion.shape == (5, 5)


def test_sampled_accuracy_approaches_its_closed_form(logits: np.ndarray, labels: np.ndarray) -> None:
    draws = [evaluated(logits, labels, draw).figures for draw in range(60)]
    sampled = np.array([draw["accuracy_sampled"] for draw in draws])
    standard_error = 0.5 / np.sqrt(N * len(draws))  # at most: each draw is right or wrong
    assert abs(sampled.mean() - draws[0]["expected_sampled_accuracy"]) < 3 * standard_error
    assert len(np.unique(sampled)) > 10


@pytest.mark.parametrize("temperature", [0.1, 0.5, 3.0])
def test_temperature_changes_no_sampled_prediction(logits: np.ndarray, temperature: float) -> None:
    noise = gumbel(uniform(0, SAMPLING, 0, 0, N, CLASSES)).astype(np.float64)
    np.testing.assert_array_equal(((logits + noise) / temperature).argmax(1), (logits + noise).argmax(1))
