"""An answer as a stream: passed on as it arrives, and settled before its last bytes leave."""

import asyncio
import contextlib
from collections.abc import Mapping
from functools import partial
from typing import Any

from starlette.types import Receive, Send

from tollgate.completions import relay, rules
from tollgate.completions.answer_forms import ANSWER_FORMS, Stream
from tollgate.completions.outlet import NOT_BUFFERED, Outlet, PassedOn
from tollgate.completions.own_counts import AnyAnswer
from tollgate.completions.paid_call import Leaving, PaidCall
from tollgate.completions.plain import content_type, send_plain
from tollgate.completions.relay import Relay
from tollgate.completions.settlements import Settled, Settlements
from tollgate.completions.translations import TranslatingRelay
from tollgate.core import upstream_errors
from tollgate.core.errors import TollgateError
from tollgate.process.clock import now
from tollgate.upstreams.attempts.reply import Reply

EVENT_STREAM = "text/event-stream"
HEADERS = {
    "content-type": f"{EVENT_STREAM}; charset=utf-8",
    **NOT_BUFFERED,
}
AFTER_DONE_SECONDS = 1.0
"""For an upstream to close its response after [DONE], so that its connection can be used again."""

READ_ON_SECONDS = 1.0
READ_ON_TOKENS = 512
"""How long a server of our own is read for its usage after its client left: the end of the answer may be near."""


class StreamedAnswer(PassedOn):
    def __init__(
        self, call: PaidCall, settlements: Settlements, leaving: Leaving, receive: Receive, send: Send
    ) -> None:
        self._call = call
        self._settlements = settlements
        self._leaving = leaving
        self._send = send
        outlet = Outlet(
            send,
            {**HEADERS, **call.limit_headers, **call.own_headers},
            keeps=call.stores,
            reads_to_end=call.idempotency_key is not None,
            clock=call.clock,
        )
        super().__init__(outlet, receive)
        self._form = ANSWER_FORMS[call.ask.endpoint]
        self._relay: Relay | TranslatingRelay | None = None
        self._reads_on_until_tokens = 0

    async def relay(self, reply: AnyAnswer) -> None:
        if not isinstance(reply, Reply) or not reply.headers.get("content-type", "").startswith(EVENT_STREAM):
            self._call.take_answer(await reply.read())
            return
        self._call.streams = True
        self._outlet.head(reply.headers)
        self._relay = self._relayed(reply)
        self._call.note_generation(self._settlements.note_generation)
        async with reply.in_time():
            await self._pass_on(reply, self._relay)

    def _relayed(self, reply: Reply) -> Relay | TranslatingRelay:
        call, form = self._call, self._form
        if call.is_translated and call.translated:
            at = int(now().timestamp())
            return TranslatingRelay(
                call.translated,
                form,
                call.tally,
                reply.shown,
                hides_cost=call.hides_cost,
                statement=call.statement,
                now=at,
            )
        is_ours = call.error_shape == "openai" and not form.is_typed
        error_as = partial(upstream_errors.in_event, upstream=reply.route.upstream.id) if is_ours else None
        return Relay(
            call.tally,
            reply.shown,
            wants_charge=call.wants_charge,
            hides_cost=call.hides_cost,
            error_as=error_as,
            form=form,
        )

    def stored(self) -> Mapping[str, Any] | None:
        call, reply = self._call, self._call.reply
        if reply is None or reply.refused or call.failure:
            return None
        if call.answer is not None:
            return call.stored(reply.status, content_type(reply), call.answer)
        if self._relay is None or call.tally.ending != "complete":
            return None
        kept = self._outlet.kept
        return None if kept is None else call.stored(200, content_type(reply), kept + self._relay.tail(call.amounts))

    async def finish(self, settled: Settled | None) -> None:
        call, outlet = self._call, self._outlet
        if outlet.gone:
            return
        if call.failure and not outlet.started:
            raise call.failure
        if call.failure or call.answer is None:
            tail = self._relay.tail(call.amounts, self._charge(settled)) if self._relay else b""
            await outlet.finish(tail + (self._in_band(call.failure) if call.failure else b""))
        elif outlet.started:
            await outlet.finish(relay.as_event(call.answer))
        else:
            await send_plain(call, settled, self._send)

    async def _pass_on(self, reply: Reply, relay: Relay | TranslatingRelay) -> None:
        call, tally = self._call, self._call.tally
        reads_on = self._leaving.reads_on and rules.is_own(reply.route)
        while piece := await reply.piece():
            await self._outlet.pass_on(relay.take(piece))
            if call.content:
                call.content.feed(piece)
            if call.first_token_ms is None and tally.events:
                call.first_token_ms = call.elapsed_ms
            if call.noting is None:
                call.note_generation(self._settlements.note_generation)
            if reads_on:
                self._read_on()
            if tally.done:
                break
        if tally.done:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AFTER_DONE_SECONDS):
                    await self._pass_rest(reply, relay)
        await self._outlet.pass_on(relay.rest())

    async def _pass_rest(self, reply: Reply, relay: Relay | TranslatingRelay) -> None:
        while piece := await reply.piece():
            await self._outlet.pass_on(relay.take(piece))

    def _read_on(self) -> None:
        """Decides whether to read on if the client leaves now, and for how long if it has left."""
        tally, outlet = self._call.tally, self._outlet
        outlet.reads_on_seconds = READ_ON_SECONDS if tally.usage is None else 0.0
        if not outlet.gone:
            self._reads_on_until_tokens = tally.said_tokens + READ_ON_TOKENS
        elif not outlet.reads_to_end and tally.said_tokens > self._reads_on_until_tokens:
            outlet.leave()

    def _in_band(self, failure: TollgateError) -> bytes:
        call = self._call
        if isinstance(self._relay, TranslatingRelay):
            return self._relay.failed(failure, call.caller.claims["request_id"])
        stream = Stream(
            call.ask.endpoint,
            call.error_shape,
            request_id=call.caller.claims["request_id"],
            generation_id=call.generation_id or call.id,
            model=call.tally.model or call.ask.model,
            created=int(now().timestamp()),
            events=call.tally.events,
        )
        return self._form.failed(failure, stream)

    def _charge(self, settled: Settled | None) -> dict[str, Any] | None:
        if not self._call.wants_charge or not settled or settled.get("charge_nanos") is None:
            return None
        return self._call.charge_told(settled)
