"""A network in one file, in the format of safetensors: its weights, and what it is made of as the text.

A file is read as a stranger's: no code runs on its behalf but the constructors of layers, and nothing is allocated
before the shapes of its arrays are known to be those of its layers.
"""

import json
import os
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

from scratchnet import layers
from scratchnet.backend import Device
from scratchnet.errors import ScratchnetError
from scratchnet.initializers import INITIALIZERS
from scratchnet.layers.flow import Pass
from scratchnet.layers.module import Module, as_device
from scratchnet.sealed import MAX_ARRAY_BYTES, read_arrays, read_text, sealed

TYPES: dict[str, Any] = {name: getattr(layers, name) for name in layers.__all__} | {"Pass": Pass}


def to_bytes(module: Module) -> bytes:
    """The file's content: the description as its text, and the weights."""
    described = {"input_shape": module.input_shape, "dtype": str(module.dtype), "network": _described(module)}
    return sealed(json.dumps(described), module.weights())


def save(module: Module, path: str | os.PathLike[str]) -> None:
    write(to_bytes(module), path)


def write(content: bytes, path: str | os.PathLike[str]) -> None:
    """Write the file aside, flush it to disk and move it into place."""
    target = Path(path)
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with open(aside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(target)
    except OSError as error:
        raise ScratchnetError(f"{target} cannot be written ({error}): check the folder and the free space") from error
    finally:
        aside.unlink(missing_ok=True)


def load(path: str | os.PathLike[str], device: str | Device | None, custom: Sequence[type[Module]]) -> Module:
    try:
        with open(path, "rb") as file:
            text, digest = read_text(file)
            described = json.loads(text)
            module = _made(described["network"], TYPES | {kind.__name__: kind for kind in custom})
            module.configure(tuple(described["input_shape"]), described["dtype"], as_device(device))
            numbers = sum(prod(shape) for layer in module.leaves for shape in layer.shapes_of_arrays().values())
            weights = read_arrays(file, digest, min(numbers * module.dtype.itemsize, MAX_ARRAY_BYTES))
        if any(array.dtype != module.dtype for array in weights.values()):
            raise ValueError("its arrays are of another type than it says")
        module.attach(*(module.device.zeros(size, module.dtype) for size in module.sizes))
        module.set_weights(weights)
        return module
    except Exception as error:  # a stranger's description may make a constructor raise anything
        first = str(error).partition("\n")[0].encode("unicode_escape").decode()[:200]
        raise ScratchnetError(
            f"{os.fspath(path)} is no network that can be loaded ({type(error).__name__}: {first}): give a file that "
            "`save` wrote, and the types of its own layers as custom=[...]"
        ) from error


def _described(value: Any) -> Any:
    """A module as {"type": ..., arguments}; what else stands in its arguments as it is."""
    if isinstance(value, Module):
        return {"type": type(value).__name__} | {name: _described(each) for name, each in value.arguments().items()}
    if isinstance(value, list | tuple):
        return [_described(each) for each in value]
    if callable(value):  # an initializer; of one's own, it has no name, and the weights are in the file
        return next((name for name, initializer in INITIALIZERS.items() if initializer is value), "zeros")
    return value


def _made(described: Any, types: dict[str, Any]) -> Any:
    if isinstance(described, list):
        return [_made(each, types) for each in described]
    if not isinstance(described, dict):
        return described
    arguments = {name: _made(value, types) for name, value in described.items() if name != "type"}
    if described["type"] not in types:
        raise ValueError(f"it has a layer of the type {described['type']}, which is not known")
    return types[described["type"]](**arguments)
