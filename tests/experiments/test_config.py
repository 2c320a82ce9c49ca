"""What can be configured, and the sentence for what cannot."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scratchnet.experiments import configure
from scratchnet.heads import GumbelSoftmaxCrossEntropy, SoftmaxCrossEntropy
from tests.training.problem import dataset

DATASET = dataset()


def test_output_is_named_after_recipe_head_and_seed() -> None:
    assert configure("valid-padding", "gumbel", seed=7).output == Path("runs/valid-padding-gumbel-seed7")
    assert configure(output=Path("here")).output == Path("here")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"recipe": "full-padding"},
            "recipe is 'full-padding' where 'same-padding' or 'valid-padding' or 'transformer' or",
        ),
        ({"head": "sigmoid"}, "head is 'sigmoid' where 'softmax' or 'gumbel' or 'two-level' or 'sampled' is wanted"),
        ({"device": "tpu"}, "device is 'tpu' where 'auto' or 'cpu' or 'gpu' is wanted"),
        ({"epochs": 0}, "epochs is 0 where a positive integer is wanted"),
        ({"epochs": 1.5}, "epochs is 1.5 where a positive integer is wanted"),
        ({"batch_size": 0}, "batch_size is 0 where a positive integer is wanted"),
        ({"batch_size": -4}, "batch_size is -4 where a positive integer is wanted"),
        ({"workers": 0}, "workers is 0 where a positive integer is wanted"),
        ({"precision": "half"}, "precision is 'half' where 'fp32' or 'tf32' is wanted"),
        ({"device": "cpu", "precision": "fp32"}, "device 'cpu' has none: leave precision out"),
        ({"device": "gpu", "workers": 2}, "device 'gpu' takes one: leave workers out"),
        ({"seed": -1}, "seed is -1 where an integer from 0 to 2^63 - 1 is wanted"),
        ({"seed": 2**63}, "seed is 9223372036854775808 where"),
        ({"seed": 0.5}, "seed is 0.5 where"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0 where a positive, finite number is wanted"),
        ({"learning_rate": float("nan")}, "learning_rate is nan where"),
        ({"learning_rate": float("inf")}, "learning_rate is inf where"),
        ({"head": "softmax", "temperature": 1.0}, "temperature has no meaning with head 'softmax': leave it out"),
        ({"head": "gumbel", "temperature": 0.0}, "temperature is 0.0 where a positive, finite number is wanted"),
        ({"head": "gumbel", "temperature": -1.0}, "temperature is -1.0 where"),
        ({"head": "gumbel", "temperature": float("nan")}, "temperature is nan where"),
        ({"head": "gumbel", "temperature": "warm"}, "temperature is 'warm' where"),
    ],
)
def test_impossible_setting_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        configure(**settings)


def test_heads() -> None:
    assert type(configure().settings.make_head(DATASET)) is SoftmaxCrossEntropy
    gumbel = configure("valid-padding", "gumbel", seed=5).settings.make_head(DATASET)
    assert isinstance(gumbel, GumbelSoftmaxCrossEntropy)
    assert gumbel.seed == 5
    assert gumbel.temperature_at(10_000) == 1.0


@pytest.mark.parametrize(
    ("step", "temperature"), [(0, 1.0), (1000, np.exp(-0.1)), (6931, np.exp(-0.6931)), (6932, 0.5)]
)
def test_annealed_temperature(step: int, temperature: float) -> None:
    head = configure(head="gumbel", temperature="anneal").settings.make_head(DATASET)
    assert isinstance(head, GumbelSoftmaxCrossEntropy)
    assert head.temperature_at(step) == pytest.approx(temperature, rel=1e-12)


def test_departures_from_the_report() -> None:
    config = configure(
        "valid-padding", "gumbel", epochs=3, batch_size=64, learning_rate=1e-2, temperature="anneal", seed=4
    )
    assert config.settings.departures() == [
        "epochs 3 (30)",
        "batch size 64 (32)",
        "learning rate 0.01 (0.001)",
        "temperature anneal (1.0)",
    ]


def test_a_head_is_given_what_its_constructor_takes(third_head: str) -> None:
    settings = configure(head=third_head).settings
    assert (settings.temperature, settings.epochs, settings.report) == (None, 10, None)
    assert settings.departures() == []
    head = settings.make_head(DATASET)
    assert head.classes == DATASET.num_classes
    assert head.superclasses is DATASET.superclasses


def test_a_temperature_is_refused_for_every_head_without_one(third_head: str) -> None:
    with pytest.raises(ValueError, match=r"no meaning with head 'third': leave it out, or choose head 'gumbel'$"):
        configure(head=third_head, temperature=0.5)


def test_an_unknown_setting_is_an_error() -> None:
    with pytest.raises(TypeError, match="colour"):
        configure(colour="red")


def test_what_is_none_is_as_in_the_report() -> None:
    nothing = dict.fromkeys(["temperature", "seed", "epochs", "batch_size", "learning_rate", "device", "data"])
    assert configure("valid-padding", "gumbel", **nothing) == configure("valid-padding", "gumbel")
