"""Checkpoints: all that a run needs to go on with the same bits, in one file without pickle.

The file is MAGIC, the SHA-256 of the header, the header's length (4 bytes, little-endian), the header (JSON) and the
arrays one after the other. The header gives their dtypes and shapes, and one SHA-256 of all of them. Nothing is read
before its size is known to be what this run's network needs.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple, fields
from math import isfinite
from typing import Any, BinaryIO

import numpy as np

from scratchnet.errors import ScratchnetError
from scratchnet.experiments import artifacts
from scratchnet.experiments.config import Config
from scratchnet.experiments.reading import printable
from scratchnet.experiments.result import Epoch, Result
from scratchnet.training import Progress, Trainer

NAME, PREVIOUS = "checkpoint.scratchnet", "checkpoint.previous.scratchnet"
MAGIC = b"scratchnet checkpoint 1\n"
FOREIGN = "has a content that scratchnet did not write"
LONGEST_HEADER = 1 << 16  # bytes; ours have two thousand
SETTINGS = (
    "recipe", "head", "temperature", "seed", "device", "precision", "dataset", "batch_size", "learning_rate", "workers"
)  # fmt: skip


class Damaged(Exception):
    """Why a file cannot be a checkpoint of this run."""


class Checkpoints:
    """The checkpoints of a run's folder: the newest, NAME, and the one before it, for the case that it is damaged."""

    def __init__(self, config: Config) -> None:
        self.folder, self.epochs, self.every = config.output, config.epochs, config.checkpoint_every
        self.current = False  # whether NAME is a good one of this run
        self.saved = 0  # steps

    def unfinished(self) -> bool:
        """Whether the folder holds a run that has not come to its end."""
        for name in NAME, PREVIOUS:
            try:
                with open(self.folder / name, "rb") as file:
                    return not read_header(file).get("finished")
            except (OSError, Damaged):
                pass
        return False

    def save_if_due(self, result: Result, trainer: Trainer) -> None:
        """Save as often as the configuration asks for it, and at the end of the run."""
        done, (every, unit) = _steps_done(trainer), self.every
        every *= 1 if unit == "step" else trainer.steps
        if done // every > self.saved // every or done == self.epochs * trainer.steps:
            self.save(result, trainer)

    def save(self, result: Result, trainer: Trainer) -> None:
        """Write where the run stands; at every moment one good checkpoint has one of the two names."""
        progress = trainer.progress
        history = np.array([astuple(epoch) for epoch in result.epochs]).reshape(-1, len(fields(Epoch)))
        header = {
            "settings": _settings(result, trainer),
            "epochs": self.epochs,
            "finished": _steps_done(trainer) == self.epochs * trainer.steps,
            "progress": asdict(progress),
            "versions": result.versions,
        }
        content = to_bytes(header, trainer.state() | {"history": history})
        artifacts.write(self.folder, {NAME: content}, {NAME: PREVIOUS} if self.current else {})
        if not self.current:  # then PREVIOUS is of an earlier run, or no longer needed
            (self.folder / PREVIOUS).unlink(missing_ok=True)
        self.current, self.saved = True, _steps_done(trainer)

    def load(self, result: Result, trainer: Trainer, note: Callable[[str], None]) -> None:
        """Put the trainer and the result's epochs where the folder's run stands; without a checkpoint, only say so.

        Raises ScratchnetError where the settings differ (there may be more epochs), or every checkpoint is damaged.
        """
        failures = []
        for name in NAME, PREVIOUS:
            try:
                with open(self.folder / name, "rb") as file:
                    header = read_header(file)
                    self._compare(header, _settings(result, trainer))
                    progress = _progress(header, trainer)
                    rows = np.empty((progress.epoch - 1, len(fields(Epoch))))
                    arrays = read_arrays(file, header, trainer.state() | {"history": rows})
                    history = _epochs(arrays.pop("history"))
            except FileNotFoundError:
                continue
            except (OSError, Damaged) as error:
                failures.append(f"{name} {error}")
                continue
            result.epochs[:] = history
            trainer.restore(arrays, progress)
            self.current, self.saved = name == NAME, _steps_done(trainer)
            if failures:
                note(f"{failures[0]}: the checkpoint before it is taken")
            versions = header["versions"]
            if changed := [name for name in result.versions if versions.get(name) != result.versions[name]]:
                note(f"the checkpoint was made with another version of {', '.join(changed)}: the bits may differ")
            note(f"going on after step {self.saved:,} of {self.epochs * trainer.steps:,}")
            return
        if failures:
            raise ScratchnetError(
                f"cannot resume, as no checkpoint in {self.folder} is usable ({'; '.join(failures)}): "
                "remove them to start from the beginning, or choose another folder with --output"
            )
        note(f"no checkpoint in {self.folder}: starting from the beginning")

    def _compare(self, header: dict[str, Any], ours: dict[str, Any]) -> None:
        theirs = header["settings"]
        names = [name for name in ours if name not in theirs or theirs[name] != ours[name]]
        differences = [f"{name.replace('_', ' ')} {ours[name]} ({printable(theirs.get(name), 40)})" for name in names]
        if self.epochs < header["epochs"]:
            differences.append(f"epochs {self.epochs} ({header['epochs']})")
        if differences:
            raise ScratchnetError(
                f"cannot resume the run in {self.folder}, whose settings (in brackets) differ: "
                f"{', '.join(differences)}; give the same settings, or choose another folder with --output"
            )


def _steps_done(trainer: Trainer) -> int:
    return (trainer.progress.epoch - 1) * trainer.steps + trainer.progress.steps


def _settings(result: Result, trainer: Trainer) -> dict[str, Any]:
    """What may not change within a run; the number of epochs may grow."""
    return {name: getattr(result, name) for name in SETTINGS} | {"training_images": len(trainer.dataset.train)}


def to_bytes(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    payload = b"".join(array.tobytes() for array in arrays.values())
    described = dict(header) | {"arrays": _described(arrays), "sha256": hashlib.sha256(payload).hexdigest()}
    text = json.dumps(described, allow_nan=False).encode()
    return b"".join([MAGIC, hashlib.sha256(text).digest(), len(text).to_bytes(4, "little"), text, payload])


def read_header(file: BinaryIO) -> dict[str, Any]:
    """The header of a file that is open at its start; raises Damaged."""
    magic, digest, length = (file.read(size) for size in (len(MAGIC), 32, 4))
    if magic != MAGIC:
        raise Damaged("is no checkpoint of this version of scratchnet")
    if (size := int.from_bytes(length, "little")) > LONGEST_HEADER:
        raise Damaged(f"has a header of {size} bytes")
    text = file.read(size)
    if hashlib.sha256(text).digest() != digest:
        raise Damaged("is damaged in its header")
    try:
        header = json.loads(text)
        kinds = {"settings": dict, "versions": dict, "epochs": int, "progress": dict, "arrays": dict, "sha256": str}
        if not all(isinstance(header[name], kind) for name, kind in kinds.items()):
            raise TypeError
    except (ValueError, LookupError, TypeError, RecursionError):
        raise Damaged(FOREIGN) from None
    return header


def read_arrays(file: BinaryIO, header: Mapping[str, Any], like: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays that follow the header, which must be as those of `like`; raises Damaged."""
    size = sum(array.nbytes for array in like.values())
    there = os.fstat(file.fileno()).st_size - file.tell()
    if header["arrays"] != _described(like) or there != size:
        raise Damaged(f"has {there} bytes of arrays where this run's network needs {size}")
    payload = file.read(size)
    if hashlib.sha256(payload).hexdigest() != header["sha256"]:
        raise Damaged("is damaged in its arrays")
    arrays, start = {}, 0
    for name, array in like.items():
        arrays[name] = np.ndarray(array.shape, array.dtype, payload, start)
        start += array.nbytes
    return arrays


def _described(arrays: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
    return {name: [array.dtype.str, *array.shape] for name, array in arrays.items()}


def _progress(header: Mapping[str, Any], trainer: Trainer) -> Progress:
    try:
        progress = Progress(**header["progress"])
        possible = (
            all(type(getattr(progress, each.name)) is each.type for each in fields(Progress))
            and 1 <= progress.epoch <= header["epochs"]
            and 1 <= progress.steps <= trainer.steps
            and 0 <= progress.correct <= progress.steps * trainer.batch_size
            and isfinite(progress.loss)
            and 0 <= progress.seconds < float("inf")
        )
    except TypeError:
        possible = False
    if not possible:
        raise Damaged(FOREIGN)
    return progress


def _epochs(history: np.ndarray) -> list[Epoch]:
    if not np.isfinite(history).all() or (history[:, 0] != np.arange(1, len(history) + 1)).any():
        raise Damaged(FOREIGN)
    return [Epoch(int(number), *figures) for number, *figures in history.tolist()]
