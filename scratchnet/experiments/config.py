"""What one experiment is to do: a recipe, a head, and settings whose defaults are the report's."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any, Literal

from scratchnet import arguments
from scratchnet.arguments import one_of, positive_integer, positive_number
from scratchnet.data import Dataset
from scratchnet.errors import ScratchnetError
from scratchnet.experiments.published import Report
from scratchnet.experiments.reading import printable
from scratchnet.experiments.recipes import EPOCHS, LEARNING_RATE, RECIPES, Recipe
from scratchnet.heads import HEADS, AnnealedTemperature

DEVICES = "auto", "cpu", "gpu"
PRECISIONS = "fp32", "tf32"
ANNEAL: Literal["anneal"] = "anneal"
Temperature = float | Literal["anneal"]
FOUND = "device", "precision", "workers", "data", "data_digest", "training_images"  # what a run may find out for itself
REPORTED = "epochs", "batch_size", "learning_rate", "temperature"  # what the reports tell of their settings
SAMPLES = 64  # of the sampled softmax
OWNER = "experiment"


@dataclass(frozen=True)
class Settings:
    """All that decides the figures of an experiment; ValueError names a setting that cannot be.

    `temperature` is None for a head that has none; so is `samples`, where None else means 64, or all classes if fewer.
    As wishes, `device` and `data` may be "auto", `data` a path, and `precision` and `workers` None. In a result they
    are what was found: `data` is the name of the data set then, with the number of its `training_images`, and
    `data_digest` names its content, where that is known.
    """

    recipe: str
    head: str
    temperature: Temperature | None
    seed: int
    epochs: int
    batch_size: int
    learning_rate: float
    device: str = "auto"
    precision: str | None = None
    workers: int | None = None
    data: str = "auto"
    data_digest: str = ""
    training_images: int = 0
    samples: int | None = None

    @classmethod
    def of_report(cls, recipe: str, head: str) -> "Settings":
        """Those with which a report trained this head in this recipe, or would have."""
        chosen = _recipe(recipe)
        temperature = chosen.temperature if "temperature" in parameters(head) else None
        epochs = chosen.reports[head].epochs if head in chosen.reports else EPOCHS
        return cls(recipe, head, temperature, 0, epochs, chosen.batch_size, LEARNING_RATE)

    def __post_init__(self) -> None:
        _recipe(self.recipe)
        one_of(self.device, DEVICES, "device", OWNER)
        for name in "temperature", "samples":
            if getattr(self, name) is not None and name not in parameters(self.head):
                others = " or ".join(repr(head) for head in HEADS if name in parameters(head))
                raise ValueError(
                    f"{OWNER}: {name} has no meaning with head {self.head!r}: leave it out, or choose head {others}"
                )
        temperature: Any = self.temperature
        if "temperature" in parameters(self.head) and temperature != ANNEAL:
            temperature = positive_number(temperature, "temperature", OWNER)
        if self.precision is not None:
            one_of(self.precision, PRECISIONS, "precision", OWNER)
        vars(self).update(
            temperature=temperature,
            seed=arguments.seed(self.seed, OWNER),
            epochs=positive_integer(self.epochs, "epochs", OWNER),
            batch_size=positive_integer(self.batch_size, "batch_size", OWNER),
            learning_rate=positive_number(self.learning_rate, "learning_rate", OWNER),
            workers=None if self.workers is None else positive_integer(self.workers, "workers", OWNER),
            samples=None if self.samples is None else positive_integer(self.samples, "samples", OWNER),
        )

    @property
    def report(self) -> Report | None:
        """What was published for this recipe and head."""
        return _recipe(self.recipe).reports.get(self.head)

    def departures(self) -> list[str]:
        """The settings that differ from the report's, as "name ours (theirs)"."""
        theirs = asdict(Settings.of_report(self.recipe, self.head))
        return differences({name: getattr(self, name) for name in REPORTED}, theirs)

    def make_head(self, dataset: Dataset) -> Any:
        """The head, built with those of the values below that its constructor takes."""
        values = {
            "temperature": AnnealedTemperature() if self.temperature == ANNEAL else self.temperature,
            "seed": self.seed,
            "classes": dataset.num_classes,
            "superclasses": dataset.superclasses,
            "samples": self.samples or min(SAMPLES, dataset.num_classes),
        }
        taken = parameters(self.head)
        try:
            return HEADS[self.head](**{name: value for name, value in values.items() if name in taken})
        except ValueError as error:  # of what could not be known before the data was
            raise ScratchnetError(str(error)) from error


@dataclass(frozen=True)
class Config:
    """An experiment's settings, and how to go about it; `configure` makes one."""

    settings: Settings
    output: Path
    checkpoint_every: tuple[int, str]
    resume: bool


def configure(
    recipe: str = "same-padding",
    head: str = "softmax",
    *,
    output: Path | None = None,
    checkpoint_every: int | str = 1,
    resume: bool = False,
    **settings: Any,
) -> Config:
    """The experiment with the report's settings where none is given, or None; ValueError names one that cannot be.

    `settings` are the fields of `Settings`. `temperature` is a positive number or "anneal": max(0.5, exp(-1e-4 step)),
    from Jang, Gu and Poole (2016). `precision` is that of a GPU's float32 products, None for the GPU's default.
    `checkpoint_every` is a number of epochs, such as 2 or "2epochs", or of steps, such as "500steps"; with `resume` the
    run in the folder goes on.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    chosen = replace(Settings.of_report(recipe, head), **given)
    if chosen.device == "gpu" and chosen.workers not in (None, 1):
        raise ValueError(f"{OWNER}: workers share the work of a CPU, and device 'gpu' takes one: leave workers out")
    if chosen.device == "cpu" and chosen.precision is not None:
        raise ValueError(f"{OWNER}: precision is a GPU's choice, and device 'cpu' has none: leave precision out")
    folder = output or Path("runs", f"{recipe}-{head}-seed{chosen.seed}")
    return Config(chosen, folder, _interval(checkpoint_every), resume)


def parameters(head: str) -> Mapping[str, Any]:
    """What the constructor of a head takes, by name."""
    return signature(HEADS[one_of(head, tuple(HEADS), "head", OWNER)]).parameters


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """The settings among ours that are others than theirs, as "name ours (theirs)"."""
    return [
        f"{name.replace('_', ' ')} {printable(value, 40)} ({printable(theirs.get(name), 40)})"
        for name, value in ours.items()
        if name not in theirs or theirs[name] != value
    ]


def _recipe(name: str) -> Recipe:
    return RECIPES[one_of(name, tuple(RECIPES), "recipe", OWNER)]


def _interval(text: int | str) -> tuple[int, str]:
    """ "500steps" as (500, "steps"); a number alone is of epochs."""
    match = re.fullmatch(r"([1-9][0-9]{0,17})(?:(step|epoch)s?)?", str(text), re.ASCII)
    if match is None:
        raise ValueError(
            f"{OWNER}: checkpoint_every is {text!r} where a number of epochs such as 2, or of steps such as 500steps, "
            "is wanted"
        )
    return int(match[1]), match[2] or "epoch"
