"""Reads the pickles of CIFAR-100's Python version without unpickling them.

The opcodes are walked and not obeyed: no object is made and no name looked up, so a pickle can run nothing and take no
more memory than it has bytes. Kept are the numbers and texts, in their order, under the key of the dictionary that they
follow; the reader of CIFAR-100 knows which have to come there.
"""

import re

import numpy as np

MAX_OPCODES = 1_500_000  # where Python 3 pickled CIFAR-100's 50,000 images and their file names, it has 750,000
KEYS = (
    b"filenames", b"batch_label", b"fine_labels", b"coarse_labels", b"data", b"fine_label_names", b"coarse_label_names"
)  # fmt: skip
OPCODE = re.compile(  # what protocol 2 writes dictionaries, lists and arrays with, and bytes, where Python 3 wrote them
    rb"[(}\])RbsuaetN\x85-\x87]|[\x80qh].|[rj].{4}"
    rb"|c(numpy\._?core\.multiarray\n_reconstruct|numpy\n(ndarray|dtype)|_codecs\nencode)\n"
    rb"|(?P<number>K.|M..|J.{4})|(?P<truth>[\x88\x89])|(?P<text>U.|[TX].{4})|(?P<end>\.)",
    re.DOTALL,
)


def read_pickle(data: bytes | bytearray) -> dict[bytes, list[int | bytes]]:
    """The numbers and texts that follow each key of a pickled dictionary of CIFAR-100, in their order.

    Raises ValueError for a pickle that is damaged, or has what CIFAR-100 has not.
    """
    contents: dict[bytes, list[int | bytes]] = {}
    values: list[int | bytes] = []
    position = 0
    for _ in range(MAX_OPCODES):
        opcode = OPCODE.match(data, position)
        if not opcode:
            raise ValueError(f"CIFAR-100 has no {bytes(data[position : position + 40])!r} in a pickle of protocol 2")
        position = opcode.end()
        kind, argument = opcode[0][:1], opcode[0][1:]
        number = int.from_bytes(argument, "little")
        match opcode.lastgroup:
            case "number":
                values.append(number)
            case "truth":
                values.append(kind == b"\x88")
            case "text":
                text = bytes(data[position : position + number])
                position += number
                text = _latin(text) if kind == b"X" else text
                if text in KEYS:
                    values = contents[text] = []
                elif text != b"latin1":  # the encoding by which Python 3 writes bytes as text
                    values.append(text)
            case "end":
                return contents
    raise ValueError(f"CIFAR-100 has no more than {MAX_OPCODES:,} opcodes in a pickle")


def _latin(text: bytes) -> bytes:
    """UTF-8 as latin-1, which has no byte above C3 there: beyond it, a decoded text would take four times the room."""
    if np.frombuffer(text, np.uint8).max(initial=0) > 0xC3:
        raise ValueError("it has text beyond latin-1")
    return text.decode().encode("latin-1")
