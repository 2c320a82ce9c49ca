"""Every CUDA source compiles for the GPUs we know, by NVRTC with CuPy's options, or by nvcc; neither needs a GPU."""

import ctypes
import itertools
import re
import shutil
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scratchnet.backend.cuda import FOLDER, Cuda
from scratchnet.backend.cuda import source as text_of

SOURCES = {path.name: text_of(path.name) for path in sorted(FOLDER.glob("*.cu"))}
ARCHITECTURES = "sm_80", "sm_90"
OF_CUPY = "-ftz=true", "--device-as-default-execution-space"  # which CuPy 14 adds to ours
CONVOLUTION = {
    "HEIGHT": 16, "WIDTH": 16, "CHANNELS": 32, "KERNEL_H": 3, "KERNEL_W": 3, "STRIDE_H": 1, "STRIDE_W": 1,
    "DILATION_H": 1, "DILATION_W": 1, "TOP": 1, "LEFT": 1, "ROWS": 16, "COLUMNS": 16, "FILTERS": 64, "POOL": 2,
    "RELU": 1, "TERM_PITCH": 296, "FILTER_PITCH": 64,
}  # fmt: skip
CONSTANTS: dict[str, dict[str, Any]] = {
    "adam.cu": {},
    "convolution.cu": CONVOLUTION,
    "gather.cu": {"HEIGHT": 32, "WIDTH": 32, "CHANNELS": 3, "PIXEL": "unsigned char", "SCALE": 255},
    "head.cu": {"CLASSES": 100, "FIRST_ROW": 0, "GUMBEL": 1},
    "noise.cu": {"COLUMNS": 100},
    "reduce.cu": {},
    "rows.cu": {"WIDTH": 257},
}
CASES = [
    pytest.param(file, real, variant, id=f"{file}-{real}-{number}")
    for file in SOURCES
    for real in ("float", "double")
    for number, variant in enumerate([{}, {"POOL": 1, "RELU": 0}] if file == "convolution.cu" else [{}])
]


def nvrtc() -> Any:
    """The library of NVIDIA's wheel, of a toolkit in the loader's path or in its usual folder; None without one."""
    paths: list[Path | str] = []
    try:
        import nvidia

        paths += [path for root in nvidia.__path__ for path in sorted(Path(root).rglob("libnvrtc.so*"))]
    except ImportError:
        pass
    paths += [path for path in [find_library("nvrtc")] if path]
    paths += sorted(Path("/usr/local/cuda").glob("lib*/libnvrtc.so*"))
    return ctypes.CDLL(str(paths[0])) if paths else None


def options(source: str, real: str, constants: dict[str, Any]) -> list[str]:
    """Those that backend.cuda gives to CuPy."""
    given: list[tuple[str, ...]] = []

    def module(code: str, options: tuple[str, ...]) -> Any:
        assert code == source
        given.append(options)
        return SimpleNamespace(get_function=lambda name: None)

    cuda = object.__new__(Cuda)
    cuda.cupy = SimpleNamespace(RawModule=module)
    cuda.kernel(source, "any", {"real": real, **constants})
    return list(given[0])


def compile_with_nvrtc(library: Any, source: str, flags: list[str]) -> tuple[int, str]:
    """The status (0: it compiled to machine code) and the compiler's words."""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
    status = library.nvrtcCompileProgram(program, len(flags), (ctypes.c_char_p * len(flags))(*map(str.encode, flags)))
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    if status == 0:
        status = library.nvrtcGetCUBINSize(program, ctypes.byref(size))
        assert size.value > 0, "no machine code"
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return status, log.value.decode()


@pytest.mark.parametrize(("file", "real", "variant"), CASES)
def test_compiles(file: str, real: str, variant: dict[str, int], tmp_path: Path) -> None:
    source, library, nvcc = SOURCES[file], nvrtc(), shutil.which("nvcc")
    flags = options(source, real, CONSTANTS[file] | variant)
    if library is not None:
        for architecture in ARCHITECTURES:
            status, log = compile_with_nvrtc(library, source, [*flags, *OF_CUPY, f"-arch={architecture}"])
            assert (status, log) == (0, ""), log
    elif nvcc is not None:
        codes = [["-gencode", f"arch={name.replace('sm', 'compute')},code={name}"] for name in ARCHITECTURES]
        command = [nvcc, "-x", "cu", "--fatbin", *itertools.chain(*codes), *flags, "-", "-o", str(tmp_path / "kernel")]
        result = subprocess.run(command, input=source, text=True, capture_output=True, check=False)
        assert (result.returncode, result.stderr) == (0, "")
    elif sys.platform == "darwin":
        pytest.skip("there is neither NVRTC nor nvcc for macOS")
    else:
        pytest.fail("neither NVRTC, which pip install '.[test]' brings, nor nvcc is there to compile the kernels")


@pytest.mark.parametrize("file", sorted(CONSTANTS))
def test_every_constant_is_known(file: str) -> None:
    """What a source says it needs is what it uses, and what the cases above define."""
    source = SOURCES[file]
    code = re.sub(r"//.*", "", source)
    used = set(re.findall(r"\b[A-Z][A-Z_]+\b", code)) - set(re.findall(r"#define (\w+)", code))
    assert used == set(CONSTANTS[file])
    comments = " ".join(re.findall(r"//(.*)", source))
    assert all(re.search(rf"\b{name}\b", comments) for name in used)
