"""One admitted call on its way: what it asks upstream, what it came to, and the closing of its books."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from tollgate.completions import rules
from tollgate.completions.admission import Admitted, Call
from tollgate.completions.content import Content
from tollgate.completions.settlements import Answer, Books
from tollgate.core.models import SANDBOX, Route
from tollgate.core.prices import Price
from tollgate.core.sse import Tally
from tollgate.process import logs, threads
from tollgate.process.clock import Monotonic
from tollgate.process.drain import Drain
from tollgate.upstreams.client import Reply, Upstreams
from tollgate.upstreams.rules import Order


class Leaving(NamedTuple):
    """What happens when a client leaves a call that one of our own servers works for."""

    reads_on: bool
    """The server is read for a moment longer, for its usage. Not on a host that stops with the answer."""
    charges_prefill: bool
    """Its work on the prompt is charged though it has said nothing yet."""


class PaidCall:
    def __init__(
        self,
        call: Call,
        admitted: Admitted,
        books: Books,
        upstreams: Upstreams,
        clock: Monotonic,
        drain: Drain,
        content: Content | None,
        leaving: Leaving,
    ) -> None:
        self.call = call
        self.admitted = admitted
        self.drain = drain
        self.content = content
        self.leaving = leaving
        self.tally = Tally(choices=call.ask.choices)
        self._books = books
        self._upstreams = upstreams
        self._clock = clock
        self._asked = False
        self._reply: Reply | None = None
        self._at_work: Route | None = None
        self._first_token_ms: int | None = None

    async def open(self) -> Reply:
        self._asked = True
        self._reply = await self._upstreams.open(
            Order(
                ask=self.call.ask._replace(include_usage=True) if self.call.wants_charge else self.call.ask,
                body=self.admitted.body,
                bound=self.admitted.bound,
                routes=self.admitted.routes,
                headers=self.call.headers,
                org_id=self.admitted.org_id,
                sent=self._note_sent,
            )
        )
        self.tally.counts = rules.is_own(self._reply.route)
        return self._reply

    async def note_generation(self, generation_id: str, route: Route) -> None:
        await self._books.note_generation(self.call.id, generation_id, route.upstream.id)

    def saw_first_token(self) -> None:
        if self._first_token_ms is None:
            self._first_token_ms = self._elapsed_ms()

    def abandoned(self) -> dict[str, Any]:
        """When the client left, or we were stopped, before a reply had said anything of its cost."""
        if self._at_work and rules.is_own(self._at_work) and self.leaving.charges_prefill:
            return rules.prefill(self._at_work, self._price(self._at_work), **self._terms())
        if self._reply is not None:
            return rules.broken_off(self._reply.route, self._reply.generation_id)
        return rules.abandoned(self.admitted.routes) if self._asked else rules.not_asked()

    def outcome(self, reply: Reply, delivered: int) -> dict[str, Any]:
        """What the reply came to, by what it said of itself so far."""
        route = reply.route
        self.tally.generation_id = reply.generation_id or self.tally.generation_id
        if route.upstream.id == SANDBOX:
            return rules.free(self.tally, route)
        return rules.outcome(
            self.tally,
            route,
            self._price(route),
            delivered=delivered,
            context_tokens=self.admitted.context_tokens,
            **self._terms(),
        )

    def kept(self, status: int, content_type: str, body: bytes) -> dict[str, Any] | None:
        """What a repetition under the same idempotency key will be answered with."""
        return rules.kept_answer(status, content_type, body) if self.call.idempotency_key is not None else None

    async def close(self, ending: Mapping[str, Any], kept: Mapping[str, Any] | None) -> Answer | None:
        """One round trip. Nothing is kept of a call that came to nothing: its key is free again."""
        item = {
            "id": self.call.id,
            "status": 200,
            "first_token_ms": self._first_token_ms,
            "duration_ms": self._elapsed_ms(),
            **ending,
        }
        if self.call.idempotency_key is not None and ending["outcome"] != "released":
            item["answer"] = kept or {"kept": False}
        if self.content:
            item["content"] = await threads.work(len(self.call.body), self.content.kept) or None
        settled = await self._books.settle({name: value for name, value in item.items() if value is not None})
        logs.note(
            paid_request_id=self.call.id,
            model=self.call.ask.model,
            upstream=ending.get("upstream"),
            outcome=ending["outcome"],
            charge_nanos=(settled or {}).get("charge_nanos"),
        )
        return settled

    def _note_sent(self, route: Route | None) -> None:
        """Who has the request now; None when that came to nothing."""
        self._at_work = route

    def _price(self, route: Route) -> Price:
        return route.price or self.admitted.price

    def _terms(self) -> dict[str, int]:
        """Of every charge."""
        admitted = self.admitted
        return {
            "hold_nanos": admitted.hold_nanos,
            "markup_ppm": admitted.markup_ppm,
            "prompt_tokens": admitted.prompt_tokens,
        }

    def _elapsed_ms(self) -> int:
        return round((self._clock() - self.call.started) * 1000)


def charge_headers(settled: Answer | None) -> dict[str, str]:
    """What the call came to. Without a charge while that is still to be found out."""
    if settled is None:
        return {}
    amounts = {name: settled.get(f"{name}_nanos") for name in ("charge", "balance")}
    return {f"x-tollgate-{name}-nanos": str(amount) for name, amount in amounts.items() if amount is not None}
