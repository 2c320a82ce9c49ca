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
CHUNK_BYTES = 1 << 18
GZIP_MAGIC = b"\x1f\x8b"
PLAIN_KINDS = tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.XHDTYPE, tarfile.XGLTYPE


def read_folder(folder: Path, names: Collection[str]) -> dict[str, bytes | bytearray]:
    """The contents of the files called `names`, those that are there, by name.

    Raises DataError where together they are larger than CIFAR-100, OSError where a file cannot be read.
    """
    paths = [folder / name for name in names if (folder / name).is_file()]
    if sum(path.stat().st_size for path in paths) > MAX_BYTES:
        raise DataError(f"{folder} is too large: all files of CIFAR-100 have less than {MAX_BYTES:,} bytes")
    return {path.name: path.read_bytes() for path in paths}


def read_archive(path: Path, names: Collection[str]) -> dict[str, bytes | bytearray]:
    """The contents of the files called `names`, in whatever folder of the tar or tar.gz archive they are, by name.

    Extended headers (times, owners, paths longer than a plain header holds) are skipped. Raises DataError for a damaged
    archive, and for any member that an honest archive does not have: a link or device, a wanted file for the second
    time, a size beyond that of CIFAR-100.
    """
    files: dict[str, bytes | bytearray] = {}
    left = MAX_BYTES
    try:
        with path.open("rb") as file:
            stream = gzip.GzipFile(fileobj=file) if file.peek(2).startswith(GZIP_MAGIC) else file
            while any(header := _read(stream, tarfile.BLOCKSIZE)):
                # By itself, tarfile would follow extended headers, however long they are and however many records.
                member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
                name = PureWindowsPath(member.name).name
                size = 0 if member.isdir() else member.size
                left -= tarfile.BLOCKSIZE + size
                if size < 0 or left < 0 or member.type not in PLAIN_KINDS or name in files:
                    problem = f"is a link or device, there twice, or makes more than {MAX_BYTES:,} bytes together"
                    raise DataError(f"{path}: its member {reprlib.repr(member.name)} {problem}")
                contents = _read(stream, size)
                _read(stream, -size % tarfile.BLOCKSIZE)
                if member.isreg() and name in names:
                    files[name] = contents
            if len(stream.read(CHUNK_BYTES)) == CHUNK_BYTES:  # gzip checks the contents where they end
                raise tarfile.TarError("there is more behind its end")
    except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError) as error:
        raise DataError(f"{path} is truncated, corrupted or no tar or tar.gz archive ({error})") from error
    return files


def _read(stream: io.BufferedIOBase, size: int) -> bytearray:
    """`size` bytes, piece by piece: at once, they would be twice in memory."""
    contents = bytearray()
    while len(contents) < size:
        contents += (piece := stream.read(min(CHUNK_BYTES, size - len(contents))))
        if not piece:
            raise EOFError("unexpected end of data")
    return contents
