"""Encodes the bytes of a response: line ends, compression, and how they are split into writes."""

import zlib
from collections.abc import Iterator
from itertools import pairwise

from tollgate.sandbox.faults import Faults

MEGABYTE = 1_000_000
GZIP = 16 + zlib.MAX_WBITS
SPLIT_PAUSE_SECONDS = 0.001
"""Between two writes, so that the network does not join them."""


class OutputEncoder:
    def __init__(self, faults: Faults) -> None:
        self._crlf = "crlf" in faults
        self._megabytes = faults.whole("gzip-bomb") if "gzip-bomb" in faults else 0
        self._gzip = zlib.compressobj(9, wbits=GZIP) if self._megabytes else None
        self.splits = "split-utf8" in faults

    @property
    def alters(self) -> bool:
        return self._crlf or self.splits or self._gzip is not None

    @property
    def encoding(self) -> list[tuple[str, str]]:
        return [("content-encoding", "gzip")] if self._gzip else []

    def bomb(self, opening: bytes, closing: bytes) -> Iterator[bytes]:
        """Compresses one megabyte at a time, so that a hundred never are in memory."""
        if self._gzip is None:
            return
        yield self._gzip.compress(opening)
        blanks = b" " * MEGABYTE
        for _ in range(self._megabytes):
            yield self._gzip.compress(blanks)
        yield self._gzip.compress(closing)

    def writes(self, data: bytes) -> list[bytes]:
        if self._crlf:
            data = data.replace(b"\n", b"\r\n")
        if self._gzip is not None:
            return [self._gzip.compress(data) + self._gzip.flush(zlib.Z_SYNC_FLUSH)]
        return split(data) if self.splits else [data]

    def end(self) -> bytes:
        return self._gzip.flush() if self._gzip else b""


def split(data: bytes) -> list[bytes]:
    """Cuts after the first byte of the first character that has more than one, and in the middle."""
    long = next((place + 1 for place, byte in enumerate(data) if byte >= 0xC0), len(data) // 3)
    places = sorted({0, long, len(data) // 2, len(data)})
    return [data[start:end] for start, end in pairwise(places) if end > start]
