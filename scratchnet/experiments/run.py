"""One experiment: train as configured, evaluate after each epoch, and keep what is on disk complete at all times."""

import platform
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

import scratchnet
from scratchnet import Sequential
from scratchnet.backend import Device, get_device
from scratchnet.backend.noise import SAMPLING, gumbel, uniform
from scratchnet.data import Dataset, load_dataset
from scratchnet.errors import DataError, DeviceError, ScratchnetError
from scratchnet.experiments import artifacts
from scratchnet.experiments.checkpoint import Checkpoints
from scratchnet.experiments.config import Config
from scratchnet.experiments.interruption import Interruption, postponed
from scratchnet.experiments.metrics import Evaluation, evaluate
from scratchnet.experiments.reading import Damaged, printable, read_json
from scratchnet.experiments.recipes import RECIPES
from scratchnet.experiments.report import figures
from scratchnet.experiments.report.statistics import Run
from scratchnet.experiments.result import METRICS, Epoch, Metrics, Predictions, Result
from scratchnet.heads import Head
from scratchnet.layers.saved import to_bytes
from scratchnet.optimizers import Adam
from scratchnet.training import Trainer

IMAGE_SHAPE = 32, 32, 3


class Observer:
    """Is told how an experiment goes on; this one does nothing with it."""

    def note(self, message: str) -> None:
        """Something the user should know."""

    def start(self, dataset: Dataset, network: Sequential) -> None:
        """Training is about to begin."""

    def step(self, epoch: int, step: int, steps: int, loss: float, accuracy: float) -> None:
        """A step of an epoch is done; loss and accuracy are means over the epoch so far."""

    def epoch(self, epoch: Epoch) -> None:
        """An epoch is done, evaluated and written."""


def run_experiment(config: Config, observer: Observer | None = None) -> Result:
    """Train, evaluate and write the files of an experiment; return what stands in its metrics.json.

    After each epoch metrics.json, history.csv, confusion.csv, weights.safetensors and, of a head that has weights,
    head.safetensors replace those of the epoch before, or of an earlier run in the same folder, once all of them are
    complete; the last epoch adds predictions.safetensors, the logits of the test split. Nothing else in the folder is
    touched.
    At the end come curves.png and confusion.png, where matplotlib is installed. Raises DeviceError, DataError,
    TrainingError for a loss or a logit that is not finite, and ScratchnetError where a file cannot be written, another
    run is writing to the folder, or the folder has the files of a run on another data set or an unfinished run.

    The folder also has the newest checkpoint and the one before it. With `config.resume` the run in the folder goes
    on from there, to the same bits as one that was never interrupted; a finished one is evaluated again, or goes on if
    it is to have more epochs. SIGINT and SIGTERM raise Interruption after the step, with a checkpoint (where this is
    called in the main thread). An exception raised by the observer's `step` also saves a checkpoint and is re-raised.
    """
    progress, observer = observer is not None, observer or Observer()
    device = _choose_device(config.settings.device, observer, config.settings.precision)
    dataset = load_dataset(config.settings.data, progress=progress)
    if dataset.test is None:
        raise DataError(
            f"{dataset.name} has no test split, on which an experiment is evaluated: name other data with --data"
        )
    artifacts.prepare(config.output)
    with artifacts.locked(config.output), postponed() as signals:
        return _run(config, observer, device, dataset, dataset.test.labels, signals)


def _run(
    config: Config, observer: Observer, device: Device, dataset: Dataset, labels: np.ndarray, signals: list[int]
) -> Result:
    settings = config.settings
    _check_earlier_run(config.output, dataset.name)
    checkpoints = Checkpoints(config)
    if not config.resume and checkpoints.unfinished():
        raise ScratchnetError(
            f"{config.output} has the checkpoint of an unfinished run: go on with --resume, choose another folder with "
            "--output, or remove the checkpoint to start again"
        )
    head, optimizer = settings.make_head(dataset), Adam(learning_rate=settings.learning_rate)
    network = RECIPES[settings.recipe].network(head.outputs_for(dataset.num_classes), settings.seed)
    network.build(IMAGE_SHAPE, device=device, seed=settings.seed)
    observer.start(dataset, network)
    workers = settings.workers if device.name == "cpu" else 1  # device auto may have found a GPU
    with Trainer(
        network, head, optimizer, dataset, batch_size=settings.batch_size, seed=settings.seed, workers=workers
    ) as trainer:
        dataset = trainer.dataset  # the same images in shared memory; those read from the disk can go
        found = replace(settings, batch_size=trainer.batch_size, workers=trainer.workers, data=dataset.name)
        found = replace(found, training_images=len(dataset.train), data_digest=dataset.digest)
        result = Result(replace(found, device=device.name, precision=device.precision), _versions(device))
        if config.resume:
            checkpoints.load(result, trainer, observer.note)

        def on_step(step: int, steps: int, loss: float, accuracy: float) -> None:
            try:
                observer.step(trainer.progress.epoch, step, steps, loss, accuracy)
                if signals:
                    raise Interruption(signals[0])
            except BaseException:
                checkpoints.save(result, trainer)
                raise
            checkpoints.save_if_due(result, trainer)

        for epoch in range(len(result.epochs) + 1, settings.epochs + 1):
            trained = trainer.train_epoch(epoch, on_step)
            logits = trainer.predict("test")
            evaluation = _evaluate(logits, labels, settings.seed, epoch)
            evaluation.figures.update(head.own_figures(logits, labels))
            record = Epoch(
                epoch=epoch,
                seconds=trained.seconds,
                train_loss=trained.loss,
                train_accuracy=trained.accuracy,
                test_loss=evaluation.loss,
                test_accuracy=evaluation.figures["accuracy"],
                test_accuracy_sampled=evaluation.figures["accuracy_sampled"],
            )
            result.epochs.append(record)
            if epoch == settings.epochs:
                result.final, result.predictions = evaluation.figures, Predictions.of(logits, labels, dataset)
            _save(config.output, result, evaluation, network, head)
            observer.epoch(record)
    try:
        artifacts.write(config.output, figures.of_run(Run(result)))
    except ImportError as error:
        observer.note(
            f"no curves.png and confusion.png, as matplotlib cannot be imported ({error}): "
            "pip install scratchnet[plot] installs it"
        )
    return result


def _choose_device(name: str, observer: Observer, precision: str | None = None) -> Device:
    if name == "cpu":
        return get_device("cpu")
    try:
        return get_device("gpu", precision)
    except DeviceError as error:
        if name == "gpu":
            raise
        observer.note(f"device auto takes the CPU: {error}")
        return get_device("cpu")


def _check_earlier_run(folder: Path, data: str) -> None:
    """Data "auto" may mean another data set than last time, whose files must not be lost to it."""
    with suppress(Damaged):  # there is no such file, or it is not of a run
        earlier = read_json(folder / METRICS, Metrics).settings.data
        if earlier != data:
            raise ScratchnetError(
                f"{folder} has the files of a run on {printable(earlier, 40)}, which this one on {data} would replace: "
                "choose another folder with --output"
            )


def _evaluate(logits: np.ndarray, labels: np.ndarray, seed: int, epoch: int) -> Evaluation:
    """The sampled predictions are a function of seed and epoch alone, and share no noise with training."""
    return evaluate(logits, labels, noise=gumbel(uniform(seed, SAMPLING, epoch, 0, *logits.shape)))


def _save(folder: Path, result: Result, evaluation: Evaluation, network: Sequential, head: Head) -> None:
    rows = [{"dataset": result.settings.data} | asdict(epoch) for epoch in result.epochs]
    contents = {
        **result.files(),
        "history.csv": artifacts.csv_bytes([rows[0], *(row.values() for row in rows)]),
        "confusion.csv": artifacts.csv_bytes(evaluation.confusion.tolist()),
        "weights.safetensors": to_bytes(network),
    }
    if head.shapes:  # without its weights the network gives features
        contents["head.safetensors"] = to_bytes(head)
    artifacts.write(folder, contents)


def _versions(device: Device) -> dict[str, str]:
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    versions = {
        "python": platform.python_version(),
        "scratchnet": scratchnet.__version__,
        "numpy": np.__version__,
        "blas": f"{blas['name']} {blas['version']}",
        "scikit-learn": version("scikit-learn"),
        "platform": platform.platform(),
    }
    if device.xp is not np:
        versions["cupy"] = device.xp.__version__
    return versions
