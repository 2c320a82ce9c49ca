"""Checkpoints: all that a run needs to go on with the same bits, in one safetensors file.

The header is a `Checkpoint`; it and the arrays have a SHA-256 each. Nothing is read before its size is known to be what
this run's network needs.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass

import numpy as np

from scratchnet.errors import ScratchnetError
from scratchnet.experiments import artifacts
from scratchnet.experiments.config import Config, differences
from scratchnet.experiments.reading import Damaged, read_tensors
from scratchnet.experiments.result import Metrics, Result
from scratchnet.training import Progress, Trainer

NAME, PREVIOUS = "checkpoint.scratchnet", "checkpoint.previous.scratchnet"


@dataclass(frozen=True)
class Checkpoint:
    """The epochs that a run has done, and how far it is in the next one."""

    metrics: Metrics
    progress: Progress
    finished: bool

    def possible_for(self, trainer: Trainer) -> bool:
        """Whether this trainer may come there; that all numbers are finite, its reader has seen to."""
        progress = self.progress
        return (
            progress.epoch == len(self.metrics.epochs) + 1 <= self.metrics.settings.epochs
            and 1 <= progress.steps <= trainer.steps
            and 0 <= progress.correct <= progress.steps * trainer.batch_size
            and progress.seconds >= 0
        )


class Checkpoints:
    """The checkpoints of a run's folder: the newest, NAME, and the one before it, for the case that it is damaged."""

    def __init__(self, config: Config) -> None:
        self.folder, self.epochs, self.every = config.output, config.settings.epochs, config.checkpoint_every
        self.current = False  # whether NAME is a good one of this run
        self.saved = 0  # steps

    def unfinished(self) -> bool:
        """Whether the folder holds a run that has not come to its end."""
        for name in NAME, PREVIOUS:
            with suppress(Damaged):
                checkpoint, _ = read_tensors(self.folder / name, Checkpoint)
                return not checkpoint.finished
        return False

    def save_if_due(self, result: Result, trainer: Trainer) -> None:
        """Save as often as the configuration asks for it, and at the end of the run."""
        done, (every, unit) = _steps_done(trainer), self.every
        every *= 1 if unit == "step" else trainer.steps
        if done // every > self.saved // every or done == self.epochs * trainer.steps:
            self.save(result, trainer)

    def save(self, result: Result, trainer: Trainer) -> None:
        """Write where the run stands; at every moment one good checkpoint has one of the two names."""
        finished = _steps_done(trainer) == self.epochs * trainer.steps
        content = artifacts.tensors(Checkpoint(result.metrics, trainer.progress, finished), trainer.state())
        artifacts.write(self.folder, {NAME: content}, {NAME: PREVIOUS} if self.current else {})
        if not self.current:  # then PREVIOUS is of an earlier run, or no longer needed
            (self.folder / PREVIOUS).unlink(missing_ok=True)
        self.current, self.saved = True, _steps_done(trainer)

    def load(self, result: Result, trainer: Trainer, note: Callable[[str], None]) -> None:
        """Put the trainer and the result's epochs where the folder's run stands; without a checkpoint, only say so.

        Raises ScratchnetError where the settings differ (there may be more epochs), or every checkpoint is damaged.
        """
        state, failures = trainer.state(), []

        def room(checkpoint: Checkpoint) -> int:
            ours, theirs = asdict(result.settings), asdict(checkpoint.metrics.settings)
            theirs["epochs"] = max(theirs["epochs"], ours["epochs"])  # there may be more of them
            if differing := differences(ours, theirs):
                raise ScratchnetError(
                    f"cannot resume the run in {self.folder}, whose settings (in brackets) differ: "
                    f"{', '.join(differing)}; give the same settings, or choose another folder with --output"
                )
            return sum(array.nbytes for array in state.values())

        for name in NAME, PREVIOUS:
            if not (self.folder / name).exists():
                continue
            try:
                checkpoint, arrays = read_tensors(self.folder / name, Checkpoint, room)
                if _described(arrays) != _described(state) or not checkpoint.possible_for(trainer):
                    raise Damaged(self.folder / name, "it has a content that scratchnet did not write for this run")
            except Damaged as error:
                failures.append(f"{name}: {error.reason}")
                continue
            result.epochs[:] = checkpoint.metrics.epochs
            trainer.restore(arrays, checkpoint.progress)
            self.current, self.saved = name == NAME, _steps_done(trainer)
            if failures:
                note(f"{failures[0]}: the checkpoint before it is taken")
            versions = checkpoint.metrics.versions
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


def _steps_done(trainer: Trainer) -> int:
    return (trainer.progress.epoch - 1) * trainer.steps + trainer.progress.steps


def _described(arrays: dict[str, np.ndarray]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (array.dtype.str, array.shape) for name, array in arrays.items()}
