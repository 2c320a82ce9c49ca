"""What a fuzzer does to a file: changes of its bytes, and right checksums afterwards, so that they are believed."""

import hashlib
import random
import re
import struct
import zlib
from contextlib import suppress

import msgspec
import numpy as np
import safetensors.numpy

from scratchnet.sealed import digest_of_arrays

NUMBERS = 0, 1, 2, 127, 128, 255, 256, 65535, 65536, 2**20, 2**31, 2**32, 10**12, 2**62, 2**63, 2**64
TEXTS = (
    b"0", b"-1", b"1.5", b"1e999", b"NaN", b"null", b"true", b"[]", b"{}", b'""', b"9" * 400, b"9" * 5000, b"[" * 2000,
    b"<f8", b"|O", b"<U0", b"<U1", b"/", b"..", b"\\", b"\0", b"\n", b"\xff\xfe", b"\xc3\xa9\xf0\x9f\x98\x80",
    b"(" * 300, b"\x85" * 2000, b"]" * 50, b"}", b")", b"0.", b"h\0", b"q\0", b"R", b"b", b"cos\nsystem\n", bytes(512),
    b"X\xff\xff\xff\x7f", b"T\xff\xff\xff\x7f", b"\\u001b", b"\x1b",
)  # fmt: skip


def mutate(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    """`data` with one change: of a bit, byte, number, piece of text, or of its length, or a splice with a seed."""
    start = rng.randrange(len(data) + 1)
    end = min(len(data), start + rng.choice([0, 1, 2, 4, 8, 40, 200]))
    number = rng.choice(NUMBERS) + rng.choice([-1, 0, 0, 1])
    match rng.randrange(9):
        case 0 if start < len(data):
            piece, end = bytes([data[start] ^ 1 << rng.randrange(8)]), start + 1
        case 1:
            piece, end = rng.randbytes(rng.randint(1, 4)), start + 1
        case 2:  # a binary number
            size = rng.choice([1, 2, 4, 8])
            piece = (number % 256**size).to_bytes(size, rng.choice(["little", "big"]))
            end = start + size
        case 3 if numbers := list(re.finditer(rb"\d+", data)):
            start, end = rng.choice(numbers).span()
            text = str(number).encode() if rng.random() < 0.5 else b"%o" % max(number, 0)
            piece = text.rjust(end - start, b"0") if rng.random() < 0.5 else text
        case 4:
            piece = rng.choice(TEXTS)
            end = start + rng.choice([0, len(piece)])
        case 5:
            piece = b""  # removes
        case 6:
            piece = data[start:end] * rng.choice([2, 3, 50])
        case 7:
            other = rng.choice(seeds)
            first = rng.randrange(len(other) + 1)
            piece = other[first : first + rng.choice([8, 100, 512, len(other)])]
            end = start + rng.choice([0, len(piece)])
        case _:
            piece, end = b"", rng.choice([end, len(data)])  # truncates, at times
    return data[:start] + piece + data[end:]


def mend_tar(data: bytes) -> bytes:
    mended = bytearray(data)
    for start in range(0, len(data) - 511, 512):
        header = mended[start : start + 512]
        if header[257:262] == b"ustar":
            mended[start + 148 : start + 156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
    return bytes(mended)


def mend_gzip(data: bytes) -> bytes:
    """With the right trailer behind the compressed data, where these can be read to their end."""
    stream = zlib.decompressobj(-15)
    try:
        content = stream.decompress(data[10:], 1 << 20)
    except zlib.error:
        return data
    end = len(data) - len(stream.unused_data)
    trailer = struct.pack("<II", zlib.crc32(content), len(content))
    return data[:end] + trailer + data[end + 8 :] if stream.eof else data


def mend_tensors(data: bytes) -> bytes:
    """With the right length of the header, and the right digests of the record and of the arrays, where they are."""
    match = re.search(rb"\}\} *", data)  # ends the header, as the lines of the record are apart
    if match is None:
        return data
    header, arrays = data[8 : match.end()], data[match.end() :]
    header = header.ljust(-(-len(header) // 8) * 8)
    data = len(header).to_bytes(8, "little") + header + arrays
    with suppress(Exception):  # whatever msgspec and safetensors say of it
        *_, text = msgspec.json.decode(header)["__metadata__"]["scratchnet"].split(" ", 2)
        digests = hashlib.sha256(text.encode()).hexdigest(), digest_of_arrays(safetensors.numpy.load(data))
        data = re.sub(rb'"[0-9a-f]+ [0-9a-f]+ ', '"{} {} '.format(*digests).encode(), data, count=1)
    return data


def sealed(text: bytes, arrays: dict[str, np.ndarray]) -> bytes:
    """What `sealed` of the package would write, were this the text of its record."""
    seal = f"{hashlib.sha256(text).hexdigest()} {digest_of_arrays(arrays)} {text.decode()}"
    return safetensors.numpy.save(arrays, {"scratchnet": seal})
