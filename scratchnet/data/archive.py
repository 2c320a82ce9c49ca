"""Reads the wanted files of a folder or a tar archive into memory; nothing is ever extracted to disk."""

import gzip
import io
import reprlib
import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path, PureWindowsPath
from typing import BinaryIO, cast

from scratchnet.errors import DataError

# Unpacked, CIFAR-100 has 184 million bytes (binary version) or 187 million (Python version); where Python 3 pickled it,
# 1.5 times as many, at most twice: protocol 2 has no bytes, and writes them as text, where UTF-8 doubles those > 127.
MAX_BYTES = 400_000_000
CHUNK_BYTES = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"


def read_folder(folder: Path, names: Collection[str]) -> dict[str, bytes]:
    """The contents of the files called `names`, those that are there, by name.

    Raises DataError for a file larger than CIFAR-100, OSError where a file cannot be read.
    """
    files = {}
    for path in (folder / name for name in names):
        if path.is_file():
            _check_size(str(path), path.stat().st_size)
            files[path.name] = path.read_bytes()
    return files


def read_archive(path: Path, names: Collection[str]) -> dict[str, bytearray]:
    """The contents of the files called `names`, in whatever folder of the tar or tar.gz archive they are, by name.

    Raises DataError for a damaged archive, for one that holds a file twice, and for any member that an honest archive
    does not have: an absolute path or `..`, a link or device, a size beyond that of CIFAR-100.
    """
    files: dict[str, bytearray] = {}
    try:
        with path.open("rb") as file:
            gzipped = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            file.seek(0)
            stream = _Bounded(gzip.GzipFile(fileobj=file) if gzipped else file, path)
            with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK_BYTES) as archive:  # type: ignore[call-overload]
                for member in archive:
                    _check_member(member, path)
                    name = PureWindowsPath(member.name).name
                    if member.isreg() and name in names:
                        if name in files:
                            raise DataError(f"{path} holds {name} twice")
                        files[name] = _read_member(archive, member)
            while stream.read(CHUNK_BYTES):
                pass  # gzip checks the contents where they end
    except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, ValueError) as error:
        raise DataError(f"{path} is truncated, corrupted or no tar or tar.gz archive ({error})") from error
    return files


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytearray:
    """The contents of a regular file, piece by piece into place: read() would double the time and the memory."""
    contents = bytearray(member.size)
    space = memoryview(contents)
    reader = cast(io.BufferedReader, archive.extractfile(member))
    while count := reader.readinto(space[:CHUNK_BYTES]):
        space = space[count:]
    return contents


class _Bounded:
    """A stream that refuses to give more bytes than CIFAR-100 has: a small archive can unpack to a huge one."""

    def __init__(self, stream: BinaryIO | gzip.GzipFile, path: Path) -> None:
        self.stream = stream
        self.path = path
        self.bytes_read = 0

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.bytes_read += len(data)
        _check_size(str(self.path), self.bytes_read)
        return data


def _check_member(member: tarfile.TarInfo, path: Path) -> None:
    where = f"{path}: its member {reprlib.repr(member.name)}"
    # A Windows path knows all separators and anchors: /, \ and C:.
    location = PureWindowsPath(member.name)
    if location.anchor or ".." in location.parts:
        raise DataError(f"{where} points out of the archive")
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise DataError(f"{where} is a link, a device or some other special file")
    _check_size(where, member.size)


def _check_size(where: str, size: int) -> None:
    if not 0 <= size <= MAX_BYTES:
        raise DataError(
            f"{where} has a size that CIFAR-100 cannot have: all its files have less than {MAX_BYTES:,} bytes"
        )
