"""How good logits are: the clean cross-entropy, and accuracy, precision, recall and F1 of two ways to predict.

The reports differ because their evaluations differ. One predicts the class of the largest logit; the other
leaves the Gumbel noise g on and predicts argmax((z + g) / temperature). Dividing by a positive temperature moves
no maximum, and argmax(z + g) is a draw from softmax(z) (the Gumbel-max trick: Gumbel 1954; Maddison, Tarlow and
Minka 2014). So a noisy prediction is a *sample*, right with probability softmax(z)[label], whatever the head and
the temperature: the mean of that probability is the expected accuracy, with no sampling at all.
"""

from dataclasses import dataclass

import numpy as np

from scratchnet.experiments.result import SCORES


@dataclass(frozen=True)
class Evaluation:
    """The clean cross-entropy, the figures, and how often class i (row) was predicted as j (column) by the argmax."""

    loss: float
    figures: dict[str, float]
    confusion: np.ndarray


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """log(softmax(logits)) of (N, classes) in float64; shifted by the maximum, so no exponential overflows."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def evaluate(logits: np.ndarray, labels: np.ndarray, noise: np.ndarray) -> Evaluation:
    """Evaluate finite logits (N, classes) and labels (N,), with standard Gumbel noise (N, classes) for the samples."""
    from sklearn.metrics import confusion_matrix  # takes a second to import, and a wrong option should not wait for it

    log_likelihood = log_softmax(logits)[np.arange(len(labels)), labels]
    prediction = logits.argmax(axis=1)
    figures = _scores(labels, prediction) | _scores(labels, (logits + noise).argmax(axis=1), "_sampled")
    figures["expected_sampled_accuracy"] = float(np.exp(log_likelihood).mean())
    confusion = confusion_matrix(labels, prediction, labels=np.arange(logits.shape[1]))
    return Evaluation(float(-log_likelihood.mean()), figures, confusion)


def _scores(labels: np.ndarray, prediction: np.ndarray, suffix: str = "") -> dict[str, float]:
    """Accuracy and macro precision, recall and F1; the precision of a class never predicted counts as 0."""
    from sklearn.metrics import precision_recall_fscore_support

    averages = precision_recall_fscore_support(labels, prediction, average="macro", zero_division=0)[:3]
    values = (prediction == labels).mean(), *averages
    return {score + suffix: float(value) for score, value in zip(SCORES, values, strict=True)}
