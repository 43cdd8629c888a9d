"""One answer, from the first byte of its head to the last of its body."""

import asyncio
from typing import Final

import httptools

from tollgate.upstreams.rules import ConnectionLost, NotHttp, TransportFailed
from tollgate.upstreams.transports.with_httptools.wire import Wire

MOST_HEAD_BYTES: Final = 64 * 1024
"""Of a head, of what follows a body, and of whatever else says nothing."""
MOST_UNREAD_BYTES: Final = 256 * 1024
"""When the upstream waits until somebody has read."""


class HttptoolsAnswer:
    """What the parser calls, and what a reader asks. It outlives its hold on the wire, which may have moved on."""

    def __init__(self, wire: Wire) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._wire = wire
        self._pieces: list[bytes] = []
        self._unread = 0
        self._is_paused = False
        self._is_whole = False
        self._is_kept = False
        self._failure: TransportFailed | None = None
        self._waiting: asyncio.Future[None] | None = None
        self.on_body = self._pieces.append
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)

    async def head(self) -> None:
        while not self.status:
            await self._news()

    def at_hand(self) -> bytes | None:
        if self._pieces:
            return self._taken()
        return b"" if self._is_whole else None

    async def piece(self) -> bytes:
        while (piece := self.at_hand()) is None:
            await self._news()
        return piece

    async def close(self) -> None:
        self.abandon()

    def abandon(self) -> None:
        if self._parser:
            self._fail(ConnectionLost("closed here"))

    def feed(self, data: bytes) -> None:
        """What the wire brings."""
        assert self._parser  # noqa: S101
        self._unread += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._garbled(type(error).__name__)
        else:
            self._look()
        self._wake()

    def ended(self, error: Exception | None) -> None:
        """The wire brings no more. Where nothing told a body's length, that is how it ends."""
        if error is None and self.status and self.headers.keys().isdisjoint(("content-length", "transfer-encoding")):
            self._is_whole = True
            self._leave(keep=False)
        else:
            self._fail(ConnectionLost(type(error).__name__ if error else "ended early"))
        self._wake()

    def on_message_begin(self) -> None:
        """Nobody asked for a second answer, and none is read."""
        if self._is_whole:
            raise NotHttp("another answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """What follows a body is not read."""
        if not self.status:
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1").strip(" \t")

    def on_headers_complete(self) -> None:
        """Heads that only announce another are passed over."""
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
        if self.status and not self._is_whole:
            self._is_whole = True
            self._is_kept = self._parser.should_keep_alive()

    def _look(self) -> None:
        if self._is_whole:
            self._leave(keep=self._is_kept)
        elif self._unread > MOST_HEAD_BYTES and not self._pieces:
            self._garbled("endless head")
        elif self._unread > MOST_UNREAD_BYTES and not self._is_paused:
            self._is_paused = True
            self._wire.pause()

    def _taken(self) -> bytes:
        pieces = self._pieces
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._unread = 0
        if self._is_paused and self._parser:
            self._is_paused = False
            self._wire.resume()
        return piece

    def _garbled(self, why: str) -> None:
        if self._is_whole:
            self._leave(keep=False)
        else:
            self._fail(NotHttp(why))

    def _fail(self, failure: TransportFailed) -> None:
        self._failure = failure
        self._leave(keep=False)
        self._wake()

    def _leave(self, *, keep: bool) -> None:
        """The parser knows us and we know it; parted, both are freed at once."""
        if self._parser:
            self._parser = None
            del self.on_body
            self._wire.leave(keep=keep)

    async def _news(self) -> None:
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
