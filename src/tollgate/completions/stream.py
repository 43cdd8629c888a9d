"""A call whose answer comes as a stream: passed on as it arrives, settled before its last bytes leave."""

import asyncio
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tollgate.completions import plain, relay, rules
from tollgate.completions.paid_call import PaidCall, charge_headers
from tollgate.completions.relay import Outlet, Relay
from tollgate.completions.settlements import Answer
from tollgate.core.errors import (
    ServerRestarting,
    TollgateError,
    TooManyInFlight,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbled,
)
from tollgate.core.models import OPENROUTER
from tollgate.core.sse import EventTooLarge
from tollgate.process.clock import Monotonic, now
from tollgate.upstreams.attempts.attempt import facts
from tollgate.upstreams.client import Reply
from tollgate.web.error_responses import speaks_openrouter

EVENT_STREAM = "text/event-stream"
NEVER_BUFFERED = {"cache-control": "no-cache, no-store", "x-accel-buffering": "no"}
AFTER_DONE_SECONDS = 1.0
"""For an upstream to end what it has called done, so that its connection can be used again."""


READ_ON_SECONDS = 1.0
READ_ON_TOKENS = 512
"""For a server of our own to say its usage, when its client has left: the end of an answer is often near then."""


class Stream:
    def __init__(self, passage: PaidCall, scope: Scope, receive: Receive, send: Send, clock: Monotonic) -> None:
        headers = {"content-type": f"{EVENT_STREAM}; charset=utf-8", **NEVER_BUFFERED, **passage.admitted.headers}
        self._passage = passage
        self._scope = scope
        self._receive = receive
        self._send = send
        self._outlet = Outlet(send, headers, keeps=passage.call.idempotency_key is not None, clock=clock)
        self._reply: Reply | None = None
        self._relay: Relay | None = None
        self._body: bytes | None = None
        self._failure: UpstreamError | TooManyInFlight | ServerRestarting | None = None
        self._noting: asyncio.Task[None] | None = None
        self._read_on_until: int | None = None
        """How many tokens may have been said when a client that left is not read on for any more."""

    async def run(self) -> None:
        """However it ends, the books are closed first and the client is told last."""
        settled = None
        try:
            async with self._outlet.watched(self._receive):
                await self._pass()
        finally:
            settled = await self._passage.close(self._ending(), self._kept())
            if self._noting:
                await self._noting
        if not self._outlet.gone:
            await self._finish(settled)

    async def _pass(self) -> None:
        await asyncio.sleep(0)  # who has left already is noticed here, before anything costs
        try:
            async with self._passage.drain.bounds():
                self._reply = await self._passage.open()
                try:
                    await self._pass_on(self._reply)
                finally:
                    await self._reply.close()
        except (UpstreamError, TooManyInFlight, ServerRestarting) as error:
            self._failure = error
        except EventTooLarge:
            self._failure = UpstreamGarbled(**self._facts())
        if self._relay and not self._failure and self._passage.tally.ending == "cut":
            self._failure = UpstreamCut(**self._facts())
        elif isinstance(self._failure, (UpstreamCut, ServerRestarting)) and self._passage.tally.ending == "complete":
            self._failure = None  # every answer had its end, and nothing is missing but [DONE]

    async def _pass_on(self, reply: Reply) -> None:
        if reply.refused or not reply.headers.get("content-type", "").startswith(EVENT_STREAM):
            self._body = await reply.read()
            return
        self._outlet.head(reply.headers)
        self._relay = Relay(self._passage.tally, reply.shown, wants_charge=self._passage.call.wants_charge)
        self._note(reply, reply.generation_id)
        async with reply.in_time():
            await self._pass_pieces(reply, self._relay)

    async def _pass_pieces(self, reply: Reply, relay: Relay) -> None:
        tally, content = self._passage.tally, self._passage.content
        pieces = reply.pieces()
        async for piece in pieces:
            await self._outlet.pass_on(relay.take(piece))
            if content:
                content.feed(piece)
            if relay.delivered:
                self._passage.saw_first_token()
                self._note(reply, tally.generation_id)
            self._read_on(reply)
            if tally.done:
                break
        try:
            async with asyncio.timeout(AFTER_DONE_SECONDS if tally.done else None):
                async for piece in pieces:
                    await self._outlet.pass_on(relay.take(piece))
        except TimeoutError:
            pass
        await self._outlet.pass_on(relay.rest())

    def _read_on(self, reply: Reply) -> None:
        """Whether it would be worth it from here on if the client left, and whether it still is when it has left."""
        tally = self._passage.tally
        worth_it = self._passage.leaving.reads_on and rules.is_own(reply.route) and tally.usage is None
        self._outlet.reads_on_seconds = READ_ON_SECONDS if worth_it else 0.0
        if not self._outlet.gone:
            self._read_on_until = tally.said_tokens + READ_ON_TOKENS
        elif not self._outlet.keeps and tally.said_tokens > (self._read_on_until or 0):
            self._outlet.leave()

    def _note(self, reply: Reply, generation_id: str | None) -> None:
        """As soon as it is known, beside the stream: if we die, its cost can be asked for."""
        if generation_id and not self._noting and reply.route.upstream.id == OPENROUTER:
            self._noting = asyncio.ensure_future(self._passage.note_generation(generation_id, reply.route))

    def _ending(self) -> dict[str, Any]:
        left = rules.LEFT if self._outlet.gone else {}
        if self._reply is None and isinstance(self._failure, (UpstreamError, TooManyInFlight)):
            return rules.failed(self._failure, self._passage.admitted.routes)
        if self._reply is None:
            return {**self._passage.abandoned(), **(rules.STOPPED if self._failure else left)}
        if self._body is not None:
            ending, garbled = plain.judged(self._passage, self._reply, self._body)
            self._failure = self._failure or garbled
            return ending
        if self._was_abandoned:
            return {**self._passage.abandoned(), **(rules.STOPPED if self._failure else left)}
        ending = self._passage.outcome(self._reply, self._relay.delivered if self._relay else 0)
        if self._failure:
            return ending | {"error_code": self._failure.code}
        return {**ending, **left}

    @property
    def _was_abandoned(self) -> bool:
        """Before the server said anything, and not by the server."""
        tally = self._passage.tally
        said = (self._relay and self._relay.delivered) or tally.usage or tally.done
        return not said and not isinstance(self._failure, UpstreamError)

    def _kept(self) -> dict[str, Any] | None:
        if not self._reply or self._failure or self._reply.refused:
            return None
        if self._body is not None:
            return self._passage.kept(self._reply.status, plain.content_type(self._reply), self._body)
        if not self._relay or self._passage.tally.ending != "complete":
            return None
        return self._passage.kept(200, plain.content_type(self._reply), self._outlet.kept + self._relay.tail(None))

    async def _finish(self, settled: Answer | None) -> None:
        if self._failure and not self._outlet.started:
            raise self._failure
        if self._body is None or self._failure:
            tail = self._relay.tail(self._charge(settled)) if self._relay else b""
            await self._outlet.finish(tail + (self._told(self._failure) if self._failure else b""))
        elif self._outlet.started:
            await self._outlet.finish(relay.as_event(self._body))
        elif self._reply:
            headers = {**self._passage.admitted.headers, **self._reply.headers, **charge_headers(settled)}
            await Response(self._body, self._reply.status, headers)(self._scope, self._receive, self._send)

    def _told(self, failure: TollgateError) -> bytes:
        if not speaks_openrouter(self._scope):
            return relay.in_band(failure)
        ask, tally = self._passage.call.ask, self._passage.tally
        generation_id = self._generation_id() or self._passage.call.id
        chunk = relay.failed_chunk(ask.endpoint, generation_id, tally.model or ask.model, int(now().timestamp()))
        return relay.in_band(failure, chunk)

    def _generation_id(self) -> str | None:
        return (self._reply and self._reply.generation_id) or self._passage.tally.generation_id

    def _facts(self) -> dict[str, Any]:
        """Those that the upstream's own failures carry."""
        return facts(self._reply.route, self._generation_id()) if self._reply else {}

    def _charge(self, settled: Answer | None) -> dict[str, Any] | None:
        if not settled or settled.get("charge_nanos") is None:
            return None
        amounts = {name: settled[name] for name in ("charge_nanos", "balance_nanos")}
        return {**amounts, "request_id": self._passage.call.id}
