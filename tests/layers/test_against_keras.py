"""Layers that are to be Keras's, beside an installed Keras: the same values in float64."""

from typing import Any

import numpy as np
import pytest

from scratchnet import layers
from tests.reference.checks import assert_close, parameters_of, randomize

keras = pytest.importorskip("keras", reason="keras is not installed")

CASES: dict[str, tuple[Any, Any, tuple[int, ...]]] = {
    "dense": (lambda: layers.Dense(4), lambda of: of.Dense(4, dtype="float64"), (7,)),
    "dense of tokens": (lambda: layers.Dense(4), lambda of: of.Dense(4, dtype="float64"), (5, 6)),
    "reshape": (lambda: layers.Reshape((-1, 6)), lambda of: of.Reshape((-1, 6), dtype="float64"), (4, 3, 6)),
    "layer_normalization": (layers.LayerNormalization, lambda of: of.LayerNormalization(dtype="float64"), (5, 6)),
    "layer_normalization with an epsilon": (
        lambda: layers.LayerNormalization(1e-6),
        lambda of: of.LayerNormalization(epsilon=1e-6, dtype="float64"),
        (5, 6),
    ),
    "gelu": (layers.GELU, lambda of: of.Activation(keras.activations.gelu, dtype="float64"), (5, 6)),
    "gelu approximate": (
        lambda: layers.GELU(approximate=True),
        lambda of: of.Activation(lambda x: keras.activations.gelu(x, approximate=True), dtype="float64"),
        (5, 6),
    ),
    "global_average_pooling1d": (
        layers.GlobalAveragePooling1D,
        lambda of: of.GlobalAveragePooling1D(dtype="float64"),
        (5, 6),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_computes_what_keras_does(name: str) -> None:
    make, make_theirs, shape = CASES[name]
    ours, theirs, rng = make(), make_theirs(keras.layers), np.random.default_rng(0)
    ours.build(shape, dtype="float64")
    randomize(ours, rng)
    x = rng.normal(size=(3, *shape))
    theirs.build((None, *shape))
    theirs.set_weights([array.copy() for array in parameters_of(ours)])
    expected = keras.ops.convert_to_numpy(theirs(x))
    assert expected.dtype == "float64"
    assert_close(ours.forward(x), expected, 1e-6 if "gelu" in name else 1e-12)
