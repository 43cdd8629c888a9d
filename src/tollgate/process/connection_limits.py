"""uvicorn's HTTP protocol, with limits on incomplete requests: the size and time of heads and bodies, and the memory of
all incomplete bodies. Errors have our shape.

The server checks the times of all connections once a second, so that a request needs no timer.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable
from typing import Any, Final, NamedTuple, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from tollgate.core.errors import BadRequest, HeadTooLarge, RequestTimeout, ServerBusy, TollgateError

REASONS = {
    400: "Bad Request",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}
DISCARDED_BYTES = 1024 * 1024
DISCARD_SECONDS = 2.0
"""How much of a body is read and discarded after its response, and for how long. A connection that is closed while
bytes arrive is reset, and the client could not read the response."""
LEAST_BYTES_PER_SECOND = 1024
"""The least rate of a body that takes longer than the idle time. It ends clients that only keep a connection busy."""

FRAMING: Final = frozenset((b"connection", b"transfer-encoding"))
"""Headers that decide how a response ends."""

MALFORMED = json.dumps(BadRequest("This is not a valid HTTP request.").body()).encode()


class Limits(NamedTuple):
    """Limits on what a client sends."""

    head_bytes: int = 32 * 1024
    head_seconds: float = 10.0
    body_idle_seconds: float = 20.0
    unfinished_bytes: int = 512 * 1024 * 1024
    """Of all incomplete bodies together."""
    unfinished_bytes_of_one: int | None = None
    """Of incomplete bodies from one address. None behind a proxy."""
    keep_alive_seconds: int = 5


class Unfinished:
    """The bytes of incomplete bodies in this process."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._total = 0
        self._by_address: Counter[str] = Counter()

    def take(self, address: str, size: int) -> bool:
        """Adds bytes, which count until they are given back. False when that exceeds a limit."""
        self._total += size
        self._by_address[address] += size
        of_one = self._limits.unfinished_bytes_of_one
        has_room_for_one = of_one is None or self._by_address[address] <= of_one
        return has_room_for_one and self._total <= self._limits.unfinished_bytes

    def give_back(self, address: str, size: int) -> None:
        self._total -= size
        self._by_address[address] -= size
        if not self._by_address[address]:
            del self._by_address[address]


class _Answers:
    """The transport as uvicorn uses it to send answers. `write` is the transport's own."""

    def __init__(self, protocol: "Protocol", transport: asyncio.Transport) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = protocol.close_after_answer


class _Begun:
    """The app of one request, whose answer begins with one write.

    uvicorn searches each name and value of a head with a regular expression, which was a twentieth of a paid call. A
    head with a length is checked as a whole here; any other is left to uvicorn.
    """

    def __init__(self, app: ASGIApp, cycle: RequestResponseCycle) -> None:
        self._app = app
        self._cycle = cycle
        self._send_by_uvicorn = cast("Send", cycle.send)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return self._app(scope, receive, self._send)

    def _send(self, message: Message) -> Awaitable[None]:
        return self._begin(message) if message["type"] == "http.response.start" else self._send_by_uvicorn(message)

    async def _begin(self, message: Message) -> None:
        cycle = self._cycle
        headers = [*cycle.default_headers, *message.get("headers", ())]
        named = dict(headers)
        length = named.get(b"content-length", b"")
        fields = b"\r\n".join([*map(b": ".join, headers), b""])
        is_clean = fields.count(b"\r") == fields.count(b"\n") == len(headers) and b"\0" not in fields
        is_usual = is_clean and length.isdigit() and cycle.keep_alive and FRAMING.isdisjoint(named)
        if not is_usual or cycle.response_started or cycle.disconnected or cycle.flow.write_paused:
            await self._send_by_uvicorn(message)
            return
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        cycle.chunked_encoding = False
        cycle.expected_content_length = int(length)
        cycle.transport.write(b"%b%b\r\n" % (STATUS_LINE[message["status"]], fields))


class Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *given: Any, limits: Limits, unfinished: Unfinished, **named: Any) -> None:
        super().__init__(*given, **named)
        self._limits = limits
        self._unfinished = unfinished
        self._loop = asyncio.get_running_loop()
        self._refusal: TollgateError | None = None
        self._head_since: float | None = None
        """When the head that is being received began; None otherwise."""
        self._head_bytes = 0
        self._heard_bytes = 0
        """Of the head and of what came with its end. An upper bound of the head that costs nothing."""
        self._body_since: float | None = None
        """When the body that is being received began; None otherwise."""
        self._body_bytes = 0
        self._taken_bytes = 0
        """Of the body, as counted in `unfinished`. A body that comes at once is not counted."""
        self._heard_at = 0.0
        self._discarded_bytes: int | None = None
        """After the response, when the rest of the body is read and discarded; None before."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._answers = _Answers(self, transport)
        self._head_since = self._loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        self._body_ends()
        super().connection_lost(exc)
        self._answers.close = self.transport.close  # no cycle of references is left for the garbage collector

    def data_received(self, data: bytes) -> None:
        if self._discarded_bytes is not None:
            self._discard(data)
            return
        self._heard_at = self._loop.time()
        self._heard_bytes = self._head_bytes + len(data)
        super().data_received(data)
        if self._head_since is not None:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.head_bytes:
                self.refuse(HeadTooLarge(limit_bytes=self._limits.head_bytes))
        elif self._body_since is not None:
            self._take_room()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._head_since is None:
            self._head_since = self._heard_at

    def on_headers_complete(self) -> None:
        if self._heard_bytes > self._limits.head_bytes < self._size_of_head():
            self._refusal = HeadTooLarge(limit_bytes=self._limits.head_bytes)
            raise ValueError(self._refusal.code)
        self._head_since = None
        self._head_bytes = 0
        self._body_since = self._heard_at
        super().on_headers_complete()
        self.cycle.transport = cast("asyncio.Transport", self._answers)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        super()._start_asgi_task(cycle, cast("Any", _Begun(app, cycle)))

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        if not self.cycle.response_complete:  # otherwise it is discarded
            self._body_bytes += len(body)

    def on_message_complete(self) -> None:
        self._body_ends()
        super().on_message_complete()

    def check(self, now: float) -> None:
        """Closes the connection when the client takes too long to send a request."""
        if self._head_since is not None:
            if now - self._head_since > self._limits.head_seconds:
                self.refuse(RequestTimeout())
        elif self.flow.read_paused:  # we are slow, not the client
            self._heard_at = now
        elif self._body_since is not None:
            idle = self._limits.body_idle_seconds
            late = now - self._body_since - idle
            if now - self._heard_at > idle or late * LEAST_BYTES_PER_SECOND > self._body_bytes:
                self.refuse(RequestTimeout())

    def close_after_answer(self) -> None:
        """Closes our side. Where the body is still being sent, the client's side is closed when it has read the answer,
        or when too much has come."""
        if self._body_since is None or not self.transport.can_write_eof():
            self.transport.close()
            return
        self._body_ends()
        self._discarded_bytes = 0
        self.transport.write_eof()
        self._loop.call_later(DISCARD_SECONDS, self.transport.close)

    def _discard(self, data: bytes) -> None:
        self._discarded_bytes = (self._discarded_bytes or 0) + len(data)
        if self._discarded_bytes > DISCARDED_BYTES:
            self.transport.close()

    def refuse(self, error: TollgateError) -> None:
        """Sends the error, unless a response has begun, and closes."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self._say(error.status, json.dumps(error.body()).encode())
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """uvicorn calls this when the parser fails, which it also does when a callback of ours raises."""
        if self._refusal:
            self.refuse(self._refusal)
        else:
            self._say(400, MALFORMED)
            self.transport.close()

    def _size_of_head(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _take_room(self) -> None:
        new, self._taken_bytes = self._body_bytes - self._taken_bytes, self._body_bytes
        if not self._unfinished.take(self._address, new):
            self.refuse(ServerBusy())

    def _body_ends(self) -> None:
        self._body_since = None
        self._body_bytes = 0
        if self._taken_bytes:
            self._unfinished.give_back(self._address, self._taken_bytes)
            self._taken_bytes = 0

    def _say(self, status: int, body: bytes) -> None:
        head = (
            f"HTTP/1.1 {status} {REASONS[status]}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""
