"""What one experiment is to do: a recipe, a head, and settings whose defaults are the report's."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scratchnet.arguments import is_integer, one_of, positive_integer, positive_number
from scratchnet.experiments.published import Report
from scratchnet.experiments.recipes import LEARNING_RATE, RECIPES, Recipe
from scratchnet.heads import AnnealedTemperature, GumbelSoftmaxCrossEntropy, SoftmaxCrossEntropy

HEADS = "softmax", "gumbel"
DEVICES = "auto", "cpu", "gpu"
PRECISIONS = "fp32", "tf32"
ANNEAL: Literal["anneal"] = "anneal"
SEEDS = 2**63
Temperature = float | Literal["anneal"]


@dataclass(frozen=True)
class Config:
    """The settings of one experiment, all of them known; `configure` fills in and checks."""

    recipe: Recipe
    head: str
    temperature: Temperature | None
    seed: int
    device: str
    precision: str | None
    data: str
    epochs: int
    batch_size: int
    learning_rate: float
    workers: int | None
    output: Path
    checkpoint_every: tuple[int, str]
    resume: bool

    @property
    def report(self) -> Report:
        """What was published for this recipe and head."""
        return self.recipe.reports[self.head]

    def make_head(self) -> SoftmaxCrossEntropy:
        if self.temperature is None:
            return SoftmaxCrossEntropy()
        temperature = AnnealedTemperature() if isinstance(self.temperature, str) else self.temperature
        return GumbelSoftmaxCrossEntropy(temperature=temperature, seed=self.seed)

    def departures(self) -> list[str]:
        """The settings that differ from the report's, as "name ours (theirs)"."""
        theirs = configure(self.recipe.name, self.head)
        names = "epochs", "batch_size", "learning_rate", "temperature"
        pairs = ((name.replace("_", " "), getattr(self, name), getattr(theirs, name)) for name in names)
        return [f"{name} {ours} ({published})" for name, ours, published in pairs if ours != published]


def configure(
    recipe: str = "same-padding",
    head: str = "softmax",
    *,
    temperature: Temperature | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str | None = None,
    data: str = "auto",
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float = LEARNING_RATE,
    workers: int | None = None,
    output: Path | None = None,
    checkpoint_every: int | str = 1,
    resume: bool = False,
) -> Config:
    """The experiment with the report's settings where none is given; ValueError names a setting that cannot be.

    `temperature` is a positive number or "anneal": max(0.5, exp(-1e-4 step)), from Jang, Gu and Poole (2016).
    `precision` is that of a GPU's float32 products, None for the GPU's default. `checkpoint_every` is a number of
    epochs, such as 2 or "2epochs", or of steps, such as "500steps"; with `resume` the run in the folder goes on.
    """
    owner = "experiment"
    chosen = RECIPES[one_of(recipe, tuple(RECIPES), "recipe", owner)]
    one_of(head, HEADS, "head", owner)
    one_of(device, DEVICES, "device", owner)
    if not is_integer(seed) or not 0 <= seed < SEEDS:
        raise ValueError(f"{owner}: seed is {seed!r} where an integer from 0 to {SEEDS - 1} is wanted")
    if head == "softmax" and temperature is not None:
        raise ValueError(
            f"{owner}: temperature has no meaning with head 'softmax': leave it out, or choose head 'gumbel'"
        )
    if device == "gpu" and workers not in (None, 1):
        raise ValueError(f"{owner}: workers share the work of a CPU, and device 'gpu' takes one: leave workers out")
    if precision is not None:
        one_of(precision, PRECISIONS, "precision", owner)
        if device == "cpu":
            raise ValueError(f"{owner}: precision is a GPU's choice, and device 'cpu' has none: leave precision out")
    if head == "gumbel" and temperature is None:
        temperature = chosen.temperature
    elif temperature not in (None, ANNEAL):
        temperature = positive_number(temperature, "temperature", owner)
    epochs = chosen.reports[head].epochs if epochs is None else epochs
    batch_size = chosen.batch_size if batch_size is None else batch_size
    return Config(
        recipe=chosen,
        head=head,
        temperature=temperature,
        seed=seed,
        device=device,
        precision=precision,
        data=data,
        epochs=positive_integer(epochs, "epochs", owner),
        batch_size=positive_integer(batch_size, "batch_size", owner),
        learning_rate=positive_number(learning_rate, "learning_rate", owner),
        workers=None if workers is None else positive_integer(workers, "workers", owner),
        output=output or Path("runs", f"{recipe}-{head}-seed{seed}"),
        checkpoint_every=_interval(checkpoint_every, owner),
        resume=resume,
    )


def _interval(text: int | str, owner: str) -> tuple[int, str]:
    """"500steps" as (500, "steps"); a number alone is of epochs."""
    match = re.fullmatch(r"([1-9][0-9]{0,17})(?:(step|epoch)s?)?", str(text), re.ASCII)
    if match is None:
        raise ValueError(
            f"{owner}: checkpoint_every is {text!r} where a number of epochs such as 2, or of steps such as 500steps, "
            "is wanted"
        )
    return int(match[1]), match[2] or "epoch"
