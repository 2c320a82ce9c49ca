"""Small files that would take much memory or overflow the stack; `python -m tests.fuzz.bombs` prints what each did.

All are read in one process, which may take no more address space than LIMIT beyond what it has at the start.
"""

import io
import json
import struct
import tarfile
import tempfile
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from scratchnet.data import archive, unpickle
from scratchnet.data.cifar100 import read_cifar100
from scratchnet.errors import ScratchnetError
from scratchnet.experiments.reading import read_npz
from scratchnet.experiments.result import Result
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


def npy(header: bytes, content: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + content


def npz(*members: tuple[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as archive, warnings.catch_warnings(action="ignore"):
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def shaped(shape: object, dtype: str = "<f4", content: bytes = bytes(8)) -> bytes:
    header = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return npz(("a.npy", npy(header, content)))


def overlapping(entries: int) -> bytes:
    """An npz of arrays of which each holds all the arrays after it, and the last a megabyte."""
    data, directory = bytes(MIB), []
    for number in range(entries):
        header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({len(data)},)}}\n".encode()
        archive = npz((f"{number}.npy", npy(header, data)))
        start = archive.rindex(b"PK\1\2")
        data = archive[:start]
        directory.append((archive[start : archive.rindex(b"PK\5\6")], len(data)))
    central = b"".join(entry[:42] + struct.pack("<I", len(data) - size) + entry[46:] for entry, size in directory)
    return data + central + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, entries, entries, len(central), len(data), 0)


def header(**changes: object) -> bytes:
    seed = CHECKPOINT.seeds[0]
    content = json.loads(seed[seed.index(b"{") : seed.rindex(b'"}') + 2])
    return sealed(json.dumps(content | changes).encode())


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
        lambda: gzipped((member("x", 12 * MIB, tarfile.GNUTYPE_LONGNAME), 1), (bytes(MIB), 12)), MIB
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
EMPTY = b"{'descr': '<f4', 'fortran_order': False, 'shape': (0,)}\n"
ARRAYS: Bombs = {
    "npz of a huge shape": (lambda: shaped((10**6, 10**9)), MIB),
    "npz of a shape beyond all integers": (lambda: shaped((10**30,)), MIB),
    "npz of a negative shape": (lambda: shaped((-1, -2)), MIB),
    "npz of long texts": (lambda: shaped((1,), "<U500000000"), MIB),
    "npz of empty texts": (lambda: shaped((10**15,), "<U0", b""), MIB),
    "npz with a nested header": (lambda: npz(("a.npy", npy(b"(" * 9000))), 8 * MIB),
    "npz with a long header": (lambda: npz(("a.npy", npy(b"[" + b"0," * 30_000 + b"]"))), 8 * MIB),
    "zip bomb": (lambda: npz(("a.npy", bytes(20 * MIB)), kind=zipfile.ZIP_DEFLATED), MIB),
    "npz of overlapping arrays": (lambda: overlapping(60), 8 * MIB),
    "npz of too many arrays": (lambda: npz(*((f"{number}.npy", b"") for number in range(1001))), 2 * MIB),
    "npz with a name twice": (lambda: npz(*2 * [("a.npy", npy(EMPTY))]), MIB),
}
RESULTS: Bombs = {
    "nested JSON": (lambda: metrics(b"[" * 10**6), 8 * MIB),
    "nested JSON that ends": (lambda: metrics(b"[" * 10**6 + b"]" * 10**6), 8 * MIB),
    "JSON of ten million bytes": (lambda: metrics(b"[" + b"[]," * 3 * 10**6 + b"0]"), MIB),
    "JSON of a million bytes": (lambda: metrics(b"[" + b"[{}]," * 200_000 + b"0]"), 49 * MIB),
    "JSON with a number of many digits": (lambda: metrics(b"9" * 10**6), 8 * MIB),
    "JSON with a name of many letters": (lambda: b'{"epochs": [{"' + b"a" * 10**6 + b'": 1}]}', 16 * MIB),
}
CHECKPOINTS: Bombs = {
    "checkpoint with a huge header": (lambda: sealed(b"{")[:-5] + b"\xff\xff\xff\xff", MIB),
    "checkpoint of huge arrays": (lambda: header(arrays={"parameters": ["<f4", 10**15]}), MIB),
    "checkpoint of many epochs": (
        lambda: header(epochs=10**9, progress={"epoch": 10**8, "steps": 1, "loss": 0.0, "correct": 0, "seconds": 0.0}),
        MIB,
    ),
    "checkpoint with a nested header": (lambda: sealed(b"[" * 60_000), 8 * MIB),
    "checkpoint with nested settings": (lambda: header(settings={"recipe": nested(900)}), MIB),
    "checkpoint with settings of control characters": (lambda: header(settings={"recipe": "\x1b[2J\n"}), MIB),
    "checkpoint with a nested progress": (lambda: header(progress={"epoch": nested(900)}), MIB),
}


GROUPS: list[tuple[str, Callable[[Path], object], Bombs]] = [
    ("a.tar", read_cifar100, ARCHIVES),
    ("train", lambda path: read_cifar100(path.parent), PICKLES),
    ("a.npz", read_npz, ARRAYS),
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
