"""Small files that would take much memory or overflow the stack; `python -m tests.fuzz.bombs` prints what each did.

All are read in one process, which may take no more address space than LIMIT beyond what it has at the start.
"""

import json
import re
import struct
import tarfile
import tempfile
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np

from scratchnet.data import archive, unpickle
from scratchnet.data.cifar100 import read_cifar100
from scratchnet.errors import ScratchnetError
from scratchnet.experiments.checkpoint import Checkpoint
from scratchnet.experiments.reading import read_tensors
from scratchnet.experiments.result import Names, Result
from tests.data.synthetic import binary_files, tar_bytes
from tests.fuzz.mutations import sealed
from tests.fuzz.readers import all_readers

LIMIT = 1 << 30
MIB = 1 << 20
LARGEST, OPCODES = 16 * MIB, 150_000  # for archive.MAX_BYTES and unpickle.MAX_OPCODES: no bomb is to be slow
READERS = {reader.name: reader for reader in all_readers()}
CHECKPOINT = READERS["checkpoint"]


def gzipped(*parts: tuple[bytes, int]) -> bytes:
    """What gzip makes of parts of which each comes many times, without making any of them but once."""
    content = bytearray(b"\x1f\x8b\x08" + bytes(7))
    for part, times in parts:
        compressor = zlib.compressobj(9, wbits=-15)
        content += (compressor.compress(part) + compressor.flush(zlib.Z_FULL_FLUSH)) * times
    return bytes(content)


def member(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def pax(records: int) -> bytes:
    content = b"".join(b"14 %08d=x\n" % number for number in range(records))
    return member("pax", len(content), tarfile.XHDTYPE) + content + bytes(-len(content) % 512)


def named(texts: bytes) -> bytes:
    return tar_bytes(binary_files() | {"fine_label_names.txt": texts}, mode="w")


def pickled(opcodes: bytes, key: bytes = b"data") -> bytes:
    return b"\x80\x02}U" + bytes([len(key)]) + key + opcodes + b"s."


def framed(header: bytes, content: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with this header."""
    return struct.pack("<Q", len(header) if length is None else length) + header + content


def tensor(shape: object, dtype: str = "F32", end: int = 8, names: int = 1) -> bytes:
    """One with a right record of names, and tensors of the same eight bytes that say something else of themselves."""
    sealing = sealed(b'{"classes": [], "superclasses": []}', {"a": np.zeros(2, np.float32)})
    header = sealing[8 : 8 + int.from_bytes(sealing[:8], "little")]
    told = json.dumps({"dtype": dtype, "shape": shape, "data_offsets": [0, end]}).encode()
    tensors = b",".join(b'"%d":%s' % (number, told) for number in range(names))
    return framed(re.sub(rb'"a":\{[^}]*\}', tensors, header), bytes(end if end < 2 * MIB else 8))


def header(**changes: Any) -> bytes:
    """A checkpoint whose record has these changes, in the metrics where it is of them."""
    path, content = CHECKPOINT.file, CHECKPOINT.seeds[0]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / path).write_bytes(content)
        checkpoint, arrays = read_tensors(Path(folder) / path, Checkpoint)
    record = msgspec.to_builtins(checkpoint)
    record["metrics"]["settings"] |= changes.pop("settings", {})
    return sealed(json.dumps(record | changes).encode(), arrays)


def nested(levels: int) -> list[object]:
    return [] if levels == 0 else [nested(levels - 1)]


def metrics(change: bytes) -> bytes:
    return b'{"epochs": [], "final": null, "recipe": ' + change + b"}"


# By name: the content, and the bytes that reading it may take beyond those of the content.
Bombs = dict[str, tuple[Callable[[], bytes], float]]

ARCHIVES: Bombs = {
    "gzip bomb behind the end": (lambda: gzipped((bytes(MIB), 40)), 6 * MIB),
    "gzip bomb in a member": (lambda: gzipped((member("x", LARGEST - 512), 1), (bytes(MIB), 40)), LARGEST + 6 * MIB),
    "gzip bomb of members": (lambda: gzipped((member("x", MIB - 512) + bytes(MIB - 512), 40)), 8 * MIB),
    "tar member of a terabyte": (lambda: member("train.bin", 10**12), MIB),
    "tar members of too much together": (lambda: member("a", 300) + bytes(512) + member("b", LARGEST - 1), 2 * MIB),
    "tar member of negative size": (lambda: member("train.bin", -(10**12)), MIB),
    "tar member that is not there": (lambda: member("train.bin", LARGEST - 512), LARGEST + MIB),
    "sparse member": (lambda: member("train.bin", 10**11, tarfile.GNUTYPE_SPARSE), MIB),
    "extended header of many records": (lambda: pax(200_000), MIB),
    "extended header of a terabyte": (lambda: member("pax", 10**12, tarfile.XHDTYPE), MIB),
    "long name of 12 MiB": (
        lambda: gzipped((member("x", 12 * MIB, tarfile.GNUTYPE_LONGNAME), 1), (bytes(MIB), 12)),
        MIB,
    ),
    "a million class names": (lambda: named(b"a1 " * 10**6), 12 * MIB),
}
PICKLES: Bombs = {
    "BINBYTES8": (lambda: pickled(b"\x8e" + struct.pack("<Q", 2**40)), MIB),
    "BYTEARRAY8": (lambda: pickled(b"\x96" + struct.pack("<Q", 2**30)), MIB),
    "LONG4": (lambda: pickled(b"\x8b" + struct.pack("<i", 2**31 - 1)), MIB),
    "FRAME": (lambda: pickled(b"\x95" + struct.pack("<Q", 2**40)), MIB),
    "BINSTRING": (lambda: pickled(b"T" + struct.pack("<i", 2**31 - 1)), MIB),
    "BINUNICODE": (lambda: pickled(b"X" + struct.pack("<I", 2**32 - 1)), MIB),
    "LONG_BINPUT": (lambda: pickled(b"Nr" + struct.pack("<I", 2**32 - 1)), MIB),
    "a line without end": (lambda: pickled(b"c" + b"a" * 10**7), MIB),
    "many lists": (lambda: pickled(b"(" + b"]" * 2 * OPCODES + b"l"), 12 * MIB),
    "a key of nested tuples": (lambda: b"\x80\x02})" + b"\x85" * 300_000 + b"Ns.", 30 * MIB),
    "a type of lists that double": (
        lambda: pickled(b"]q\0" + b"](h\0h\0eq\0" * 60 + b"cnumpy\ndtype\nh\0\x85R"), MIB
    ),
    "an encoding of dictionaries that double": (
        lambda: pickled(b"}q\0" + b"}(U\1ah\0U\1bh\0uq\0" * 60 + b"c_codecs\nencode\nNh\0\x86R"), MIB
    ),
    "one text in a list many times": (
        lambda: pickled(b"](T" + struct.pack("<i", MIB) + bytes(MIB) + b"q\0" + b"h\0" * 10**4 + b"e"), 4 * MIB
    ),
    "a text as arguments": (
        lambda: pickled(b"c_codecs\nencode\nT" + struct.pack("<i", 10 * MIB) + bytes(10 * MIB) + b"R"), 12 * MIB
    ),
    "a text of wide characters": (
        lambda: pickled(b"X" + struct.pack("<I", 10 * MIB + 4) + bytes(10 * MIB) + b"\xf0\x9f\x98\x80"), 12 * MIB
    ),
}  # fmt: skip
ARRAYS: Bombs = {
    "tensor of a huge shape": (lambda: tensor([10**6, 10**9]), MIB),
    "tensor of a shape beyond all integers": (lambda: tensor([10**30]), MIB),
    "tensor of a shape that overflows": (lambda: tensor([2**32, 2**32]), MIB),
    "tensor of a negative shape": (lambda: tensor([-1, -2]), MIB),
    "tensor of many dimensions": (lambda: tensor([1] * 100_000 + [2]), 8 * MIB),
    "tensor of a terabyte": (lambda: tensor([2**38], end=2**40), MIB),
    "tensor of a type that NumPy lacks": (lambda: tensor([4], "BF16"), MIB),
    "safetensors with a huge header": (lambda: framed(b"{}", length=2**63), MIB),
    "safetensors with a header that is not there": (lambda: framed(b"{}", length=4_000_000), 8 * MIB),
    "safetensors with a nested header": (lambda: framed(b"[" * 10**6), 8 * MIB),
    "safetensors with a header of many tensors": (
        lambda: framed(b"{" + b",".join(b'"%d":{}' % number for number in range(300_000)) + b"}"), 196 * MIB
    ),
    "safetensors with a nested record": (lambda: sealed(b"[" * 10**6, {}), 16 * MIB),
    "safetensors with a record of a million bytes": (lambda: sealed(b"[" + b"[{}]," * 200_000 + b"0]", {}), 16 * MIB),
    "safetensors of overlapping tensors": (lambda: tensor([MIB], "U8", MIB, names=1000), 4 * MIB),
}  # fmt: skip
RESULTS: Bombs = {
    "nested JSON": (lambda: metrics(b"[" * 10**6), 8 * MIB),
    "nested JSON that ends": (lambda: metrics(b"[" * 10**6 + b"]" * 10**6), 8 * MIB),
    "JSON of ten million bytes": (lambda: metrics(b"[" + b"[]," * 3 * 10**6 + b"0]"), MIB),
    "JSON of a million bytes": (lambda: metrics(b"[" + b"[{}]," * 200_000 + b"0]"), 49 * MIB),
    "JSON with a number of many digits": (lambda: metrics(b"9" * 10**6), 8 * MIB),
    "JSON with a name of many letters": (lambda: b'{"epochs": [{"' + b"a" * 10**6 + b'": 1}]}', 16 * MIB),
}
MANY = {"epoch": 10**8, "steps": 1, "loss": 0.0, "correct": 0, "seconds": 0.0}
CHECKPOINTS: Bombs = {
    "checkpoint of an earlier version": (lambda: b"scratchnet checkpoint 1\n" + bytes(1000), MIB),
    "checkpoint of huge arrays": (lambda: header() + bytes(8 * MIB), MIB),
    "checkpoint of many epochs": (lambda: header(settings={"epochs": 10**9}, progress=MANY), MIB),
    "checkpoint far into many epochs": (lambda: header(progress=MANY), MIB),
    "checkpoint with nested settings": (lambda: header(settings={"recipe": nested(900)}), MIB),
    "checkpoint with settings of control characters": (lambda: header(settings={"data": "\x1b[2J\n"}), MIB),
    "checkpoint with a nested progress": (lambda: header(progress={"epoch": nested(900)}), MIB),
}


GROUPS: list[tuple[str, Callable[[Path], object], Bombs]] = [
    ("a.tar", read_cifar100, ARCHIVES),
    ("train", lambda path: read_cifar100(path.parent), PICKLES),
    ("a.safetensors", lambda path: read_tensors(path, Names), ARRAYS),
    ("metrics.json", lambda path: Result.read(path.parent), RESULTS),
    (CHECKPOINT.file, lambda path: CHECKPOINT.read(path.parent), CHECKPOINTS),
]


def main() -> None:
    import resource  # which Windows does not have

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + LIMIT, used + LIMIT))
    tracemalloc.start()
    patch.object(archive, "MAX_BYTES", LARGEST).start()
    patch.object(unpickle, "MAX_OPCODES", OPCODES).start()
    with tempfile.TemporaryDirectory() as folder:
        for file, read, bombs in GROUPS:
            path = Path(folder) / file
            for name, (content, bound) in bombs.items():
                size = path.write_bytes(content())
                before = tracemalloc.get_traced_memory()[0]
                tracemalloc.reset_peak()
                try:
                    read(path)
                    outcome = "read"
                except ScratchnetError as error:
                    outcome = f"refused: {error}".replace(folder, "")
                except BaseException as error:
                    outcome = f"failed: {error!r:.200}"
                taken = tracemalloc.get_traced_memory()[1] - before
                print(json.dumps([name, outcome, taken - size, bound]), flush=True)


if __name__ == "__main__":
    main()
