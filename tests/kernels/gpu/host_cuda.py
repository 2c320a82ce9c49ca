"""CUDA sources compiled by the host's C++ compiler, and a stand-in for a GPU that runs the kernels so."""

import ctypes
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.backend.strict_device import StrictDevice

HEADER = Path(__file__).with_name("host_cuda.h")
COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
NEEDS_COMPILER = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler to run the CUDA kernels on the host")
FOLDER = tempfile.TemporaryDirectory(prefix="scratchnet-kernels-")
TYPES = {"float": np.float32, "double": np.float64, "long long": np.int64, "int": np.int32, "unsigned char": np.uint8,
         "word": np.uint64}  # fmt: skip


class HostCuda:
    """The interface of backend.cuda.Cuda. A launch refuses arguments that are not of the types in the source."""

    def kernel(self, source: str, name: str, constants: Mapping[str, int | str]) -> Callable[..., None]:
        launch = getattr(_compiled(source, tuple(constants.items())), f"launch_{name}")
        parameters = _parameters(source, name)
        names = {"real": TYPES[str(constants["real"])]} | TYPES
        names["PIXEL"] = names[str(constants.get("PIXEL", "real"))]

        def start(grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...]) -> None:
            assert len(arguments) == len(parameters), f"{name} takes {parameters}"
            held = []
            for (kind, pointer), argument in zip(parameters, arguments, strict=True):
                if isinstance(argument, np.ndarray):
                    assert pointer, f"{name}: an array where {kind} is wanted"
                    assert argument.dtype == names[kind], f"{name}: {argument.dtype} where {kind} is wanted"
                    held.append(ctypes.c_void_p(argument.ctypes.data))
                else:
                    wanted = np.uintp if pointer else names[kind]
                    assert argument.dtype == wanted, f"{name}: {argument!r} where {kind}{'*' * pointer} is wanted"
                    held.append(np.ctypeslib.as_ctypes_type(argument.dtype)(argument.item()))
            places = (ctypes.c_void_p * len(held))(*(ctypes.addressof(value) for value in held))
            assert launch(*grid, *block, places) == 0, f"{name}: threads of a block wait for ever"

        return start


def _parameters(source: str, name: str) -> list[tuple[str, bool]]:
    """Type and whether it is a pointer, for each parameter of a kernel."""
    found = re.search(rf"__global__ void {name}\(([^)]*)\)", source)
    assert found, f"no kernel {name}"
    parts = (re.fullmatch(r"(?:const )?(.*?)(\*?) \w+", " ".join(part.split())) for part in found[1].split(","))
    return [(part[1], bool(part[2])) for part in parts if part]


@cache
def _compiled(source: str, constants: tuple[tuple[str, int | str], ...]) -> Any:
    cooperates = int("__syncthreads" in source or "__shfl" in source)
    names = re.findall(r"__global__ void (\w+)", source)
    launches = "\n".join(f"HOST_LAUNCH({name}, {cooperates})" for name in names)
    code = f'#include "{HEADER}"\n{source}\n{launches}\n'
    library = Path(FOLDER.name, f"{abs(hash((source, constants)))}.so")
    macros = [f"-D{macro}={value}" for macro, value in constants]
    flags = ["-x", "c++", "-std=c++17", "-O1", "-w", "-ffp-contract=off", "-shared", "-fPIC"]
    subprocess.run([str(COMPILER), *flags, *macros, "-", "-o", str(library)], input=code, text=True, check=True)
    return ctypes.CDLL(str(library))


class KernelDevice(StrictDevice):
    """The stand-in for a GPU, with the kernels of a GPU."""

    cuda: Any = HostCuda()
