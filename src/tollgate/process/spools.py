"""Keeps what is too large for memory: in a file without a name, which the system frees when the process ends."""

import hashlib
import os
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncGenerator
from typing import IO, Final

from tollgate.core.errors import ServerBusy
from tollgate.process import logs, threads

BLOCK_BYTES: Final = 128 * 1024
"""Up to this much is kept in memory. More is written and read in blocks of this size."""
SHARE: Final = 4
"""One owner may have a quarter of the room."""

log = logs.source("application")


class Spools:
    """All that are open in this process."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._total = 0
        self._by_owner: Counter[str] = Counter()

    @property
    def bytes_kept(self) -> int:
        return self._total

    def open(self, owner: str) -> "Spool":
        """Always close it."""
        return Spool(self, owner)

    def take(self, owner: str, size: int) -> None:
        """Raises ServerBusy where there is no room."""
        if self._total + size > self._most_bytes or (self._by_owner[owner] + size) * SHARE > self._most_bytes:
            raise ServerBusy
        self._total += size
        self._by_owner[owner] += size

    def give_back(self, owner: str, size: int) -> None:
        self._total -= size
        self._by_owner[owner] -= size
        if not self._by_owner[owner]:
            del self._by_owner[owner]


class Spool:
    """Bytes that are added once, and then read as often as needed."""

    def __init__(self, spools: Spools, owner: str) -> None:
        self._spools = spools
        self._owner = owner
        self._file: IO[bytes] | None = None
        self._written = 0
        self._rest = bytearray()
        """What is not in the file."""
        self._digest = hashlib.sha256()
        self._in_use = threading.Lock()
        """A thread uses the file. It may go on after its call was cancelled, and must not find another file."""

    @property
    def size(self) -> int:
        return self._written + len(self._rest)

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    async def add(self, piece: bytes) -> None:
        """Raises ServerBusy where there is no room for it."""
        self._spools.take(self._owner, len(piece))
        self._rest += piece
        self._digest.update(piece)
        if len(self._rest) >= BLOCK_BYTES:
            block, self._rest = self._rest, bytearray()
            self._written += len(block)
            await threads.work(len(block), self._write, block)

    async def pieces(self) -> AsyncGenerator[bytes]:
        place = 0
        while place < self._written:
            yield (block := await threads.work(BLOCK_BYTES, self._read, place, BLOCK_BYTES))
            place += len(block)
        if self._rest:
            yield bytes(self._rest)

    async def ends(self, size: int) -> tuple[bytes, bytes]:
        """Its first and its last bytes, up to `size` each."""
        head = await threads.work(size, self._read, 0, size) if self._written else b""
        start = max(0, self.size - size)
        tail = await threads.work(size, self._read, start, size) if start < self._written else b""
        return (head + self._rest[: size - len(head)])[:size], tail + self._rest[max(0, start - self._written) :]

    def close(self) -> None:
        self._spools.give_back(self._owner, self.size)
        self._written = 0
        self._rest.clear()
        with self._in_use:
            if self._file:
                self._file.close()
            self._file = None

    def _write(self, block: bytearray) -> None:
        try:
            with self._in_use:
                if self._file is None:
                    self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # closed by `close`
                left = memoryview(block)
                while left:
                    left = left[self._file.write(left) :]
        except OSError as error:
            log.error("no_room_for_uploads", why=type(error).__name__, folder=tempfile.gettempdir())
            raise ServerBusy from None

    def _read(self, place: int, size: int) -> bytes:
        """At most up to the end of what was written; nothing when it is closed."""
        with self._in_use:
            return os.pread(self._file.fileno(), min(size, self._written - place), place) if self._file else b""
