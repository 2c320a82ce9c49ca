"""Reads the wanted files of a folder or a tar archive into memory; nothing is ever extracted to disk."""

import gzip
import io
import reprlib
import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path, PureWindowsPath

from scratchnet.errors import DataError

# Unpacked, CIFAR-100 has 184 million bytes (binary version) or 187 million (Python version); where Python 3 pickled it,
# 1.5 times as many, at most twice: protocol 2 has no bytes, and writes them as text, where UTF-8 doubles those > 127.
MAX_BYTES = 400_000_000
CHUNK_BYTES = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"


def read_folder(folder: Path, names: Collection[str]) -> dict[str, bytes | bytearray]:
    """The contents of the files called `names`, those that are there, by name.

    Raises DataError where together they are larger than CIFAR-100, OSError where a file cannot be read.
    """
    paths = [folder / name for name in names if (folder / name).is_file()]
    _check_size(str(folder), sum(path.stat().st_size for path in paths))
    return {path.name: path.read_bytes() for path in paths}


def read_archive(path: Path, names: Collection[str]) -> dict[str, bytes | bytearray]:
    """The contents of the files called `names`, in whatever folder of the tar or tar.gz archive they are, by name.

    Extended headers (times, owners, paths longer than a plain header holds) are skipped. Raises DataError for a damaged
    archive, for one that holds a file twice, and for any member that an honest archive does not have: an absolute path
    or `..`, a link or device, a size beyond that of CIFAR-100.
    """
    files: dict[str, bytes | bytearray] = {}
    try:
        with path.open("rb") as file:
            stream = gzip.GzipFile(fileobj=file) if file.peek(2).startswith(GZIP_MAGIC) else file
            total = 0
            while (header := _read(stream, tarfile.BLOCKSIZE)) != bytes(tarfile.BLOCKSIZE):
                # By itself, tarfile would follow extended headers, however long they are and however many records.
                member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
                size = 0 if member.isdir() else member.size
                where = f"{path}: its member {reprlib.repr(member.name)}"
                _check_member(where, member)
                _check_size(where, size)
                total += tarfile.BLOCKSIZE + size
                _check_size(str(path), total)
                contents = _read(stream, size)
                _read(stream, -size % tarfile.BLOCKSIZE)
                name = PureWindowsPath(member.name).name
                if member.isreg() and name in names:
                    if name in files:
                        raise DataError(f"{path} holds {name} twice")
                    files[name] = contents
            while chunk := stream.read(CHUNK_BYTES):  # gzip checks the contents where they end
                total += len(chunk)
                _check_size(str(path), total)
    except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError) as error:
        raise DataError(f"{path} is truncated, corrupted or no tar or tar.gz archive ({error})") from error
    return files


def _read(stream: io.BufferedIOBase, size: int) -> bytearray:
    """`size` bytes, piece by piece into place: at once, they would be twice in memory."""
    contents = bytearray(size)
    space = memoryview(contents)
    while space:
        count = stream.readinto(space[:CHUNK_BYTES])
        if not count:
            raise EOFError("unexpected end of data")
        space = space[count:]
    return contents


def _check_member(where: str, member: tarfile.TarInfo) -> None:
    # A Windows path knows all separators and anchors: /, \ and C:.
    location = PureWindowsPath(member.name)
    if location.anchor or ".." in location.parts:
        raise DataError(f"{where} points out of the archive")
    kinds = tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.XHDTYPE, tarfile.XGLTYPE
    if member.type not in kinds:
        raise DataError(f"{where} is a link, a device or some other special file")


def _check_size(where: str, size: int) -> None:
    if not 0 <= size <= MAX_BYTES:
        raise DataError(
            f"{where} has a size that CIFAR-100 cannot have: all its files have less than {MAX_BYTES:,} bytes"
        )
