"""The connection to the client: reads the body, writes the response, and notices when the client disconnects."""

import asyncio
from types import TracebackType
from typing import Any

from starlette.types import Receive, Send

Headers = list[tuple[str, str]]


class ClientGone(Exception):
    """The client disconnected before the end of its response."""


class Cut(Exception):
    """Raised in the middle of a response, so that the server closes the connection."""


class ClientConnection:
    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "ClientConnection":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watch is not None:
            self._watch.cancel()

    async def body(self) -> bytes:
        parts: list[bytes] = []
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        return b"".join(parts)

    async def pause(self, seconds: float = 0) -> None:
        """Sleeps, at least for one iteration of the event loop. Raises ClientGone when the client disconnects."""
        await self._first_of(None, seconds)

    async def wait_for(self, event: asyncio.Event, seconds: float) -> bool:
        """Whether the event was set in time."""
        waiting = asyncio.create_task(event.wait())
        try:
            await self._first_of(waiting, seconds)
            return event.is_set()
        finally:
            waiting.cancel()

    async def start(self, status: int, headers: Headers) -> None:
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def write(self, data: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def _first_of(self, other: "asyncio.Task[bool] | None", seconds: float) -> None:
        if self._watch is None:
            self._watch = asyncio.create_task(self._until_gone())
        tasks: set[asyncio.Task[Any]] = {self._watch, other} if other else {self._watch}
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if self._watch.done():
            raise ClientGone

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
