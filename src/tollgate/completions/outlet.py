"""The client's side of a stream."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from operator import methodcaller
from typing import Any

from starlette.types import Receive, Send

from tollgate.completions.replay import MOST_STORED_BYTES
from tollgate.process.clock import Monotonic

HEARTBEAT = b": tollgate is waiting for the model\n\n"
HEARTBEAT_SECONDS = 15.0
UNREAD_SECONDS = 60.0
"""A client that reads nothing for so long counts as gone."""


_IN_LATIN_1 = methodcaller("encode", "latin-1")
NOT_BUFFERED = {"cache-control": "no-cache, no-store", "x-accel-buffering": "no"}


class Outlet:
    """Begins with the first bytes, and notices when the client leaves."""

    def __init__(
        self,
        send: Send,
        headers: Mapping[str, str],
        *,
        keeps: bool,
        reads_to_end: bool,
        clock: Monotonic,
        heartbeat: bytes = HEARTBEAT,
    ) -> None:
        """`heartbeat` is empty for an answer into which nothing may be put."""
        self._send = send
        self._headers = headers
        self.reads_to_end = reads_to_end
        """The stream is stored for a replay, and so it is read to its end even if the client left."""
        self._keeps = keeps
        self._clock = clock
        self._heartbeat = heartbeat
        self._last = clock()
        self._sending_since: float | None = None
        self._leave: Callable[[], object] = lambda: None
        self._sent: list[bytes] | None = []
        self._sent_bytes = 0
        self.started = False
        self.gone = False
        self.reads_on_seconds = 0.0
        """How long the upstream is still read after the client left."""

    @property
    def kept(self) -> bytes | None:
        """What was passed on; None if it is too much to be stored."""
        return None if self._sent is None else b"".join(self._sent)

    def head(self, headers: Mapping[str, str]) -> None:
        """Adds headers. Has no effect once a heartbeat has begun the response."""
        self._headers = {**self._headers, **headers}

    async def pass_on(self, body: bytes) -> None:
        if body and self._keeps:
            self._keep(body)
        if body:
            await self._write(body)

    def _keep(self, body: bytes) -> None:
        self._sent_bytes += len(body)
        if self._sent_bytes > MOST_STORED_BYTES:
            self._sent = None
        if self._sent is not None:
            self._sent.append(body)

    async def finish(self, body: bytes) -> None:
        await self._write(body, more=False)

    @contextlib.asynccontextmanager
    async def watched(self, receive: Receive) -> AsyncIterator[None]:
        """Ends the block, and nothing else, when the client leaves."""
        task = asyncio.current_task()
        assert task  # noqa: S101
        self._leave = task.cancel
        watchers = [asyncio.ensure_future(self._watch(receive)), asyncio.ensure_future(self._beat())]
        try:
            yield
        except asyncio.CancelledError:
            if not self.gone or task.uncancel():
                raise
        finally:
            self._leave = lambda: None
            for watcher in watchers:
                watcher.cancel()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._lose()

    async def _beat(self) -> None:
        """Sends a comment while the upstream is silent, and gives up a client that does not read."""
        while not self.gone:
            if self._sending_since is None:
                await asyncio.sleep(max(0.0, self._last + HEARTBEAT_SECONDS - self._clock()))
                if self._sending_since is None and self._clock() - self._last >= HEARTBEAT_SECONDS:
                    await self._keep_alive()
            elif self._clock() - self._sending_since >= UNREAD_SECONDS:
                self.gone = True
                self.leave()  # also where the answer is stored, since the write itself is stuck
            else:
                await asyncio.sleep(1)

    async def _keep_alive(self) -> None:
        if self._heartbeat:
            await self._write(self._heartbeat)
        else:
            self._last = self._clock()

    def leave(self) -> None:
        """Ends the watched block, once."""
        leave, self._leave = self._leave, lambda: None
        leave()

    def _lose(self) -> None:
        if self.gone:
            return
        self.gone = True
        if self.reads_to_end:
            return
        if self.reads_on_seconds:
            asyncio.get_running_loop().call_later(self.reads_on_seconds, self.leave)
        else:
            self.leave()

    async def _write(self, body: bytes, *, more: bool = True) -> None:
        if self.gone:
            return
        self._sending_since = self._clock()
        try:
            if not self.started:
                await self._send(response_start(200, self._headers))
                self.started = True
            await self._send({"type": "http.response.body", "body": body, "more_body": more})
        except OSError:  # some servers raise it when the client has gone
            self._lose()
        self._last = self._clock()
        self._sending_since = None


def response_start(status: int, headers: Mapping[str, str]) -> dict[str, Any]:
    raw = zip(map(str.encode, headers), map(_IN_LATIN_1, headers.values()), strict=True)
    return {"type": "http.response.start", "status": status, "headers": list(raw)}


class PassedOn:
    """An answer that is passed on as it comes, whose call ends when its client leaves."""

    def __init__(self, outlet: Outlet, receive: Receive) -> None:
        self._outlet = outlet
        self._receive = receive

    @property
    def client_left(self) -> bool:
        return self._outlet.gone

    def watched(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Ends the block when the client leaves."""
        return self._outlet.watched(self._receive)

    async def before_sending(self) -> None:
        """Ends the call here, before it costs anything, if the client has left already."""
        await asyncio.sleep(0)
