"""A network as a classifier of scikit-learn: fit, predict and predict_proba on rows of features or on images."""

from collections.abc import Mapping, Sequence
from inspect import signature
from math import inf, prod
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import _check_partial_fit_first_call, check_classification_targets, unique_labels
from sklearn.utils.validation import check_is_fitted

from scratchnet import arguments
from scratchnet.backend import Device
from scratchnet.data import Dataset, Split
from scratchnet.heads import HEADS, Head
from scratchnet.layers import Conv2D, Dense, Flatten, MaxPooling2D, ReLU, Sequential
from scratchnet.layers.flow import as_module
from scratchnet.layers.module import Module, as_device
from scratchnet.optimizers import SGD, Adam, Optimizer
from scratchnet.training import Progress, Trainer
from scratchnet.training.replica import threads

try:
    from sklearn.utils.validation import validate_data
except ImportError:  # scikit-learn 1.5
    validate_data = BaseEstimator._validate_data

OWNER = "network classifier"
OPTIMIZERS: dict[str, type[Any]] = {"adam": Adam, "sgd": SGD}
DTYPES = np.float64, np.float32, np.uint8  # anything else becomes the first
ROWS = 64  # predicted at once, always: how BLAS rounds depends on how many there are


class NetworkClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc,unused-ignore]
    """Trains `layers`, to which it adds Flatten and a Dense with an output a class, on (n, d) or (N, H, W, C).

    `layers` are copied, as are a `head` and an `optimizer`, which may also be given by name; without any it takes a
    hidden layer of 128, behind two convolutions where `input_shape`, that of one example, is an image of 4x4 or more.
    float64 is computed in float64, float32 in float32, and so is uint8, which counts as pixels and is divided by 255.

    `validation_fraction` of the rows are held out of `fit`. With `n_iter_no_change`, `fit` ends when for so many epochs
    the loss (on those held out, if any) has had no new minimum, and keeps the weights of its best epoch.

    The same rows, arguments and `random_state` give the same bits, and so does a row predicted alone or among others;
    None takes another seed for each fit. Raises ValueError or TypeError for what does not fit together, TrainingError
    where the training diverges. Fitted: `classes_`, `n_features_in_`, `n_iter_` (epochs), `history_` (their records,
    as of Trainer.fit), `loss_curve_`, `network_` and `head_`.
    """

    def __init__(
        self,
        layers: Module | Sequence[Module] | None = None,
        head: str | Head = "softmax",
        optimizer: str | Optimizer = "adam",
        epochs: int = 100,
        batch_size: int = 32,
        input_shape: tuple[int, ...] | None = None,
        validation_fraction: float = 0.0,
        n_iter_no_change: int | None = None,
        random_state: Any = 0,
        device: str | Device = "cpu",
        workers: int = 1,
        verbose: bool = False,
    ) -> None:
        self.layers, self.head, self.optimizer = layers, head, optimizer
        self.epochs, self.batch_size, self.input_shape = epochs, batch_size, input_shape
        self.validation_fraction, self.n_iter_no_change = validation_fraction, n_iter_no_change
        self.random_state, self.device, self.workers, self.verbose = random_state, device, workers, verbose

    def fit(self, X: Any, y: Any) -> Self:
        """Train anew, for `epochs` passes over the rows `X` and their labels `y` (n,), integers or text."""
        fraction = arguments.fraction(self.validation_fraction, "validation_fraction", OWNER)
        if self.n_iter_no_change is not None:
            arguments.positive_integer(self.n_iter_no_change, "n_iter_no_change", OWNER)
        X, y = self._checked(X, reset=True, y=y)
        self._build(X, unique_labels(y))
        return self._train(X, y, self.epochs, fraction, self.n_iter_no_change)

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:
        """Train on, for one pass over these rows; the first call is told all `classes` that will come.

        As many calls with the same rows as `fit` has epochs give the same bits.
        """
        _check_partial_fit_first_call(self, classes)
        first = not hasattr(self, "network_")
        X, y = self._checked(X, reset=first, y=y)
        if first:
            self._build(X, self.classes_)
        return self._train(X, y, 1)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row, (n,)."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probabilities of `classes_`, (n, classes), without a head's noise."""
        check_is_fitted(self)
        X, _ = self._checked(X)
        probabilities = np.empty((len(X), len(self.classes_)), self.network_.dtype)
        self.network_.clock.step = 0  # where layers draw noise, it is the same in each prediction
        with threads().limit(limits=1):
            for start in range(0, len(X), ROWS):
                part, block = X[start : start + ROWS], np.zeros((ROWS, *X.shape[1:]), X.dtype)
                block[: len(part)] = part
                scores = self.head_.predict(self.network_.predict(block))
                of_classes = self.head_.log_probabilities(scores)[: len(part)]
                np.exp(of_classes, out=probabilities[start : start + ROWS])
        return probabilities

    @property
    def n_iter_(self) -> int:
        return len(self.history_)

    @property
    def loss_curve_(self) -> list[float]:
        return [record["loss"] for record in self.history_]

    def _checked(self, X: Any, reset: bool = False, **labels: Any) -> tuple[np.ndarray, Any]:
        """X as examples of the network's input; and y, where it is given."""
        shape = tuple(X.shape[1:]) if getattr(X, "ndim", 2) > 2 else ()
        if shape:  # images are rows whose shape is known
            X = np.asarray(X).reshape(len(X), prod(shape))
        checked = validate_data(self, X, reset=reset, dtype=DTYPES, **labels)
        X, y = checked if labels else (checked, None)
        if labels:
            check_classification_targets(y)
        given = shape or X.shape[1:]
        wanted = arguments.shape(self.input_shape or given, OWNER) if reset else self.network_.input_shape
        if prod(wanted) != X.shape[1] or (shape and shape != wanted):
            raise ValueError(
                f"{OWNER}: an example has the shape {given} where the input shape is {wanted}: give rows of "
                f"{prod(wanted)} features, examples of that shape, or another input_shape"
            )
        return X.reshape(-1, *wanted), y

    def _build(self, X: np.ndarray, classes: np.ndarray) -> None:
        """A new network and head, for such examples and these classes."""
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        head = _chosen(self.head, Head, HEADS, "head", classes=len(classes), seed=seed).unbuilt()
        body = as_module(_default_layers(X.shape[1:]) if self.layers is None else self.layers, OWNER).unbuilt()
        outputs = head.outputs_for(len(classes))
        network = Sequential([body, Flatten(), *([] if outputs is None else [Dense(outputs)])])
        network.build(X.shape[1:], "float64" if X.dtype == np.float64 else "float32", as_device(self.device), seed)
        head.build_for(network.output_shape, network.dtype, network.device, seed)
        if any(isinstance(layer, Dense) and layer.units == outputs for layer in network.leaves[-3:-2]):
            raise ValueError(f"{OWNER}: layers end in Dense({outputs}), which is added to them: leave it out")
        if head.classes != len(classes):
            raise ValueError(f"{OWNER}: the head is for {head.classes} classes where y has {len(classes)}")
        self.network_, self.head_, self.classes_, self.history_ = network, head, classes, list[dict[str, Any]]()
        self._seed, self._steps, self._moments = seed, 0, dict[str, np.ndarray]()

    def _train(
        self, X: np.ndarray, y: np.ndarray, epochs: int, fraction: float = 0.0, patience: int | None = None
    ) -> Self:
        """Train on, for so many epochs; keeps what the next ones go on from."""
        if (unknown := y[~np.isin(y, self.classes_)]).size:
            raise ValueError(f"{OWNER}: y has {unknown.tolist()[0]!r}, which is none of the classes {self.classes_}")
        labels, held_out = np.searchsorted(self.classes_, y), None
        if fraction:
            X, images, labels, of_images = train_test_split(
                X, labels, test_size=fraction, stratify=labels, random_state=self._seed
            )
            held_out = Split(images, of_images)
        data = Dataset(OWNER, Split(X, labels), None, tuple(map(str, self.classes_)), validation=held_out)
        optimizer = _chosen(self.optimizer, Optimizer, OPTIMIZERS, "optimizer")
        options: Any = {"batch_size": self.batch_size, "seed": self._seed, "workers": self.workers}
        modules, best, since, kept = (self.network_, self.head_), inf, 0, None
        with Trainer(*modules, optimizer, data, **options) as trainer:
            trainer.restore(trainer.state() | self._moments, Progress(self.n_iter_ + 1), self._steps)
            for _ in range(arguments.positive_integer(epochs, "epochs", OWNER)):
                (record,) = trainer.fit(1)
                self.history_.append(record)
                if self.verbose:
                    print(", ".join(f"{name} {value:.4g}" for name, value in record.items()))
                loss, since = record.get("val_loss", record["loss"]), since + 1
                if patience and loss < best:
                    best, since, kept = loss, 0, [module.weights() for module in modules]
                if since == patience:
                    break
            state, self._steps = trainer.state(), trainer.earlier + trainer.done
            self._moments = {name: state[name] for name in optimizer.slots}
        for module, weights in zip(modules, kept or (), strict=False):
            module.set_weights(weights)
        return self


def _chosen(given: Any, kind: type, table: Mapping[str, Any], what: str, **options: Any) -> Any:
    """What is given; or by its name, of the table, made with those of the options that it takes."""
    if isinstance(given, kind):
        return given
    named = table[arguments.one_of(given, tuple(table), what, OWNER)]
    return named(**{name: value for name, value in options.items() if name in signature(named).parameters})


def _default_layers(shape: tuple[int, ...]) -> list[Module]:
    blocks = (32, 64) if len(shape) == 3 and min(shape[:2]) >= 4 else ()
    pooled = ((Conv2D(filters, 3, padding="same"), ReLU(), MaxPooling2D(2)) for filters in blocks)
    return [*(layer for block in pooled for layer in block), Flatten(), Dense(128), ReLU()]
