"""An upper bound for the pages of a PDF. Libraries trust the page count that the file states, so none is used."""

import base64
import binascii
import re
import zlib
from typing import Final

MOST_UNPACKED_BYTES: Final = 8 * 1024 * 1024
"""Of all object streams of a PDF together."""

_REFERENCES: Final = tuple(blank + b"R" for blank in (b" ", b"\n", b"\r", b"\t", b"\x0c", b"\x00"))
_ESCAPED: Final = re.compile(rb"/((?:[A-Za-z]*#[0-9A-Fa-f]{2})+[A-Za-z]*)")
"""A name in a PDF with escaped characters, such as /Obj#53tm."""
_OBJECT_STREAM: Final = re.compile(rb"/ObjStm[^>]{0,500}>>\s{0,9}stream\r?\n")
_DATA: Final = re.compile(r"data:[^,]{0,200};base64,")


def pages(payload: str) -> int | None:
    """The most pages that a PDF can have; None where they cannot be counted.

    The list of its parent refers to each page, so a PDF has no more pages than references, compressed ones included.
    Files that are linked or encrypted, or hide references by escaped names, are not counted.
    """
    data = _decoded(payload)
    if data is None or b"%PDF" not in data[:1024] or b"/Encrypt" in data or _hides(data):
        return None
    unpacked = _unpacked(data)
    if unpacked is None:
        return None
    return max(1, sum(part.count(reference) for part in (data, *unpacked) for reference in _REFERENCES))


def _hides(data: bytes) -> bool:
    """Whether an object stream or an encryption is named with escaped characters."""
    names = (
        re.sub(rb"#(..)", lambda code: bytes.fromhex(code[1].decode()), found[1]) for found in _ESCAPED.finditer(data)
    )
    return any(name in (b"ObjStm", b"Encrypt") for name in names)


def _unpacked(data: bytes) -> list[bytes] | None:
    """The object streams of a PDF, which may contain references; None where one cannot be read."""
    streams = [found.end() for found in _OBJECT_STREAM.finditer(data)]
    if len(streams) != data.count(b"/ObjStm"):
        return None
    unpacked: list[bytes] = []
    for start in streams:
        inflater = zlib.decompressobj()
        try:
            unpacked.append(inflater.decompress(memoryview(data)[start:], MOST_UNPACKED_BYTES // len(streams)))
        except zlib.error:
            return None
        if not inflater.eof:
            return None
    return unpacked


def _decoded(payload: str) -> bytes | None:
    head = _DATA.match(payload)
    if not head:
        return None
    try:
        return base64.b64decode(payload[head.end() :])
    except binascii.Error:
        return None
