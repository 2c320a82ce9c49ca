"""A plan: which layers work as one, what is left out of the way back, and what it says of itself."""

import re
from typing import Any

import numpy as np
import pytest

from scratchnet import (
    AveragePooling2D,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    MaxPooling2D,
    Parallel,
    ReLU,
    Residual,
    Sequential,
)
from scratchnet.backend import Memory, whole
from tests.layers.catalogue import backward, forward
from tests.reference.checks import assert_close, gradients_of, randomize
from tests.reference.layers import STEP

C, R, M = (lambda: Conv2D(4, 3, padding="same")), ReLU, MaxPooling2D


class Leaky(ReLU):
    """Another type than the table's."""


FUSED: dict[str, tuple[Any, list[str]]] = {
    "all three": (lambda: [C(), R(), M()], ["conv2d + re_lu + max_pooling2d"]),
    "through a nested network": (lambda: [Sequential([C()]), Sequential([Sequential([R()]), M()])],
                                 ["conv2d + re_lu + max_pooling2d"]),
    "two and two": (lambda: [C(), R(), C(), R(), R()], ["conv2d + re_lu", "conv2d_1 + re_lu_1", "re_lu_2"]),
    "a pooling that does not halve": (lambda: [C(), R(), M(3, strides=2)], ["conv2d + re_lu", "max_pooling2d"]),
    "a pooling with padding": (lambda: [C(), R(), M(2, padding="same")], ["conv2d + re_lu", "max_pooling2d"]),
    "no ReLU": (lambda: [C(), M()], ["conv2d", "max_pooling2d"]),
    "another pooling": (lambda: [C(), R(), AveragePooling2D()], ["conv2d + re_lu", "average_pooling2d"]),
    "another type": (lambda: [C(), Leaky(), M()], ["conv2d", "leaky", "max_pooling2d"]),
    "something between": (lambda: [C(), Dropout(0.0), R()], ["conv2d", "dropout", "re_lu"]),
    "a fork between": (lambda: [C(), Residual([R()])], ["conv2d", "fork", "re_lu", "add"]),
    "a fork after the ReLU": (lambda: [C(), R(), Parallel([M(), M()])],
                              ["conv2d + re_lu", "fork", "max_pooling2d", "max_pooling2d_1", "concatenate"]),
    "a sum between": (lambda: [C(), Residual([C()]), R()], ["conv2d", "fork", "conv2d_1", "add", "re_lu"]),
    "inside each branch": (lambda: [Parallel([[C(), R(), M()], [C(), R(), AveragePooling2D()]], "add")],
                           ["fork", "conv2d + re_lu + max_pooling2d", "conv2d_1 + re_lu_1", "average_pooling2d",
                            "add"]),
}  # fmt: skip


@pytest.mark.parametrize("case", FUSED)
def test_layers_work_as_one_where_nobody_else_reads_between(case: str) -> None:
    make, expected = FUSED[case]
    rng, network = np.random.default_rng(0), Sequential(make())
    network.build((7, 8, 4), dtype="float64")
    randomize(network, rng)
    assert [" + ".join((twin.name, *(one.name for one in twin.fused))) for twin, _ in network.plan(2).nodes] == expected
    x = rng.normal(size=(2, 7, 8, 4))
    network.clock.step = STEP
    y = network.forward(x, training=True)
    dy = rng.normal(size=y.shape)
    dx = network.backward(dy)
    if "leaky" not in expected:
        assert_close(y, forward(network, x), 1e-10)
        for ours, wanted in zip([dx, *gradients_of(network)], backward(network, x, dy), strict=True):
            assert_close(ours, wanted, 1e-10)
    apart = network.bind(whole(2), Memory(network.device, network.dtype), fuse=False)
    assert [twin.name for twin, _ in apart.nodes] == [layer.name for layer in network.leaves]
    apart.x[...], network.clock.step = x, STEP
    apart.memory.record.load()
    apart.compute(training=True)
    assert_close(apart.y, y, 1e-12)


def lines(plan: Any) -> list[str]:
    printed: list[str] = []
    plan.summary(printed.append)
    return printed


def test_it_prints_its_nodes_with_what_they_read_who_works_and_the_bytes() -> None:
    block = Residual([Conv2D(16, 3, padding="same"), ReLU()], [Conv2D(16, 1)])
    network = Sequential([Conv2D(16, 5), ReLU(), block, MaxPooling2D(), Flatten(), Dense(10)])
    with pytest.raises(RuntimeError, match=r"sequential: plan needs the shapes: call build\(input_shape\) first"):
        network.plan(8)
    network.build((12, 12, 3))
    network.layers[0].trainable = False
    plan = network.bind(whole(8), Memory(network.device, network.dtype), input_gradient=False)
    title, header, line, *rows, end, total = lines(plan)
    assert title == 'Plan of "sequential" for 8 rows of 8 on cpu'
    assert re.split(r"\s{2,}", header.strip()) == ["Node", "Reads", "Writes", "Work", "Back", "Bytes"]
    assert set(line) == set(end) == {"="}
    cells = [re.split(r"\s{2,}", row.strip()) for row in rows]
    assert [row[:5] for row in cells] == [
        ["conv2d + re_lu", "input (12, 12, 3)", "(8, 8, 16)", "Im2col", "no"],
        ["fork", "conv2d (8, 8, 16)", "(8, 8, 16)", "Fork", "no"],
        ["conv2d_1 + re_lu_1", "fork (8, 8, 16)", "(8, 8, 16)", "Winograd", "dw only"],
        ["conv2d_2", "fork (8, 8, 16)", "(8, 8, 16)", "Im2col", "dw only"],
        ["add", "conv2d_1 (8, 8, 16), conv2d_2 (8, 8, 16)", "(8, 8, 16)", "Add", "yes"],
        ["max_pooling2d", "add (8, 8, 16)", "(4, 4, 16)", "MaxPooling2D", "yes"],
        ["flatten", "max_pooling2d (4, 4, 16)", "(256,)", "Flatten", "yes"],
        ["dense", "flatten (256,)", "(10,)", "Dense", "yes"],
    ]  # fmt: skip
    by_node = [int(row[5].replace(",", "")) for row in cells]
    dense = 8 * 256 * 4 + 8 * 256 * 4 + 8 * 10 * 4  # x, dx, and dy by feature
    ends = 2 * 8 * 10 * 4  # y and dy, which belong to no layer
    assert by_node[-1] == dense
    assert total == f"Buffers: {sum(by_node) + ends:,} bytes"


def test_a_plan_is_for_a_number_of_images() -> None:
    network = Sequential([Dense(4)])
    network.build((3,))
    with pytest.raises(ValueError, match="sequential: batch is 0 where a positive integer is wanted"):
        network.plan(0)
