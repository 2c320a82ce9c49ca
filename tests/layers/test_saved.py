"""A network in one file: the same network again, for every layer, and one sentence for whatever is none."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from scratchnet import (
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPooling2D,
    Parallel,
    ReLU,
    Residual,
    Sequential,
)
from scratchnet.errors import ScratchnetError
from scratchnet.experiments.recipes import RECIPES
from scratchnet.layers.module import Module
from scratchnet.sealed import sealed


def nested() -> Sequential:
    return Sequential(
        [
            Conv2D(4, (3, 2), padding="same", kernel_initializer=lambda shape, source: source.normal(size=shape)),
            Residual([BatchNormalization(momentum=0.5), ReLU(), Conv2D(4, 3, padding="same", use_bias=False)]),
            Parallel([MaxPooling2D(), Sequential([Conv2D(3, 2, strides=2), ReLU()], name="branch")]),
            Residual(Conv2D(7, 1), shortcut=[Conv2D(7, 1), Dropout(0.2, seed=4)]),
            Flatten(),
            Dense(5),
        ],
        name="whole",
    )


def images(shape: tuple[int, ...] = (8, 6, 3), dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(0).standard_normal((5, *shape)).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_network_comes_back_whole(tmp_path: Path, dtype: str) -> None:
    network, x, path = nested(), images(dtype=dtype), tmp_path / "network.safetensors"
    network.build((8, 6, 3), dtype=dtype, seed=1)
    network.forward(x, training=True)
    network.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["network.safetensors"]
    again = Sequential.load(path)
    assert (again.name, again.dtype, again.input_shape) == ("whole", network.dtype, (8, 6, 3))
    assert [(type(layer), layer.name) for layer in again.leaves] == [
        (type(layer), layer.name) for layer in network.leaves
    ]
    np.testing.assert_array_equal(again.predict(x), network.predict(x))
    for twin in (network, again):
        twin.clock.step = 3
    np.testing.assert_array_equal(again.forward(x, training=True), network.forward(x, training=True))
    again.set_weights(load_file(path))  # any reader of the format has them by name
    np.testing.assert_array_equal(again.predict(x), Sequential.load(path).predict(x))


@pytest.mark.parametrize("name", list(RECIPES))
def test_the_recipes_come_back(tmp_path: Path, name: str) -> None:
    network = RECIPES[name].network(10)
    network.build((32, 32, 3))
    network.save(tmp_path / "recipe")
    x = images((32, 32, 3))
    np.testing.assert_array_equal(Sequential.load(tmp_path / "recipe").predict(x), network.predict(x))


def test_layers_of_others_are_named(tmp_path: Path) -> None:
    class Scaled(Layer):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def compute(self, training: bool) -> None:
            self.ops.multiply(self.x, self.factor, out=self.y)

        def compute_gradients(self) -> None:
            self.ops.multiply(self.dy, self.factor, out=self.dx)

    class Forgetful(Scaled):
        def __init__(self, scale: float) -> None:
            super().__init__(scale)

    network, x = Sequential([Dense(3), Scaled(2.5)]), images((4,))
    network.build((4,))
    network.save(tmp_path / "own")
    with pytest.raises(ScratchnetError, match=r"own is no network .* type Scaled, which is not known.*custom=\["):
        Sequential.load(tmp_path / "own")
    np.testing.assert_array_equal(Sequential.load(tmp_path / "own", custom=[Scaled]).predict(x), network.predict(x))
    other = Sequential([Forgetful(2.0)])
    other.build((4,))
    with pytest.raises(ScratchnetError, match=r"forgetful: it cannot be saved.*keep it as self\.scale"):
        other.save(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_wrong_calls_get_one_sentence(tmp_path: Path) -> None:
    network = Sequential([Dense(3)])
    with pytest.raises(RuntimeError, match="save needs the shapes"):
        network.save(tmp_path / "x")
    network.build((4,))
    network.save(tmp_path / "x")
    with pytest.raises(ScratchnetError, match="holds a Sequential, not a Residual"):
        Residual.load(tmp_path / "x")
    assert isinstance(Module.load(tmp_path / "x"), Sequential)
    with pytest.raises(ScratchnetError, match="nowhere is no network that can be loaded"):
        Sequential.load(tmp_path / "nowhere")
    with pytest.raises(ScratchnetError, match="cannot be written"):
        network.save(tmp_path / "no folder" / "x")


def test_a_failed_save_leaves_the_file_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Sequential([Dense(3)])
    network.build((4,))
    network.save(tmp_path / "x")
    before = (tmp_path / "x").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    network.build((4,), seed=2)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ScratchnetError, match=r"x cannot be written .*No space left"):
        network.save(tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def changed(path: Path, tensors: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A file like that of a Dense(3) for 4 inputs, with another description or other arrays."""
    dense = {"type": "Dense", "units": 3}
    described = {"input_shape": [4], "dtype": "float32", "network": {"type": "Sequential", "layers": [dense]}} | changes
    arrays = {"dense/kernel": np.zeros((4, 3), np.float32), "dense/bias": np.zeros(3, np.float32)}
    path.write_bytes(sealed(json.dumps(described), arrays if tensors is None else tensors))
    return path


def test_strangers_files_are_refused(tmp_path: Path) -> None:
    path, zeros = tmp_path / "x", np.zeros
    assert Sequential.load(changed(path)).predict(images((4,))).tolist() == [[0, 0, 0]] * 5
    deep: Any = {"type": "Dense", "units": 3}
    for _ in range(5000):
        deep = {"type": "Sequential", "layers": [deep]}
    wrong: list[dict[str, Any]] = [
        {"network": {"type": "os.system", "command": "true"}},
        {"network": {"type": "Layer"}, "tensors": {}},
        {"network": {"type": "Sequential", "layers": []}},
        {"network": {"type": "Sequential", "layers": [{"type": "Dense", "units": -1}]}},
        {"network": {"type": "Sequential", "layers": [{"type": "Dense", "units": 10**15}]}},
        {"network": {"type": "Sequential", "layers": [{"type": "Dense", "units": 3, "colour": "red"}]}},
        {"network": {"type": "Sequential", "layers": "Dense"}},
        {"network": [1, 2]},
        {"network": deep} if deep else {},
        {"input_shape": [5]},
        {"input_shape": "four"},
        {"input_shape": [10**12]},
        {"dtype": "int8"},
        {"dtype": "object"},
        {"tensors": {"dense/kernel": zeros((4, 3), np.float32)}},
        {"tensors": {"dense/kernel": zeros((4, 3), np.float32), "dense/bias": zeros(4, np.float32)}},
        {"tensors": {"dense/kernel": zeros((4, 3), np.int32), "dense/bias": zeros(3, np.int32)}},
    ]
    for changes in wrong:
        try:
            changed(path, **changes)
        except RecursionError:
            continue  # too deep to be written
        with pytest.raises(ScratchnetError, match=r"x (is no network that can be loaded|holds a )") as raised:
            Sequential.load(path)
        assert len(str(raised.value)) < 500
    whole = changed(path).read_bytes()
    for place in range(len(whole)):  # a bit anywhere
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(ScratchnetError, match="x is no network that can be loaded"):
            Sequential.load(path)
    for content in (b"", whole[:50], whole[:-1], whole + b"0", b"\xff" * 100, b"PK" + whole):
        path.write_bytes(content)
        with pytest.raises(ScratchnetError, match="x is no network that can be loaded"):
            Sequential.load(path)
    save_file({"a": zeros(3, np.float32)}, path)
    with pytest.raises(ScratchnetError, match="x is no network that can be loaded"):
        Sequential.load(path)
