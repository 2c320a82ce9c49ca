"""The recipes are the reports' listings: every shape and number of parameters they state."""

from math import isnan, prod
from typing import Any

import pytest

from scratchnet.experiments import RECIPES, Report, configure
from scratchnet.experiments.recipes import REPORTED

LISTINGS = {
    "same-padding": (
        [(32, 32, 32), (16, 16, 32), (16, 16, 64), (8, 8, 64), (8, 8, 128), (4, 4, 128), (2048,), (256,), (100,)],
        [896, 18_496, 73_856, 524_544, 25_700],
    ),
    "valid-padding": (
        [(30, 30, 30), (15, 15, 30), (13, 13, 70), (6, 6, 70), (4, 4, 160), (2560,), (64,), (100,)],
        [840, 18_970, 100_960, 163_904, 6_500],
    ),
}


@pytest.mark.parametrize("name", REPORTED)
def test_network_has_the_shapes_and_parameters_of_the_report(name: str) -> None:
    shapes, counts = LISTINGS[name]
    network = RECIPES[name].network(100)
    assert not network.built
    network.build((32, 32, 3), seed=0)
    assert [layer.output_shape for layer in network.layers if type(layer).__name__ != "ReLU"] == shapes
    parameters = [sum(map(prod, layer.shapes.values())) for layer in network.layers if layer.shapes]
    assert parameters == counts
    assert network.count_parameters() == sum(counts) == {"same-padding": 643_492, "valid-padding": 291_174}[name]


# Of the transformer's parts: the convolutions, the dense layer in front of the block, and in the block attention
# (query, key and value, and the output), two normalisations and the feed-forward.
CONVOLUTIONS, NORMAL, FEED = [896, 18_496], 256, [16_512, 16_512]
BLOCKS = {
    "transformer": [4096 * 128 + 128, 3 * (128 * 1024 + 1024) + 1024 * 128 + 128, NORMAL, *FEED, NORMAL],
    "transformer-without-block": [4096 * 128 + 128],
    "transformer-linear": [4096 * 128 + 128, 16_512, NORMAL, *FEED, NORMAL],
    "transformer-tokens": [64 * 128 + 128, 64 * 128, 4 * 16_512, NORMAL, *FEED, NORMAL],
    "transformer-tokens-gumbel": [64 * 128 + 128, 64 * 128, 4 * 16_512, NORMAL, *FEED, NORMAL],
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_transformer_has_the_parameters_of_its_parts(name: str) -> None:
    network = RECIPES[name].network(100)
    network.build((32, 32, 3))
    counts = [layer.count_parameters() for layer in network.leaves if layer.shapes]
    assert counts == [*CONVOLUTIONS, *BLOCKS[name], 12_900]
    settings = configure(name, "gumbel").settings
    assert (settings.epochs, settings.batch_size, settings.temperature) == (10, 128, 0.5)
    assert set(RECIPES) == {*REPORTED, *BLOCKS}


def test_the_seed_is_the_dropouts_too() -> None:
    for name in BLOCKS:
        leaves = [leaf for leaf in _leaves(RECIPES[name].network(100, seed=7)) if hasattr(leaf, "seed")]
        assert all(leaf.seed == 7 for leaf in leaves)
        assert bool(leaves) == (name != "transformer-without-block")


def _leaves(module: Any) -> list[Any]:
    return [leaf for layer in module.layers for leaf in _leaves(layer)] if hasattr(module, "layers") else [module]


def test_networks_share_no_layer() -> None:
    first, second = RECIPES["same-padding"].network(100), RECIPES["same-padding"].network(10)
    assert not set(map(id, first.layers)) & set(map(id, second.layers))


@pytest.mark.parametrize("name", REPORTED)
def test_relu_follows_every_layer_with_parameters_but_the_last(name: str) -> None:
    kinds = [type(layer).__name__ for layer in RECIPES[name].network(100).layers]
    weighty = [index for index, kind in enumerate(kinds) if kind in ("Conv2D", "Dense")]
    assert [kinds[index + 1] for index in weighty[:-1]] == ["ReLU"] * 4
    assert weighty[-1] == len(kinds) - 1


@pytest.mark.parametrize(
    ("recipe", "head", "epochs", "batch_size", "temperature"),
    [
        ("same-padding", "softmax", 10, 64, None),
        ("same-padding", "gumbel", 10, 64, 0.5),
        ("valid-padding", "softmax", 10, 32, None),
        ("valid-padding", "gumbel", 30, 32, 1.0),
    ],
)
def test_settings_are_those_of_the_report(
    recipe: str, head: str, epochs: int, batch_size: int, temperature: float | None
) -> None:
    settings = configure(recipe, head).settings
    assert (settings.epochs, settings.batch_size, settings.temperature) == (epochs, batch_size, temperature)
    assert settings.learning_rate == 1e-3
    assert settings.departures() == []


@pytest.mark.parametrize("report", [report for recipe in RECIPES.values() for report in recipe.reports.values()])
def test_curves_end_at_the_last_epoch_with_the_final_accuracy(report: Report) -> None:
    curves = report.train_loss, report.train_accuracy, report.test_loss, report.test_accuracy
    assert {report.first_epoch + len(curve) - 1 for curve in curves} == {report.epochs}
    assert report.test_accuracy[-1] == report.accuracy
    assert all(0 < value < 1 for curve in curves[1::2] for value in curve)
    assert sum(isnan(value) for curve in curves for value in curve) == (2 if report.noisy_prediction else 0)


def test_only_the_second_report_left_the_noise_on_at_evaluation() -> None:
    noisy = [
        (name, head)
        for name, recipe in RECIPES.items()
        for head in recipe.reports
        if recipe.reports[head].noisy_prediction
    ]
    assert noisy == [("valid-padding", "gumbel")]
