"""Names, axes, order and files, where neither PyTorch nor Keras is installed; and what is refused."""

import subprocess
import sys
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
    GumbelSoftmax,
    Layer,
    LayerNormalization,
    MultiHeadAttention,
    Parallel,
    PositionEmbedding,
    ReLU,
    Reshape,
    Residual,
    Sequential,
)
from scratchnet.errors import ScratchnetError
from scratchnet.exchange import (
    from_keras,
    from_torch,
    load_keras,
    load_torch,
    save_keras,
    save_torch,
    to_keras,
    to_torch,
)
from scratchnet.exchange.layouts import KERAS, TORCH
from tests.exchange.networks import randomize
from tests.layers.catalogue import EXAMPLES


def built(layers: list[Any], shape: tuple[int, ...], dtype: str = "float32") -> Sequential:
    network = Sequential(layers)
    network.build(shape, dtype)
    randomize(network, np.random.default_rng(2))
    return network


def images(dtype: str = "float32") -> Sequential:
    """Nested, with everything that has a name; a reshaped image gives tokens."""
    inner = Residual([Conv2D(4, (1, 3), padding="same", use_bias=False), BatchNormalization()])
    tokens = [Reshape((-1, 4)), PositionEmbedding(), Residual([MultiHeadAttention(2, 2), Dropout(0.1)])]
    last = Parallel([[Dense(3), ReLU()], Dense(2)])
    return built([Conv2D(4, 3), inner, *tokens, LayerNormalization(), Flatten(), last], (5, 4, 2), dtype)


def test_every_layer_with_weights_has_its_place_in_both() -> None:
    """A new layer is put into the tables, or into this list of those that have no counterpart."""
    without: set[type] = set()
    for example in EXAMPLES.values():
        module = example.make()
        module.build(example.input_shape)
        for layer in module.leaves:
            for name in layer.shapes_of_arrays() if type(layer) not in without else ():
                for table in (TORCH, KERAS):
                    assert name in [ours for ours, _, _ in table[type(layer)]], (layer, name)


def test_names_and_shapes() -> None:
    network = images()
    assert {name: array.shape for name, array in to_torch(network).items()} == {
        "0.weight": (4, 2, 3, 3), "0.bias": (4,),
        "1.0.0.weight": (4, 4, 1, 3),
        "1.0.1.weight": (4,), "1.0.1.bias": (4,), "1.0.1.running_mean": (4,), "1.0.1.running_var": (4,),
        "1.0.1.num_batches_tracked": (),
        "3.weight": (6, 4),
        "4.0.0.in_proj_weight": (12, 4), "4.0.0.in_proj_bias": (12,),
        "4.0.0.out_proj.weight": (4, 4), "4.0.0.out_proj.bias": (4,),
        "5.weight": (4,), "5.bias": (4,),
        "7.0.0.weight": (3, 24), "7.0.0.bias": (3,), "7.1.weight": (2, 24), "7.1.bias": (2,),
    }  # fmt: skip
    assert to_torch(network)["1.0.1.num_batches_tracked"].dtype == np.int64
    assert [array.shape for array in to_keras(network)] == [
        (3, 3, 2, 4), (4,), (1, 3, 4, 4), (4,), (4,), (4,), (4,), (6, 4), *[(4, 2, 2), (2, 2)] * 3, (2, 2, 4), (4,),
        (4,), (4,), (24, 3), (3,), (24, 2), (2,),
    ]  # fmt: skip


def test_the_order_of_flattened_features_by_plain_loops() -> None:
    """Through what lies between, and not behind the dense layer."""
    network = built([Flatten(), BatchNormalization(), ReLU(), Dense(3), Dense(3)], (2, 3, 4), "float64")
    state, own = to_torch(network), network.weights()
    for h in range(2):
        for w in range(3):
            for c in range(4):
                ours, theirs = (h * 3 + w) * 4 + c, (c * 2 + h) * 3 + w
                assert state["1.running_mean"][theirs] == own["batch_normalization/moving_mean"][ours]
                np.testing.assert_array_equal(state["3.weight"][:, theirs], own["dense/kernel"][ours])
    np.testing.assert_array_equal(state["4.weight"].T, own["dense_1/kernel"])


def test_a_layer_alone_has_no_number() -> None:
    dense = Dense(3)
    dense.build((4,))
    assert {name: array.shape for name, array in to_torch(dense).items()} == {"weight": (3, 4), "bias": (3,)}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_there_and_back_nothing_changes(dtype: str, tmp_path: Path) -> None:
    network, torch_file, keras_file = images(dtype), tmp_path / "of.safetensors", tmp_path / "of.weights.h5"
    save_torch(network, torch_file)
    ways: list[Any] = [
        lambda other: from_torch(other, to_torch(network)),
        lambda other: from_keras(other, to_keras(network)),
        lambda other: load_torch(other, torch_file),
    ]
    for take in ways:
        other = Sequential([layer.unbuilt() for layer in network.layers])
        other.build((5, 4, 2), dtype, seed=9)
        take(other)
        for name, array in network.weights().items():
            np.testing.assert_array_equal(other.weights()[name], array, err_msg=name)
            assert other.weights()[name].dtype == dtype
    assert set(load_file(torch_file)) == set(to_torch(network))
    pytest.importorskip("h5py", reason="h5py is not installed: pip install 'scratchnet[keras]'")
    save_keras(network, keras_file)
    other.build((5, 4, 2), dtype, seed=10)
    load_keras(other, keras_file)
    for name, array in network.weights().items():
        np.testing.assert_array_equal(other.weights()[name], array, err_msg=name)


def test_what_is_given_are_copies() -> None:
    network = images()
    before = network.weights()
    for array in [*to_torch(network).values(), *to_keras(network)]:
        array[...] = 7
    for name, array in network.weights().items():
        np.testing.assert_array_equal(array, before[name])


FRAMEWORKS = "torch", "keras", "h5py", "tensorflow"


# --- what is refused


class Scaled(Layer):
    def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self.parameter("scale", input_shape[-1:])
        return input_shape


@pytest.mark.parametrize(
    ("layers", "shape", "words"),
    [
        ([Dense(3), Scaled()], (4,), "scaled: PyTorch has no counterpart of Scaled"),
        ([MultiHeadAttention(2, 4)], (3, 6), "multi_head_attention: PyTorch .* 2 heads with key_dim 4 for 6 features"),
        ([MultiHeadAttention(2, 3, temperature=0.5)], (3, 6), "no counterpart of an attention with Gumbel noise"),
        ([Flatten(), Residual([Dense(12)])], (2, 2, 3), "add: PyTorch .* between the Flatten and this Add"),
        ([Flatten(), Parallel([Dense(5), []])], (2, 2, 3), "concatenate: PyTorch .* this Concatenate"),
        ([Flatten(), Reshape((4, 3))], (2, 2, 3), "reshape: PyTorch .* this Reshape"),
    ],
)
def test_layers_without_a_counterpart_are_named(layers: list[Any], shape: tuple[int, ...], words: str) -> None:
    network = Sequential(layers)
    network.build(shape)
    for exchange in (to_torch, lambda network: from_torch(network, {})):
        with pytest.raises(ValueError, match=words):
            exchange(network)


def test_keras_has_what_pytorch_has_not() -> None:
    """Its flattening and its heads are ours."""
    for layers, shape in ([[MultiHeadAttention(2, 4)], (3, 6)], [[Flatten(), Residual([Dense(12)])], (2, 2, 3)]):
        assert to_keras(built(layers, shape))
    with pytest.raises(ValueError, match="scaled: Keras has no counterpart of Scaled"):
        to_keras(built([Scaled()], (3,)))
    assert to_keras(built([Dense(2), GumbelSoftmax()], (3,)))  # which has no weights


def test_wrong_weights_get_one_sentence_and_change_nothing(tmp_path: Path) -> None:
    network = built([Dense(3), ReLU(), Dense(2)], (4,))
    before, state, weights = network.weights(), to_torch(network), to_keras(network)
    with pytest.raises(ValueError, match=r"sequential: 2\.bias is missing"):
        from_torch(network, {name: array for name, array in state.items() if name != "2.bias"})
    with pytest.raises(ValueError, match=r"sequential: 0\.weight \(and 3 more\) is missing"):
        from_torch(network, {f"module.{name}": array for name, array in state.items()})
    with pytest.raises(ValueError, match=r"sequential: 3\.weight is no name of this network's in PyTorch"):
        from_torch(network, state | {"3.weight": np.zeros(3)})
    with pytest.raises(ValueError, match=r"sequential: 2\.weight has the shape \(3, 2\), not \(2, 3\)"):
        from_torch(network, {**state, "0.bias": np.ones(3), "2.weight": np.zeros((3, 2))})
    with pytest.raises(ValueError, match=r"sequential: 2\.bias has the dtype int64 where floating point is wanted"):
        from_torch(network, {**state, "0.bias": np.ones(3), "2.bias": np.zeros(2, np.int64)})
    with pytest.raises(ValueError, match="sequential: 3 arrays are given where Keras has 4"):
        from_keras(network, weights[:3])
    with pytest.raises(ValueError, match=r"sequential: layers/dense_1/vars/0 has the shape \(2, 3\), not \(3, 2\)"):
        from_keras(network, [*weights[:2], weights[2].T, weights[3]])
    with pytest.raises(ValueError, match=r"x\.h5: Keras reads weights only from names that end in \.weights\.h5"):
        save_keras(network, tmp_path / "x.h5")
    with pytest.raises(RuntimeError, match="exchange with PyTorch needs the shapes: call build"):
        to_torch(Sequential([Dense(3)]))
    for name, array in network.weights().items():
        np.testing.assert_array_equal(array, before[name])


def test_files_that_are_none_get_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason="h5py is not installed: pip install 'scratchnet[keras]'")
    network, path = built([Dense(3)], (4,)), tmp_path / "of.weights.h5"
    for content in (None, b"", b"no such format", b"\xff" * 100):
        if content is not None:
            path.write_bytes(content)
        for load in (load_torch, load_keras):
            with pytest.raises(ScratchnetError, match=r"of\.weights\.h5 cannot be read"):
                load(network, path)
    save_file({"0.weight": np.zeros((3, 5), np.float32), "0.bias": np.zeros(3, np.float32)}, path)
    with pytest.raises(ValueError, match=r"0\.weight has the shape \(3, 5\), not \(3, 4\)"):
        load_torch(network, path)
    with pytest.raises(ScratchnetError, match="cannot be written"):
        save_torch(network, tmp_path / "no folder" / "x")


def test_a_keras_file_leads_nowhere_else(tmp_path: Path) -> None:
    """Arrays elsewhere, by links, storage outside or maps, are not read; and nothing of another shape is."""
    h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install 'scratchnet[keras]'")
    network, secret, path = built([Dense(3)], (4,)), tmp_path / "secret", tmp_path / "of.weights.h5"
    with h5py.File(secret, "w") as file:
        file["bias"] = np.ones(3, np.float32)
    (tmp_path / "raw").write_bytes(np.ones(3, np.float32).tobytes())
    layout = h5py.VirtualLayout((3,), np.float32)
    layout[:] = h5py.VirtualSource(secret, "bias", (3,))
    ways: dict[str, Any] = {
        "a soft link": lambda file: file.__setitem__("layers/dense/vars/1", h5py.SoftLink("/elsewhere")),
        "an external link": lambda file: file.__setitem__(
            "layers/dense/vars/1", h5py.ExternalLink(str(secret), "bias")
        ),
        "storage outside": lambda file: file.create_dataset(
            "layers/dense/vars/1", (3,), np.float32, external=[(str(tmp_path / "raw"), 0, 12)]
        ),
        "a map": lambda file: file.create_virtual_dataset("layers/dense/vars/1", layout),
    }
    for name, put in ways.items():
        with h5py.File(path, "w") as file:
            file["layers/dense/vars/0"], file["elsewhere"] = np.ones((4, 3), np.float32), np.ones(3, np.float32)
            put(file)
            assert file["layers/dense/vars/1"][...].tolist() == [1, 1, 1], name
        with pytest.raises(ValueError, match="layers/dense/vars/1 is missing"):
            load_keras(network, path)
    with h5py.File(path, "w") as file:  # a terabyte of zeros takes next to no place in it
        file["layers/dense/vars/0"] = np.ones((4, 3), np.float32)
        file.create_dataset("layers/dense/vars/1", (1 << 38,), np.float32, chunks=(1 << 20,), compression="gzip")
        file.create_dataset("optimizer/vars/0", (3,), np.float32)
    with pytest.raises(ValueError, match=r"vars/1 has the shape \(274877906944,\), not \(3,\)"):
        load_keras(network, path)


def test_a_damaged_array_in_a_keras_file_gets_one_sentence(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install 'scratchnet[keras]'")
    network, path = built([Dense(300)], (400,)), tmp_path / "of.weights.h5"
    with h5py.File(path, "w") as file:
        options = {"chunks": True, "compression": "gzip", "fletcher32": True}
        file.create_dataset("layers/dense/vars/0", data=np.ones((400, 300), np.float32), **options)
        file["layers/dense/vars/1"] = np.ones(300, np.float32)
        offset = file["layers/dense/vars/0"].id.get_chunk_info(0).byte_offset
    content, before = bytearray(path.read_bytes()), network.weights()
    content[offset + 20] ^= 255
    path.write_bytes(content)
    with pytest.raises(ScratchnetError, match=r"of\.weights\.h5 cannot be read \(OSError"):
        load_keras(network, path)
    np.testing.assert_array_equal(network.weights()["dense/bias"], before["dense/bias"])


def test_without_h5py_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    network = built([Dense(3)], (4,))
    for use in (save_keras, load_keras):
        with pytest.raises(ScratchnetError, match=r"need h5py, which is not installed: .*scratchnet\[keras\]"):
            use(network, tmp_path / "of.weights.h5")


def test_no_framework_is_imported() -> None:
    code = f"import sys, scratchnet.exchange; print([name for name in {FRAMEWORKS!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
