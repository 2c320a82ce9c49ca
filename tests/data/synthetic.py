"""A small CIFAR-100 with random pixels, as the files of either version, in a folder or an archive."""

import io
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

TRAIN_RECORDS = 200
TEST_RECORDS = 100
CLASS_NAMES = [f"class_{i}" for i in range(100)]
SUPERCLASS_NAMES = [f"superclass_{i}" for i in range(20)]
SUPERCLASSES = np.arange(100) * 7 % 20


def records(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels (count, 3072), fine labels and coarse labels, all uint8."""
    rng = np.random.default_rng(seed)
    fine = rng.permutation(np.arange(count) % 100)
    pixels = rng.integers(256, size=(count, 3072), dtype=np.uint8)
    return pixels, fine.astype(np.uint8), SUPERCLASSES[fine].astype(np.uint8)


TRAIN = records(TRAIN_RECORDS, seed=1)
TEST = records(TEST_RECORDS, seed=2)


def binary_file(pixels: np.ndarray, fine: np.ndarray, coarse: np.ndarray) -> bytes:
    return np.column_stack([coarse, fine, pixels]).tobytes()


def binary_files() -> dict[str, bytes]:
    return {
        "train.bin": binary_file(*TRAIN),
        "test.bin": binary_file(*TEST),
        "fine_label_names.txt": "\n".join(CLASS_NAMES).encode() + b"\n\n",
        "coarse_label_names.txt": "\n".join(SUPERCLASS_NAMES).encode() + b"\n",
    }


def python3_pickle(content: Mapping[str, object]) -> bytes:
    """As this Python and this NumPy write it: bytes become calls of _codecs.encode."""
    return pickle.dumps({key.encode(): _as_bytes(value) for key, value in content.items()}, protocol=2)


def numpy1_pickle(content: Mapping[str, object]) -> bytes:
    """As Python 3 with NumPy 1 writes it."""
    return python3_pickle(content).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def fortran_pickle(content: Mapping[str, object]) -> bytes:
    """With arrays in Fortran order."""
    return python3_pickle({k: np.asfortranarray(v) if isinstance(v, np.ndarray) else v for k, v in content.items()})


def python2_pickle(content: Mapping[str, object]) -> bytes:
    """As Python 2 wrote the official files: bytes are BINSTRING, and NumPy's flags are 0 and 1."""

    def write(value: object) -> bytes:
        match value:
            case np.ndarray():
                shape = b"(" + b"".join(b"J" + size.to_bytes(4, "little") for size in value.shape) + b"t"
                dtype = b"cnumpy\ndtype\n" + write("u1") + b"K\0K\1\x87R(K\3" + write("|") + b"NNNJ" + b"\xff" * 4
                return (
                    b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85" + write("b") + b"\x87R"
                    + b"(K\1" + shape + dtype + b"J" + b"\xff" * 4 + b"K\0tb"
                    + b"\x89T" + value.nbytes.to_bytes(4, "little") + value.tobytes() + b"tb"
                )  # fmt: skip
            case list():
                return b"](" + b"".join(write(item) for item in value) + b"e"
            case str():
                return b"U" + len(value).to_bytes(1, "little") + value.encode()
            case int():
                return b"K" + value.to_bytes(1, "little")
        raise TypeError(value)

    return b"\x80\x02}(" + b"".join(write(key) + write(value) for key, value in content.items()) + b"u."


PICKLES = {
    "python2": python2_pickle,
    "numpy1": numpy1_pickle,
    "numpy2": python3_pickle,
    "fortran": fortran_pickle,
}


def python_content(pixels: np.ndarray, fine: np.ndarray, coarse: np.ndarray) -> dict[str, object]:
    return {
        "filenames": [f"image_{i}.png" for i in range(len(fine))],
        "batch_label": "training batch 1 of 1",
        "fine_labels": fine.tolist(),
        "coarse_labels": coarse.tolist(),
        "data": pixels,
    }


def python_files(writer: str = "python2") -> dict[str, bytes]:
    write = PICKLES[writer]
    return {
        "train": write(python_content(*TRAIN)),
        "test": write(python_content(*TEST)),
        "meta": write({"fine_label_names": CLASS_NAMES, "coarse_label_names": SUPERCLASS_NAMES}),
    }


def write_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, contents in files.items():
        (folder / name).write_bytes(contents)
    return folder


def tar_bytes(files: Mapping[str, bytes], *extra: tarfile.TarInfo, mode: str = "w:gz") -> bytes:
    """An archive of a folder with these files, and of extra members of which there is only the header."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        folder = tarfile.TarInfo("cifar-100-folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, contents in files.items():
            member = tarfile.TarInfo(f"cifar-100-folder/{name}")
            member.size = len(contents)
            archive.addfile(member, io.BytesIO(contents))
        for member in extra:
            archive.addfile(member)
    return buffer.getvalue()


def _as_bytes(value: object) -> object:
    match value:
        case str():
            return value.encode()
        case list():
            return [_as_bytes(item) for item in value]
    return value
