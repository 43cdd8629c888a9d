"""One paid call: price, admit, send, relay, settle."""

import contextlib
from typing import Final

from starlette.types import Receive, Scope, Send

from tollgate.cache.level import Kept
from tollgate.cache.lookups import Cache
from tollgate.completions import hits, replay
from tollgate.completions.admission import Admission
from tollgate.completions.bytes_answer import BytesAnswer
from tollgate.completions.own_counts import AnyAnswer, own_count
from tollgate.completions.paid_call import Leaving, PaidCall
from tollgate.completions.plain import PlainAnswer
from tollgate.completions.settlements import Settled, Settlements
from tollgate.completions.stream import StreamedAnswer
from tollgate.core.endpoints import ENDPOINTS
from tollgate.core.errors import ServerRestarting, TooManyInFlight, UpstreamError, UpstreamGarbled
from tollgate.core.sse import EventTooLarge
from tollgate.process import logs
from tollgate.process.drain import Drain
from tollgate.upstreams.client import Upstreams

AnswerToClient = PlainAnswer | StreamedAnswer | BytesAnswer
NOT_BOUND: Final = contextlib.nullcontext()


class Flow:
    def __init__(
        self,
        admission: Admission,
        settlements: Settlements,
        upstreams: Upstreams,
        drain: Drain,
        leaving: Leaving,
        cache: Cache,
        *,
        shows_cost: bool,
    ) -> None:
        self._admission = admission
        self._settlements = settlements
        self._upstreams = upstreams
        self._drain = drain
        self._leaving = leaving
        self._cache = cache
        self._shows_cost = shows_cost

    async def run(self, call: PaidCall, scope: Scope, receive: Receive, send: Send) -> None:
        """However the call ends, it is settled first and the client gets the end of its answer last."""
        quote = await self._admission.price(call)
        with NOT_BOUND if call.cache is None else self._drain.bounds():  # it may wait for another call
            found = await self._admission.admit(call, quote)
        if found:
            if "hit" in found:
                logs.note(
                    paid_request_id=call.id,
                    model=call.ask.model,
                    cached=True,
                    outcome="settled",
                    charge_nanos=found["settled"]["charge_nanos"],
                )
            response = hits.response(call, found) if "hit" in found else replay.response(found)
            await response(scope, receive, send)
            return
        answer = self._answer(call, receive, send)
        settled = None
        try:
            async with answer.watched():
                await answer.before_sending()
                await self._send_and_relay(call, answer)
        finally:
            settled = await self._settle(call, answer)
        await answer.finish(settled)

    def _answer(self, call: PaidCall, receive: Receive, send: Send) -> AnswerToClient:
        if not call.ask.stream:
            return PlainAnswer(call, send)
        if ENDPOINTS[call.ask.endpoint].answers_bytes:
            return BytesAnswer(call, self._settlements, receive, send)
        return StreamedAnswer(call, self._settlements, self._leaving, receive, send)

    async def _send_and_relay(self, call: PaidCall, answer: AnswerToClient) -> None:
        try:
            with self._drain.bounds():
                reply: AnyAnswer
                if call.grant.counted is None:
                    reply = await self._upstreams.open(call.upstream_call())
                else:
                    reply = own_count(call.grant)
                call.take_reply(reply)
                try:
                    await answer.relay(reply)
                finally:
                    await reply.close()
        except (UpstreamError, TooManyInFlight, ServerRestarting) as error:
            call.failure = error
        except EventTooLarge:
            call.failure = UpstreamGarbled(**call.facts())
        call.check_completeness()

    async def _settle(self, call: PaidCall, answer: AnswerToClient) -> Settled | None:
        ending = call.ending(client_left=answer.client_left, charges_prefill=self._leaving.charges_prefill)
        call.take_ending(ending, shows_cost=self._shows_cost)
        item = call.item(ending, answer.stored())
        try:
            settled = await self._settlements.settle(item)
        finally:
            if call.cache is not None:
                self._cache.ended(call.id)
        if call.cache is not None and (entry := item.get("cache")) and "answer" in entry:
            kept = Kept(call.id, entry["answer"])
            await self._cache.keep_near(call.cache, call.grant.org_id, kept, entry["ttl_seconds"])
        if call.noting:
            await call.noting
        logs.note(
            paid_request_id=call.id,
            model=call.ask.model,
            upstream=ending.upstream,
            outcome=ending.outcome,
            charge_nanos=(settled or {}).get("charge_nanos"),
            **({"error_code": ending.error_code} if ending.error_code else {}),
        )
        return settled
