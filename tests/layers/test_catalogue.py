"""What is asked of every layer of the catalogue, and that nothing is missing from it."""

import re
from pathlib import Path

import numpy as np
import pytest

import scratchnet
from scratchnet import layers
from scratchnet.backend import Device, get_device
from scratchnet.layers.flow import Add, Concatenate, Fork
from scratchnet.layers.layer import Layer
from scratchnet.layers.recorded import check_replay
from tests.backend.strict_device import StrictDevice
from tests.kernels.gpu import test_on_a_gpu
from tests.kernels.gpu.host_cuda import NEEDS_COMPILER, KernelDevice
from tests.layers.catalogue import CATALOGUE, EXAMPLES, KINDS, Kind, backward, forward
from tests.reference.checks import assert_close, distinct, gradients_of, randomize
from tests.reference.layers import STEP

PAGES = Path(__file__).parents[2] / "docs" / "derivations"
EVERY_EXAMPLE = pytest.mark.parametrize("name", EXAMPLES)
EVERY_KIND = pytest.mark.parametrize("kind", CATALOGUE, ids=lambda kind: kind.layer.__name__)


@EVERY_EXAMPLE
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 5e-5)])
def test_it_computes_what_the_plain_loops_do(name: str, dtype: str, tolerance: float) -> None:
    rng, example = np.random.default_rng(0), EXAMPLES[name]
    module = example.make()
    module.build(example.input_shape, dtype=dtype)
    randomize(module, rng)
    x = distinct((4, *example.input_shape), rng).astype(dtype)
    module.clock.step = STEP
    y = module.forward(x, training=True)
    dy = rng.normal(size=y.shape).astype(dtype)
    dx = module.backward(dy)
    assert y.dtype == dx.dtype == dtype
    assert_close(y, forward(module, x), tolerance)
    for ours, wanted in zip([dx, *gradients_of(module)], backward(module, x, dy), strict=True):
        assert_close(ours, wanted, tolerance)


@EVERY_EXAMPLE
@pytest.mark.parametrize("where", ["cpu", "stand-in", pytest.param("stand-in with kernels", marks=NEEDS_COMPILER)])
def test_a_replay_of_its_step_is_its_step(name: str, where: str) -> None:
    """Layers of the library are not asked when they are bound, so they are asked here; those inside a network too."""
    devices: dict[str, Device] = {"stand-in": StrictDevice(), "stand-in with kernels": KernelDevice()}
    module, example = EXAMPLES[name].make(), EXAMPLES[name]
    module.build(example.input_shape, device=devices.get(where) or get_device(where))
    for layer in module.leaves:
        if not isinstance(layer, Fork | Add | Concatenate):  # which have several ends: the networks' own tests hold
            check_replay(layer)


# --- nothing is missing


def test_every_layer_is_in_the_catalogue_and_at_the_top() -> None:
    public = [getattr(layers, name) for name in layers.__all__ if name != "Layer"]
    for layer in public:
        assert layer in KINDS, f"{layer.__name__} is not in the list of layers: add a Kind to tests/layers/catalogue.py"
        name = layer.__name__
        assert getattr(scratchnet, name, None) is layer, f"{name} is not at the top: scratchnet/__init__.py has lost it"
    for layer in KINDS:
        name = layer.__name__
        assert layer in public, f"{name} is not public: add it to __all__ in scratchnet/layers/__init__.py"
    for name, layer in vars(layers).items():
        if isinstance(layer, type) and issubclass(layer, Layer) and not name.startswith("_"):
            assert name in layers.__all__, f"{name} is not public: add it to __all__ in scratchnet/layers/__init__.py"


@EVERY_KIND
def test_it_has_a_page(kind: Kind) -> None:
    name, page = kind.layer.__name__, PAGES / f"{kind.page}.md"
    where = f"docs/derivations/{page.name}"
    assert page.exists(), f"{name} has no derivation: write {where}, or name another page in tests/layers/catalogue.py"
    assert re.search(rf"\b{name}\b", page.read_text()), f"{name} is not mentioned on its page: add it to {where}"


@EVERY_KIND
def test_it_has_examples_on_which_all_is_tested(kind: Kind) -> None:
    name = kind.layer.__name__
    assert kind.examples, f"{name} has no example: add one to its Kind in tests/layers/catalogue.py"
    for example, (make, _) in kind.examples.items():
        assert type(make()) is kind.layer, f"the example {example!r} of {name} in tests/layers/catalogue.py is another"
        plain = example.split()[0].replace("_", "")
        assert plain == name.lower(), f"{example!r} in tests/layers/catalogue.py is to begin with the name of {name}"


def test_the_tests_on_a_gpu_take_every_example() -> None:
    """They are skipped where there is none, and would not be missed."""
    marks = {mark.name: mark.args for mark in test_on_a_gpu.test_every_layer_of_the_catalogue_is_one_graph.pytestmark}
    names, values = marks["parametrize"]
    assert names == "name"
    missing = set(EXAMPLES) - set(values)
    assert not missing, f"{missing} are not captured on a GPU: tests/kernels/gpu/test_on_a_gpu.py leaves them out"
