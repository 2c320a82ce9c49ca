"""Results of runs that were never done: logits drawn so that their accuracy is known to differ, or not to."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from scratchnet.experiments import Result
from scratchnet.experiments.config import Settings, Temperature
from scratchnet.experiments.metrics import evaluate
from scratchnet.experiments.result import Epoch, Names, Predictions

IMAGES = 1000
WICKED = "<b>&|_`*"  # the name of a class that must not be taken for markup


def result(
    head: str = "softmax",
    seed: int = 0,
    *,
    recipe: str = "same-padding",
    temperature: Temperature | None = None,
    skill: float = 2.0,
    classes: int = 100,
    epochs: int | None = None,
) -> Result:
    """A finished run, of cifar100 where there are 100 classes; `skill` is added to the logits of the right ones."""
    cifar = classes == 100
    random = np.random.default_rng([seed, len(recipe)])  # the same for both heads
    labels = np.random.default_rng(0).integers(0, classes, IMAGES)
    logits = random.standard_normal((IMAGES, classes)).astype(np.float32)
    logits[np.arange(IMAGES), labels] += skill + 0.01 * np.random.default_rng([seed, len(head)]).standard_normal()
    names = [f"class_{index}" for index in range(classes - 1)] + [WICKED]
    superclasses = np.arange(100) % 20 if cifar else np.empty(0, np.int64)
    supernames = [f"group_{index}" for index in range(20)] if cifar else []
    evaluation = evaluate(logits, labels, random.gumbel(size=logits.shape))
    final, settings = evaluation.figures, Settings.of_report(recipe, head)
    settings = replace(
        settings,
        temperature=settings.temperature if temperature is None else temperature,
        seed=seed,
        epochs=epochs or settings.epochs,
        device="cpu",
        precision="fp32",
        workers=2,
        data="cifar100" if cifar else "digits",
    )
    accuracy, sampled, count = final["accuracy"], final["accuracy_sampled"], settings.epochs
    history = [
        Epoch(e, 9.0 + e, 1.0, 0.5, evaluation.loss, accuracy * e / count, sampled * e / count)
        for e in range(1, count + 1)
    ]
    return Result(
        settings,
        versions={"python": "3.x", "platform": "made up"},
        epochs=history,
        final=final,
        predictions=Predictions(Names(names, supernames), logits, labels, superclasses),
    )


def study(seeds: int = 3, **settings: Any) -> list[Result]:
    """Both heads of a recipe."""
    return [result(head, seed, **settings) for head in ("softmax", "gumbel") for seed in range(seeds)]


def temperatures(seeds: int = 3, others: Sequence[Temperature] = (0.1, 1.0, 2.0, "anneal")) -> list[Result]:
    return [
        result("gumbel", seed, temperature=other, skill=1.5 + 0.1 * index)
        for index, other in enumerate(others)
        for seed in range(seeds)
    ]
