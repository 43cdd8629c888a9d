"""A stream on its way through: bytes as they came, its end held back until the books are closed."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from starlette.types import Receive, Send

from tollgate.completions import rules
from tollgate.core import sse
from tollgate.core.errors import TollgateError
from tollgate.core.request_body import Endpoint
from tollgate.core.sse import Event, Events, Tally
from tollgate.process.clock import Monotonic
from tollgate.upstreams.dialects.openai import as_it_came

HEARTBEAT = b": tollgate is waiting for the model\n\n"
HEARTBEAT_SECONDS = 15.0
UNREAD_SECONDS = 60.0
"""A client that takes nothing for so long is gone."""

DONE = b"data: [DONE]\n\n"
FAILED: dict[Endpoint, tuple[str, dict[str, Any]]] = {
    "chat": ("chat.completion.chunk", {"delta": {"role": "assistant", "content": ""}}),
    "completions": ("text_completion", {"text": ""}),
}
BLANK_LINES = (b"\n\n", b"\r\r", b"\r\n\r\n")


class Relay:
    """Passes events on, in their order. From [DONE] on they wait for the settlement, and so they do from the usage on
    when the charge goes into it."""

    def __init__(self, tally: Tally, shown: Callable[[Event], bytes | None], *, wants_charge: bool) -> None:
        self.tally = tally
        self.delivered = 0
        self._shown = shown
        self._wants_charge = wants_charge
        self._looks_at_nothing = shown is as_it_came and not wants_charge and not tally.counts
        self._events = Events()
        self._held: list[bytes] = []
        self._usage: int | None = None
        """Which of those held back the charge goes into."""

    def take(self, piece: bytes) -> bytes:
        """What may go out now that this piece has come. Most of a stream is mere text, and need not be taken apart."""
        first = b""
        if self._looks_at_nothing and self.tally.generation_id is None:
            end = piece.find(b"\n\n") + 2
            first, piece = self._look_into(piece[:end]), piece[end:]
        quiet = sse.quiet(piece) if self._may_look_away else 0
        self.delivered += piece.count(b"\n\n", 0, quiet)
        return first + piece[:quiet] + self._look_into(piece[quiet:])

    @property
    def _may_look_away(self) -> bool:
        known = self.tally.generation_id is not None
        return self._looks_at_nothing and known and self._events.is_between and not self._held

    def _look_into(self, piece: bytes) -> bytes:
        return b"".join([self._pass(event) for event in self._events.feed(piece)])

    def rest(self) -> bytes:
        """The same, of what the upstream left unfinished at its end."""
        return b"".join([self._pass(self._finished(event)) for event in self._events.finish()])

    def tail(self, charge: Mapping[str, Any] | None) -> bytes:
        """What was held back. A stream that came to its end gets the [DONE] that it may lack."""
        held = list(self._held)
        if self._usage is not None and charge:
            held[self._usage] = rules.with_charge(sse.data_of(held[self._usage]), charge)
        lacks_done = self.tally.ending == "complete" and not self.tally.done
        return b"".join(held) + (DONE if lacks_done else b"")

    def _pass(self, event: Event) -> bytes:
        before = self.tally.usage
        shown = self._see(event) if event.data else event.raw
        released = self._release() if shown and event.data and not self.tally.done else b""
        if self._wants_charge and shown and self.tally.usage is not before:
            self._usage = len(self._held)
        elif not self._held and not self.tally.done:
            return released + shown
        self._held.append(shown)
        return released

    def _see(self, event: Event) -> bytes:
        self.tally.see(event.data)
        if sse.is_done(event.data):
            return event.raw
        self.delivered += 1
        return self._shown(event) or b""

    def _finished(self, event: Event) -> Event:
        """With the blank line that it may lack where an event of ours may follow."""
        if self.tally.done or sse.is_done(event.data) or event.raw.endswith(BLANK_LINES):
            return event
        return event._replace(raw=event.raw + b"\n\n")

    def _release(self) -> bytes:
        """It was not the last after all."""
        released = b"".join(self._held)
        self._held, self._usage = [], None
        return released


class Outlet:
    """The client's end of a stream: started when there is something to say, watched for its going."""

    def __init__(self, send: Send, headers: Mapping[str, str], *, keeps: bool, clock: Monotonic) -> None:
        self._send = send
        self._headers = headers
        self.keeps = keeps
        """What is sent is kept, and fetched to its end though the client left: it will ask for it again."""
        self._clock = clock
        self._last = clock()
        self._sending_since: float | None = None
        self._leave: Callable[[], object] = lambda: None
        self._sent: list[bytes] = []
        self.started = False
        self.gone = False
        self.reads_on_seconds = 0.0
        """For so long is the upstream still listened to when the client has left."""

    @property
    def kept(self) -> bytes:
        return b"".join(self._sent)

    def head(self, headers: Mapping[str, str]) -> None:
        """More headers; too late once a heartbeat began the answer."""
        self._headers = {**self._headers, **headers}

    async def pass_on(self, body: bytes) -> None:
        if body and self.keeps:
            self._sent.append(body)
        if body:
            await self._write(body)

    async def finish(self, body: bytes) -> None:
        await self._write(body, more=False)

    @contextlib.asynccontextmanager
    async def watched(self, receive: Receive) -> AsyncIterator[None]:
        """Ends the block, and nothing else, when the client leaves in the middle of it."""
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
        """Keeps the line open while the model thinks, and gives up a client that does not read."""
        while not self.gone:
            if self._sending_since is None:
                await asyncio.sleep(max(0.0, self._last + HEARTBEAT_SECONDS - self._clock()))
                if self._sending_since is None and self._clock() - self._last >= HEARTBEAT_SECONDS:
                    await self._write(HEARTBEAT)
            elif self._clock() - self._sending_since >= UNREAD_SECONDS:
                self.gone = True
                self.leave()  # even where the answer is kept: it is this very write that stands
            else:
                await asyncio.sleep(1)

    def leave(self) -> None:
        """Ends the watched block; once."""
        leave, self._leave = self._leave, lambda: None
        leave()

    def _lose(self) -> None:
        if self.gone:
            return
        self.gone = True
        if self.keeps:
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
                await self._send(_start(self._headers))
                self.started = True
            await self._send({"type": "http.response.body", "body": body, "more_body": more})
        except OSError:  # how some servers say that nobody is there
            self._lose()
        self._last = self._clock()
        self._sending_since = None


def in_band(error: TollgateError, chunk: Mapping[str, Any] | None = None) -> bytes:
    """A failure after the stream began: by itself, or in a chunk of OpenRouter's."""
    told = error.body() if chunk is None else {**chunk, **error.body(openrouter=True)}
    return b"data: " + json.dumps(told, separators=(",", ":")).encode() + b"\n\n"


def failed_chunk(endpoint: Endpoint, generation_id: str, model: str, created: int) -> dict[str, Any]:
    """OpenRouter's last chunk of an answer that failed, but for the failure."""
    kind, empty = FAILED[endpoint]
    choice = {"index": 0, **empty, "finish_reason": "error", "native_finish_reason": "error"}
    return {"id": generation_id, "object": kind, "created": created, "model": model, "choices": [choice]}


def as_event(body: bytes) -> bytes:
    """An upstream's refusal, when a heartbeat has begun the stream already."""
    return b"".join(b"data: " + line + b"\n" for line in body.splitlines()) + b"\n"


def _start(headers: Mapping[str, str]) -> dict[str, Any]:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http.response.start", "status": 200, "headers": raw}
