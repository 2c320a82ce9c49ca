"""The weights of a network as PyTorch or Keras has them: dictionaries, lists and files, both ways."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from io import BytesIO
from typing import Any

import numpy as np
import safetensors.numpy

from scratchnet.errors import ScratchnetError
from scratchnet.exchange.layouts import places, seen
from scratchnet.layers.module import Module
from scratchnet.layers.saved import write

Path = str | os.PathLike[str]
COUNT = "num_batches_tracked"  # of PyTorch's BatchNorm, which no module with a momentum reads


def to_torch(network: Module) -> dict[str, np.ndarray]:
    """What `state_dict` of the same torch.nn.Sequential has, by its names and with its axes; copies.

    Raises ValueError that names a layer without a counterpart.
    """
    state = exported(network, "PyTorch")
    batches = [name.replace("running_var", COUNT) for name in state if name.endswith("running_var")]
    return state | {name: np.array(0, np.int64) for name in batches}


def from_torch(network: Module, state: Mapping[str, Any]) -> None:
    """Copy in what `to_torch` or PyTorch's `state_dict` gave: NumPy arrays, or tensors of a CPU.

    Raises ValueError where a name or a shape is not the network's, which is left as it was.
    """
    wanted = {name: array for name, array in state.items() if name.rpartition(".")[2] != COUNT}
    take_in(network, "PyTorch", wanted)


def to_keras(network: Module) -> list[np.ndarray]:
    """What `get_weights` of the same keras.Sequential gives; copies. Raises ValueError as `to_torch`."""
    return list(exported(network, "Keras").values())


def from_keras(network: Module, weights: Sequence[Any]) -> None:
    """Copy in what `to_keras` or Keras's `get_weights` gave; ValueError where their number or a shape is another."""
    names = places(network, "Keras")
    if len(weights) != len(names):
        raise ValueError(
            f"{network.name}: {len(weights)} arrays are given where Keras has {len(names)}: they are of another network"
        )
    take_in(network, "Keras", dict(zip(names, weights, strict=True)))


def save_torch(network: Module, path: Path) -> None:
    """Write `to_torch` to a safetensors file, as safetensors.torch.load_file reads it."""
    write(safetensors.numpy.save(to_torch(network), {"format": "pt"}), path)


def load_torch(network: Module, path: Path) -> None:
    """`from_torch` of a safetensors file; ScratchnetError where it is none."""
    with reading(path):
        state = safetensors.numpy.load_file(path)
    from_torch(network, state)


def save_keras(network: Module, path: Path) -> None:
    """Write the file that `load_weights` of the same keras.Sequential reads (needs h5py)."""
    if not os.fspath(path).endswith(".weights.h5"):
        raise ValueError(f"{os.fspath(path)}: Keras reads weights only from names that end in .weights.h5")
    content = BytesIO()
    with h5py().File(content, "w") as file:
        for name, array in exported(network, "Keras").items():
            file[name] = array
    write(content.getvalue(), path)


def load_keras(network: Module, path: Path) -> None:
    """`from_keras` of a .weights.h5 file (needs h5py); ScratchnetError where it is none.

    What links or maps to other places and files is not followed, and only arrays of the right shapes are read.
    """
    tool, arrays = h5py(), dict[str, Any]()

    def collect(name: str, found: Any) -> None:  # h5py calls it with all but links
        if hasattr(found, "shape") and name.startswith("layers/") and not (found.is_virtual or found.external):
            arrays[name] = found

    with reading(path), tool.File(path, "r") as file:
        file.visititems(collect)
        take_in(network, "Keras", arrays)


def exported(network: Module, framework: str) -> dict[str, np.ndarray]:
    wanted, weights = places(network, framework), network.weights()
    state = {}
    for theirs, (ours, axes, image) in wanted.items():
        array, shape = seen(weights[ours], axes, image)
        state[theirs] = np.array(array, order="C").reshape(shape)
    return state


def take_in(network: Module, framework: str, state: Mapping[str, Any]) -> None:
    wanted, weights = places(network, framework), network.weights()
    if missing := [name for name in wanted if name not in state]:
        raise ValueError(f"{network.name}: {some(missing)} is missing in what is given, so it is of another network")
    if strange := [name for name in state if name not in wanted]:
        raise ValueError(f"{network.name}: {some(strange)} is no name of this network's in {framework}")
    for theirs, (ours, axes, image) in wanted.items():
        array, shape = seen(weights[ours], axes, image)
        if np.shape(state[theirs]) != shape:
            raise ValueError(f"{network.name}: {theirs} has the shape {tuple(np.shape(state[theirs]))}, not {shape}")
        values = np.asarray(state[theirs])
        if values.dtype.kind != "f":
            raise ValueError(f"{network.name}: {theirs} has the dtype {values.dtype} where floating point is wanted")
        array[...] = values.reshape(array.shape)
    network.set_weights(weights)


def some(names: list[str]) -> str:
    return names[0] + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")


def h5py() -> Any:
    try:
        return import_module("h5py")
    except ImportError as error:
        raise ScratchnetError(
            "files of Keras need h5py, which is not installed: pip install 'scratchnet[keras]'"
        ) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    try:
        yield
    except ValueError:  # of what was read
        raise
    except Exception as error:  # a stranger's file may make a reader raise anything
        first = str(error).partition("\n")[0][:200]
        raise ScratchnetError(
            f"{os.fspath(path)} cannot be read ({type(error).__name__}: {first}): give a file of weights, as "
            "docs/exchange.md has them"
        ) from error
