"""What Keras computes with a network's weights, and the network with Keras's.

The campaign of 1,000 networks: python -m pytest -m slow tests/exchange/test_keras.py
"""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from scratchnet.exchange import from_keras, load_keras, save_keras, to_keras
from tests.exchange.networks import TOLERANCE, Case, case_of, networks
from tests.layers.catalogue import EXAMPLES
from tests.reference.checks import assert_close

keras = pytest.importorskip("keras", reason="keras is not installed")
pytest.importorskip("h5py", reason="h5py is not installed")
from tests.exchange.in_keras import model  # noqa: E402 - which needs Keras

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword"),
    pytest.mark.filterwarnings("ignore:You are using a softmax over axis"),
]
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


def same(ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    for array, wanted in zip(ours, theirs, strict=True):
        assert array.dtype == wanted.dtype
        np.testing.assert_array_equal(array, wanted)


def there_and_back(case: Case, dtype: str, folder: Path) -> None:
    """By lists, and by files."""
    network, other, x = case.network(dtype), case.network(dtype), case.x(dtype)
    peer, path = model(network), folder / "of.weights.h5"
    path.unlink(missing_ok=True)
    rng = np.random.default_rng(case.seed)
    peer.set_weights([rng.uniform(0.5, 1.5, array.shape).astype(dtype) / 2 for array in peer.get_weights()])
    peer.save_weights(path)
    for take in (lambda: from_keras(other, peer.get_weights()), lambda: load_keras(other, path)):
        other.set_weights({name: 0 * array for name, array in other.weights().items()})
        take()
        assert_close(other.forward(x), keras.ops.convert_to_numpy(peer(x)), TOLERANCE[dtype])
        same(to_keras(other), peer.get_weights())

    path.unlink()
    save_keras(network, path)
    for give in (lambda: peer.set_weights(to_keras(network)), lambda: peer.load_weights(path)):
        peer.set_weights([0 * array for array in peer.get_weights()])
        give()
        assert_close(network.forward(x), keras.ops.convert_to_numpy(peer(x)), TOLERANCE[dtype])
        same(to_keras(network), peer.get_weights())


@DTYPES
@given(case=networks())
@settings(max_examples=10, suppress_health_check=list(HealthCheck))
def test_random_networks(dtype: str, tmp_path_factory: pytest.TempPathFactory, case: Case) -> None:
    there_and_back(case, dtype, tmp_path_factory.getbasetemp())


@pytest.mark.slow
@DTYPES
@given(case=networks())
@settings(max_examples=500, suppress_health_check=list(HealthCheck))
def test_a_thousand_random_networks(dtype: str, tmp_path_factory: pytest.TempPathFactory, case: Case) -> None:
    there_and_back(case, dtype, tmp_path_factory.getbasetemp())


@DTYPES
@pytest.mark.parametrize(
    "recipe",
    [
        "same-padding", "valid-padding", "transformer", "transformer-without-block", "transformer-linear",
        "transformer-tokens",
    ],
)  # fmt: skip
def test_recipes(recipe: str, dtype: str, tmp_path: Path) -> None:
    there_and_back(case_of(recipe), dtype, tmp_path)


def test_no_layer_of_the_catalogue_is_left_out(tmp_path: Path) -> None:
    """Each has a counterpart here, or is refused, or draws noise that no other has."""
    for name, example in EXAMPLES.items():
        if name.startswith("gumbel_softmax"):
            continue
        if any(word in name for word in ("noise", "both")):
            layer = example.make()
            layer.build(example.input_shape)
            with pytest.raises(ValueError, match="no counterpart of an attention with Gumbel noise"):
                to_keras(layer)
        else:
            there_and_back(Case([example.make()], example.input_shape, 1), "float64", tmp_path)
