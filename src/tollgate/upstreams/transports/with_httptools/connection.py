"""One connection. The bytes that arrive belong to the response of the last request."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Protocol, cast

from tollgate.upstreams.rules import Unreachable


class Reader(Protocol):
    @property
    def status(self) -> int:
        """0 until the server answers."""

    def feed(self, data: bytes) -> None: ...

    def ended(self, error: Exception | None) -> None: ...


class Connection(asyncio.Protocol):
    def __init__(self, *, is_free: Callable[["Connection"], None], is_gone: Callable[["Connection"], None]) -> None:
        """Calls `is_free` when the next request may be sent, and `is_gone` once when it is closed."""
        self.is_open = False
        self.free_since = 0.0
        self._is_free = is_free
        self._is_gone = is_gone
        self._was_told = False
        self._transport: asyncio.Transport | None = None
        self._reader: Reader | None = None
        self._is_sending = False
        self._may_write = asyncio.Event()
        """Not set while the server takes no more of a body."""
        self._may_write.set()

    def ask(self, request: bytes, reader: Reader) -> None:
        if not self.is_open or not self._transport:
            raise Unreachable("closed at once")
        self._reader = reader
        self._transport.write(request)

    async def send(self, pieces: AsyncGenerator[bytes]) -> None:
        """The body of the last request; no more of it when the server has answered."""
        reader, self._is_sending = self._reader, True
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                await self._may_write.wait()
                if not self._reader or self._reader is not reader or reader.status or not self._transport:
                    return
                self._transport.write(piece)
        self._is_sending = False

    def leave(self, *, keep: bool) -> None:
        """Ends a request. A connection that has not sent all of it cannot be used again."""
        self._reader = None
        self._may_write.set()
        has_sent = not self._is_sending and self._transport and not self._transport.get_write_buffer_size()
        if keep and self.is_open and has_sent:
            self._is_free(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Calls `is_gone` at once, since uvloop calls nothing for a connection that is aborted while it is made."""
        self.is_open = False
        if self._transport:
            self._transport.abort()
        self._tell()

    def pause(self) -> None:
        if self._transport:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport and self.is_open:
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has another base class
        if self._was_told:
            self._transport.abort()
        else:
            self.is_open = True

    def data_received(self, data: bytes) -> None:
        if self._reader:
            self._reader.feed(data)
            if self._is_sending:
                self._may_write.set()
        else:
            self.abort()  # there is no request

    def eof_received(self) -> None:
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)
        self._tell()

    def _end(self, error: Exception | None) -> None:
        self.is_open = False
        if reader := self._reader:
            self._reader = None
            reader.ended(error)

    def _tell(self) -> None:
        if not self._was_told:
            self._was_told = True
            self._is_gone(self)
