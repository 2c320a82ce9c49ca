"""What PyTorch computes with a network's weights, and the network with PyTorch's.

The campaign of 1,000 networks: python -m pytest -m slow tests/exchange/test_torch.py
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from scratchnet import Dense
from scratchnet.exchange import from_torch, load_torch, save_torch, to_torch
from tests.exchange.networks import TOLERANCE, Case, case_of, networks
from tests.layers.catalogue import EXAMPLES
from tests.reference.checks import assert_close

torch = pytest.importorskip("torch", reason="these tests compare with PyTorch: pip install 'scratchnet[test]'")
from tests.exchange.in_torch import module, outputs  # noqa: E402 - which needs PyTorch

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


def same_arrays(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert set(ours) == set(theirs)
    for name, array in ours.items():
        wanted = np.asarray(theirs[name])
        assert array.dtype == wanted.dtype, name
        np.testing.assert_array_equal(array, wanted, err_msg=name)


def there_and_back(case: Case, dtype: str) -> None:
    network, x = case.network(dtype), case.x(dtype)
    model = module(network).to(getattr(torch, dtype)).eval()
    with torch.no_grad():  # weights of its own, to be taken over
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.uniform_(*((0.5, 2.0) if name.endswith("var") else (-0.5, 0.5)))
    other = case.network(dtype)
    from_torch(other, model.state_dict())
    assert_close(other.forward(x), outputs(model, x), TOLERANCE[dtype])
    same_arrays(to_torch(other), model.state_dict())

    state = to_torch(network)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()}, strict=True)
    assert_close(network.forward(x), outputs(model, x), TOLERANCE[dtype])
    from_torch(other, state)
    same_arrays(other.weights(), network.weights())


@DTYPES
@given(case=networks())
def test_random_networks(dtype: str, case: Case) -> None:
    there_and_back(case, dtype)


@pytest.mark.slow
@DTYPES
@given(case=networks())
@settings(max_examples=500, suppress_health_check=list(HealthCheck))
def test_a_thousand_random_networks(dtype: str, case: Case) -> None:
    there_and_back(case, dtype)


@DTYPES
@pytest.mark.parametrize(
    "recipe",
    ["same-padding", "valid-padding", "transformer-without-block", "transformer-linear", "transformer-tokens"],
)
def test_recipes(recipe: str, dtype: str) -> None:
    there_and_back(case_of(recipe), dtype)


REFUSED = {  # in the catalogue, and why
    "multi_head_attention with dropout": "no counterpart of 2 heads with key_dim 4 for 6 features",
    "multi_head_attention with noise": "no counterpart of an attention with Gumbel noise",
    "multi_head_attention with both": "no counterpart of an attention with Gumbel noise",
    "sequential of tokens": "no counterpart of 2 heads with key_dim 4 for 6 features",
}


@pytest.mark.parametrize("name", [name for name in EXAMPLES if not name.startswith("gumbel_softmax")])
def test_every_layer_of_the_catalogue(name: str) -> None:
    """Is PyTorch's, or refused; but those that draw noise and have no weights."""
    example = EXAMPLES[name]
    behind = [Dense(3)] if name == "flatten" else []  # which alone has its features in another order there
    case = Case([example.make(), *behind], example.input_shape, 1)
    if reason := REFUSED.get(name):
        with pytest.raises(ValueError, match=reason):
            to_torch(case.network("float64"))
    else:
        there_and_back(case, "float64")


@DTYPES
def test_files(dtype: str, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors finds no PyTorch")
    network = case_of("valid-padding").network(dtype)
    save_torch(network, tmp_path / "ours.safetensors")
    same_arrays(to_torch(network), safetensors.load_file(tmp_path / "ours.safetensors"))
    model = module(network).to(getattr(torch, dtype))
    safetensors.save_file(model.state_dict(), tmp_path / "theirs.safetensors")
    load_torch(network, tmp_path / "theirs.safetensors")
    same_arrays(to_torch(network), model.state_dict())
