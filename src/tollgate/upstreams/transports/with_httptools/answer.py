"""One response, from the first byte of its head to the last of its body."""

import asyncio
from typing import Final

import httptools

from tollgate.upstreams.rules import ConnectionLost, NotHttp, TransportFailed
from tollgate.upstreams.transports.with_httptools.connection import Connection

MOST_HEAD_BYTES: Final = 64 * 1024
"""The most bytes without a part of the body: of a head, or of trailers."""
MOST_UNREAD_BYTES: Final = 256 * 1024
"""Above this, the connection is not read until the body is."""


class HttptoolsAnswer:
    """Has the callbacks of the parser, and methods to read the body. When the response is complete, the connection may
    already serve another."""

    def __init__(self, connection: Connection) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._connection = connection
        self._pieces: list[bytes] = []
        self._unread = 0
        self._is_paused = False
        self._is_complete = False
        self._is_kept = False
        self._failure: TransportFailed | None = None
        self._waiting: asyncio.Future[None] | None = None
        self.on_body = self._pieces.append
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)

    async def head(self) -> None:
        while not self.status:
            await self._change()

    def at_hand(self) -> bytes | None:
        if self._pieces:
            return self._taken()
        return b"" if self._is_complete else None

    async def piece(self) -> bytes:
        while (piece := self.at_hand()) is None:
            await self._change()
        return piece

    async def close(self) -> None:
        self.abandon()

    def abandon(self) -> None:
        if self._parser:
            self._fail(ConnectionLost("closed here"))

    def feed(self, data: bytes) -> None:
        """Called with the bytes that arrive."""
        assert self._parser  # noqa: S101
        self._unread += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._malformed(type(error).__name__)
        else:
            self._look()
        self._wake()

    def ended(self, error: Exception | None) -> None:
        """Called when the connection ends. Without a length, that is the end of the body."""
        if error is None and self.status and self.headers.keys().isdisjoint(("content-length", "transfer-encoding")):
            self._is_complete = True
            self._release(keep=False)
        else:
            self._fail(ConnectionLost(type(error).__name__ if error else "ended early"))
        self._wake()

    def on_message_begin(self) -> None:
        """A second response, which nobody requested, is not read."""
        if self._is_complete:
            raise NotHttp("another answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Trailers are ignored."""
        if not self.status:
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1").strip(" \t")

    def on_headers_complete(self) -> None:
        """Informational responses (1xx) are ignored."""
        assert self._parser  # noqa: S101
        status = self._parser.get_status_code()
        if self.status or status < 200:
            self.headers = self.headers if self.status else {}
        elif self.headers.get("transfer-encoding", "chunked").lower() != "chunked":
            raise NotHttp("transfer-encoding")
        else:
            self.status = status

    def on_message_complete(self) -> None:
        assert self._parser  # noqa: S101
        if self.status and not self._is_complete:
            self._is_complete = True
            self._is_kept = self._parser.should_keep_alive()

    def _look(self) -> None:
        if self._is_complete:
            self._release(keep=self._is_kept)
        elif self._unread > MOST_HEAD_BYTES and not self._pieces:
            self._malformed("endless head")
        elif self._unread > MOST_UNREAD_BYTES and not self._is_paused:
            self._is_paused = True
            self._connection.pause()

    def _taken(self) -> bytes:
        pieces = self._pieces
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._unread = 0
        if self._is_paused and self._parser:
            self._is_paused = False
            self._connection.resume()
        return piece

    def _malformed(self, why: str) -> None:
        if self._is_complete:
            self._release(keep=False)
        else:
            self._fail(NotHttp(why))

    def _fail(self, failure: TransportFailed) -> None:
        self._failure = failure
        self._release(keep=False)
        self._wake()

    def _release(self, *, keep: bool) -> None:
        """Breaks the reference cycle with the parser, so that both are freed at once."""
        if self._parser:
            self._parser = None
            del self.on_body
            self._connection.leave(keep=keep)

    async def _change(self) -> None:
        if self._failure:
            raise self._failure
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def _wake(self) -> None:
        if self._waiting and not self._waiting.done():
            self._waiting.set_result(None)
