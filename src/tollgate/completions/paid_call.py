"""The state of one paid call, from its arrival to its settlement."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from tollgate.cache import rules as cache
from tollgate.cache.rules import Use
from tollgate.completions import charge_shown, endings, replay, rules
from tollgate.completions.answer_forms import ANSWER_FORMS
from tollgate.completions.charge_shown import UNKNOWN, Amounts, states_cost
from tollgate.completions.content import Content
from tollgate.completions.endings import Ending
from tollgate.completions.own_counts import AnyAnswer
from tollgate.completions.rules import Grant
from tollgate.completions.translations import Translated
from tollgate.core import strict_json, upstream_errors
from tollgate.core.dialects import generate, written
from tollgate.core.endpoints import ENDPOINTS
from tollgate.core.errors import ServerRestarting, Shape, TooManyInFlight, UpstreamCut, UpstreamError, UpstreamGarbled
from tollgate.core.models import OPENROUTER, SANDBOX, Route
from tollgate.core.request_body import Ask
from tollgate.core.sse import Tally
from tollgate.core.strict_json import NotJson
from tollgate.credits import rules as credits
from tollgate.keys.authentication import Caller
from tollgate.limits import rules as limits
from tollgate.process.clock import Monotonic, now
from tollgate.process.spools import Spool
from tollgate.upstreams.attempts.attempt import facts
from tollgate.upstreams.rules import AttemptRecord, Upload, UpstreamCall

Failure = UpstreamError | TooManyInFlight | ServerRestarting
"""Why the client gets no complete answer."""


MOST_ATTEMPTS_KEPT: Final = 20


class Leaving(NamedTuple):
    """What happens when a client leaves a call that one of our own servers works for."""

    reads_on: bool
    """The server is read for a moment longer, for its usage. Not on a host that freezes when the response ends."""
    charges_prefill: bool
    """Its work on the prompt is charged, even if it has said nothing yet."""


class SentUpstream:
    """What was sent upstream for a call. It has no reference to the call: in a cycle, a call and its bodies would
    stay in memory until a garbage collection (docs/decisions/0061)."""

    def __init__(self, clock: Monotonic, started: float) -> None:
        self.at_work: Route | None = None
        """The route whose upstream has the whole request."""
        self.attempts: list[dict[str, Any]] = []
        """In order, from the first attempt that was not answered on."""
        self._clock = clock
        self._started = started

    def note_at_work(self, route: Route | None) -> None:
        self.at_work = route

    def record(self, attempt: AttemptRecord) -> None:
        """An attempt that is answered at once is in the row already: upstream, model and duration."""
        if (attempt.outcome != "answered" or self.attempts) and len(self.attempts) < MOST_ATTEMPTS_KEPT:
            began = max(0, self.elapsed_ms - attempt.duration_ms)
            self.attempts.append({**attempt._asdict(), "started_ms": began})

    @property
    def elapsed_ms(self) -> int:
        """Of the call."""
        return round((self._clock() - self._started) * 1000)


@dataclass(slots=True, eq=False)
class PaidCall:
    id: str
    """Of its row. It is generated here, and never the client's."""
    caller: Caller
    ask: Ask
    body: bytes
    body_hash: str | None
    """Of a call with an idempotency key."""
    headers: Mapping[str, str]
    idempotency_key: str | None
    content: Content | None
    """What was asked and answered, where the operator keeps it."""
    cache: Use | None
    """None where nobody wishes the cache."""
    error_shape: Shape
    """Whose errors the client expects."""
    clock: Monotonic
    started: float
    tally: Tally
    translated: Translated | None = None
    """The call as one for chat completions, where some upstream needs that."""
    is_translated: bool = False
    """The upstream answers a chat completion."""
    until: float | None = None
    """When the call must have its answer, by the event loop's clock. None: after the time that each call has."""
    grant: Grant = field(init=False)
    """Set by admission."""
    was_sent: bool = False
    sent: SentUpstream = field(init=False)
    reply: AnyAnswer | None = None
    answer: bytes | None = None
    """A plain answer, when it is complete."""
    streams: bool = False
    """The answer comes as events."""
    failure: Failure | None = None
    first_token_ms: int | None = None
    may_cache: bool = False
    """The answer may be given again."""
    given_back: int = 0
    """Of the tokens that were reserved, those that limits do not count after the settlement."""
    amounts: Amounts = UNKNOWN
    """What the usage may state, where it must not state our cost."""
    upload: Upload | None = None
    spool: Spool | None = None
    """Has the file of the upload until the call has ended."""
    noting: asyncio.Task[None] | None = None
    """Writes the generation id to the row."""

    def __post_init__(self) -> None:
        self.sent = SentUpstream(self.clock, self.started)

    @property
    def wants_charge(self) -> bool:
        """X-Tollgate-Usage: the charge goes into the last chunk of a stream."""
        return self.headers.get("x-tollgate-usage", "").lower() == "true"

    @property
    def own_headers(self) -> dict[str, str]:
        """What an answer says of the call itself: the id of its row, the output bound if we set it, and when its model
        ends."""
        bound = self.grant.bound
        row = {"x-tollgate-request-id": self.id, **self.grant.notices}
        if self.cache is not None:
            row[cache.HEADER] = self.cache.outcome
        return row if bound is None else row | {"x-tollgate-max-tokens": str(bound)}

    @property
    def limit_headers(self) -> dict[str, str]:
        """What is left of the limits: at admission, and after the settlement."""
        return limits.remaining(self.grant.limits, self.given_back)

    @property
    def fills_cache(self) -> bool:
        """The answer is for the cache, if it may be stored."""
        return self.cache is not None and self.cache.outcome == "miss" and self.cache.wish.writes

    @property
    def hides_cost(self) -> bool:
        """What the upstream states is not what the org is charged."""
        if self.reply is None:
            return False
        route = self.reply.route
        return self.grant.markup_ppm != 0 or rules.is_own(route) or self.grant.uses_org_key(route)

    @property
    def generation_id(self) -> str | None:
        return (self.reply and self.reply.generation_id) or self.tally.generation_id

    @property
    def elapsed_ms(self) -> int:
        return self.sent.elapsed_ms

    def upstream_call(self) -> UpstreamCall:
        grant = self.grant
        self.was_sent = True
        return UpstreamCall(
            ask=self.ask._replace(include_usage=True) if self.wants_charge else self.ask,
            body=self.body,
            bound=grant.bound,
            routes=grant.routes,
            headers=self.headers,
            org_id=grant.org_id,
            is_ordered=grant.is_ordered,
            openrouter_models=grant.openrouter_models,
            search_off=grant.search_off,
            as_chat=self.translated and (self.translated.ask, self.translated.body),
            upload=self.upload,
            until=self.until,
            note_at_work=self.sent.note_at_work,
            record_attempt=self.sent.record,
            org_keys=grant.org_keys.secrets,
        )

    def take_reply(self, reply: AnyAnswer) -> None:
        self.reply = reply
        if self.translated and reply.route.upstream.dialect not in ENDPOINTS[self.ask.endpoint].dialects:
            self.is_translated, self.tally = True, Tally()
        self.tally.counts = rules.is_own(reply.route)
        if self.tally.choices > 1 and rules.states_choices_apart(reply.route):
            self.tally.apart, self.tally.prompts = True, self.ask.prompts

    def note_generation(self, write: Callable[..., Awaitable[None]]) -> None:
        """Writes OpenRouter's generation id to the row, while the answer goes on. If this process dies, the sweeper can
        look up the cost."""
        if self.reply and self.reply.route.upstream.id == OPENROUTER and self.generation_id:
            is_byok = self.grant.uses_org_key(self.reply.route)
            self.noting = asyncio.ensure_future(write(self.id, self.generation_id, OPENROUTER, is_byok=is_byok))

    def facts(self) -> dict[str, Any]:
        """As the upstream's own failures carry them."""
        return facts(self.reply.route, self.generation_id) if self.reply else {}

    def take_answer(self, body: bytes) -> None:
        """A plain answer, or the upstream's error. Raises UpstreamGarbled."""
        assert self.reply  # noqa: S101
        if not self.reply.refused:
            document = self._document(body)
            self.tally.take_plain(document)
            if self.content:
                self.content.take(document)
            if self.is_translated and self.translated:
                body = self.translated.answer(document, int(now().timestamp()))
        self.answer = body

    def statement(self) -> dict[str, Any]:
        """What an answer says of its own call, where its form has that."""
        return generate.statement(cached=False, charge_nanos=self.amounts.charge_nanos, request_id=self.id)

    def _document(self, body: bytes) -> Mapping[str, Any]:
        """A plain answer, read. One that may be text becomes an object with it."""
        assert self.reply  # noqa: S101
        if self.ask.as_text and not self.reply.headers.get("content-type", "").partition(";")[0].endswith("json"):
            return {"text": body.decode(errors="replace")}
        try:
            return strict_json.from_upstream(body)
        except NotJson:
            raise UpstreamGarbled(**self.facts()) from None

    def check_completeness(self) -> None:
        """A stream that ends too early has failed. One that breaks off after the end of every answer has not."""
        if self.failure is None:
            if self.streams and self.tally.ending == "cut":
                self.failure = UpstreamCut(**self.facts())
        elif isinstance(self.failure, (UpstreamCut, ServerRestarting)) and self.tally.ending == "complete":
            self.failure = None

    def ending(self, *, client_left: bool, charges_prefill: bool) -> Ending:
        failure = self.failure
        if self.answer is not None and self.reply and self.reply.refused:
            return endings.refused(self.reply.status, self.reply.route.upstream.id)
        if isinstance(failure, (UpstreamError, TooManyInFlight)) and not self.streams:
            return endings.failed(failure, self.grant.routes_at_our_cost)
        has_begun = self.tally.events or self.tally.usage or self.tally.done
        if self.reply and (has_begun or isinstance(failure, UpstreamError)):
            ending = endings.of_answer(self.tally, self.reply.route, self.grant, self.generation_id)
            if failure:
                return ending._replace(error_code=failure.code)
        else:
            ending = self._unanswered(charges_prefill)
            if failure:
                return endings.with_server_stopped(ending)
        return endings.with_client_gone(ending) if client_left and self.answer is None else ending

    def take_ending(self, ending: Ending, *, shows_cost: bool) -> None:
        """What the client is told of it. A plain answer is changed here, before it is stored or sent; the end of a
        stream when it leaves."""
        grant = self.grant
        self.given_back = grant.reserved_tokens - ending.tokens_of(grant.reserved_tokens)
        charge = 0 if ending.outcome == "released" else ending.charge_nanos
        self.amounts = Amounts(charge, self._cost_shown(ending, shows_cost=shows_cost))
        if self.answer is not None and self.reply:
            self.answer = self._as_shown(self.answer, self.reply)

    def item(self, ending: Ending, stored_answer: Mapping[str, Any] | None) -> dict[str, Any]:
        """As the settlement takes it. No answer is stored for a call that was released: its key is free again."""
        stores = self.idempotency_key is not None and ending.outcome != "released"
        return ending.item(
            self.id,
            upstream=SANDBOX if self.caller.environment == "test" else None,
            status=ending.status or 200,
            first_token_ms=self.first_token_ms,
            duration_ms=self.elapsed_ms,
            answer=(stored_answer or replay.NOT_STORED) if stores else None,
            content=(self.content.kept() or None) if self.content else None,
            charged_price=self._charged_price(),
            attempts=self.sent.attempts or None,
            cache=None if self.cache is None else self._for_cache(self.cache, ending, stored_answer),
        )

    @property
    def stores(self) -> bool:
        """The answer is kept: for a replay, or for the cache."""
        return self.idempotency_key is not None or self.fills_cache

    def stored(self, status: int, content_type: str, body: bytes) -> Mapping[str, Any] | None:
        """A complete answer, for a replay or the cache."""
        if not self.stores:
            return None
        if self.cache is not None:
            reasons, is_our_bound = self.tally.finish_reasons.values(), self.grant.bound is not None
            self.may_cache = cache.may_store(body, reasons, self.cache.bounds, is_our_bound=is_our_bound)
        return replay.stored(status, content_type, body)

    def charge_told(self, settled: Mapping[str, Any]) -> dict[str, Any]:
        """For X-Tollgate-Usage."""
        amounts = {name: settled[name] for name in ("charge_nanos", "balance_nanos")}
        return {**amounts, "request_id": self.id}

    def _for_cache(self, use: Use, ending: Ending, stored: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """The entry of this call, if it makes one. It has no answer where that may not be given again."""
        if not self.fills_cache:
            return None
        entry = {"key": use.key, "ttl_seconds": use.wish.ttl_seconds}
        if stored is None or not (stored["kept"] and self.may_cache) or ending.error_code or self.grant.search_off:
            return entry
        return {**entry, "answer": stored, "most_bytes": use.bounds.most_org_bytes}

    def _cost_shown(self, ending: Ending, *, shows_cost: bool) -> int | None:
        """Our cost where the operator shows it. An org always sees what its own account was billed."""
        if self.reply and self.grant.uses_org_key(self.reply.route):
            stated = credits.stated_cost(self.tally.usage)
            return None if stated is None else int(stated)
        return ending.cost_nanos if shows_cost else None

    def _charged_price(self) -> Mapping[str, Any] | None:
        """That of a server of our own, where the row has the price of another route."""
        route = self.reply and self.reply.route
        if (
            not route
            or not rules.is_own(route)
            or self.grant.uses_org_key(route)
            or route.price in (None, self.grant.price)
        ):
            return None
        return rules.kept_components(route.price)

    def _as_shown(self, answer: bytes, reply: AnyAnswer) -> bytes:
        if reply.refused:
            return self._refusal_as_shown(answer, reply)
        if ANSWER_FORMS[self.ask.endpoint].states_charge:
            return written(strict_json.from_upstream(answer) | self.statement())
        return (
            charge_shown.in_answer(answer, self.amounts)
            if self.hides_cost and states_cost(self.tally.usage)
            else answer
        )

    def _refusal_as_shown(self, answer: bytes, reply: AnyAnswer) -> bytes:
        upstream = reply.route.upstream.id
        if self.error_shape == "anthropic":
            return upstream_errors.for_anthropic(answer, reply.status, upstream, self.caller.claims["request_id"])
        is_ours = self.error_shape == "openai"
        return upstream_errors.in_answer(answer, reply.status, upstream) if is_ours else answer

    def _unanswered(self, charges_prefill: bool) -> Ending:
        used = self.reply.route if self.reply else self.sent.at_work
        if used and self.grant.uses_org_key(used):
            return (
                endings.RELEASED if self.failure else endings.at_work_with_org_key(used, self.grant, self.generation_id)
            )
        at_work = self.sent.at_work
        if at_work and rules.is_own(at_work) and charges_prefill:
            return endings.prefill(at_work, self.grant)
        if self.reply:
            return endings.broken_off(self.reply.route, self.reply.generation_id)
        return endings.unanswered(self.grant.routes_at_our_cost) if self.was_sent else endings.RELEASED
