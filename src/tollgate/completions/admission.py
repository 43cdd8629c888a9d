"""The way in: how much a call may cost at worst, and whether it may."""

import contextlib
import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from cachetools import LRUCache

from tollgate.catalog.cache import Catalog
from tollgate.catalog.rules import bound_price
from tollgate.completions import rules
from tollgate.completions.settlements import Books
from tollgate.core import prices
from tollgate.core.errors import (
    AnswerNotKept,
    InternalError,
    InvalidApiKey,
    ModelNotFound,
    ModelUnpriced,
    RateLimitExceeded,
    TollgateError,
    UpstreamUnavailable,
    from_code,
)
from tollgate.core.extras import pricing
from tollgate.core.extras.pricing import Added
from tollgate.core.extras.register import REGISTER, Register
from tollgate.core.models import OPENROUTER, SANDBOX, Model, Route
from tollgate.core.prices import Price
from tollgate.core.request_body import Ask
from tollgate.credits.rules import WorstCase
from tollgate.keys.authentication import Caller, Gate
from tollgate.keys.rules import Environment
from tollgate.limits import rules as limits
from tollgate.process import logs, threads
from tollgate.upstreams.client import Upstreams

ORGS_REMEMBERED = 10_000

FREE = WorstCase(prices.NOTHING, prices.NOTHING)


class Call(NamedTuple):
    """A paid call as it came in."""

    id: str
    """Of its row; made here, never the client's."""
    visitor: Caller
    ask: Ask
    body: bytes
    headers: Mapping[str, str]
    started: float
    idempotency_key: str | None
    wants_charge: bool
    """X-Tollgate-Usage: the charge goes into the last chunk of a stream."""


class Admitted(NamedTuple):
    org_id: str
    routes: tuple[Route, ...]
    body: bytes
    price: Price
    bound: int | None
    """The output bound to send upstream, where the body's own is not enough."""
    hold_nanos: int
    markup_ppm: int
    context_tokens: int | None
    prompt_tokens: int
    """The most that the prompt may be, media included."""
    headers: Mapping[str, str]
    """What is left of the limits."""


class Replay(NamedTuple):
    """What was answered before under the same idempotency key."""

    answer: Mapping[str, Any]


class Admission:
    def __init__(
        self,
        gate: Gate,
        books: Books,
        catalogs: Mapping[Environment, Catalog],
        upstreams: Upstreams,
        *,
        markup_ppm: int,
        ttl_seconds: int,
        register: Register = REGISTER,
    ) -> None:
        self._gate = gate
        self._books = books
        self._catalogs = catalogs
        self._upstreams = upstreams
        self._markup_ppm = markup_ppm
        self._ttl_seconds = ttl_seconds
        self._register = register
        self._orgs: LRUCache[str, str] = LRUCache(ORGS_REMEMBERED)
        """By the digest of a key that was granted something."""

    async def admit(self, call: Call) -> Admitted | Replay:
        """One round trip. Raises the refusal; then nothing was taken."""
        self._gate.refuse_strangers(call.visitor)
        pricing.refuse_unpriced(call.ask.extras, self._register)
        self._refuse_crowd(call.visitor)
        models = await self._models(call)
        price = prices.dearest(bound_price(model, call.ask.max_price) for model in models)
        added = await self._added(call, models, price)
        sizes = rules.bounds(call.ask, models, added)
        is_test = call.visitor.environment == "test"
        worst = FREE if is_test else rules.worst_case(call.ask, sizes, price, added)
        body = await threads.work(len(call.body), rules.with_known_fallbacks, call.body, models)
        item = self._item(call, sizes, price, worst, added)
        if call.idempotency_key is not None:
            item["idempotency_key"] = call.idempotency_key
            item["body_hash"] = await threads.work(len(call.body), _digest, call)
        answer = await self._books.admit(item)
        call.visitor.recognised = True
        if "refusal" in answer:
            raise self._refused(call, answer["refusal"])
        if "replay" in answer:
            if not answer["replay"].get("kept", True):
                raise AnswerNotKept(request_id=answer["replay"]["request_id"])
            return Replay(answer["replay"])
        if answer["granted"]["environment"] != call.visitor.environment:
            # The key's form and its row disagree: it must not go where the other kind goes.
            await self._books.settle({"id": call.id, "outcome": "released"})
            raise InternalError
        if _has_nothing(call, answer["granted"]):
            body = await threads.work(len(body), rules.without_search, body, models)
        return self._granted(call, body, sizes, price, models, added, answer["granted"])

    async def _added(self, call: Call, models: list[Model], price: Price) -> Added:
        """What the extras of the call add at most. Raises ExtraUnpriced."""
        asked = rules.with_outputs(call.ask.extras, models)
        helpers: dict[str, Price] = {}
        for name in asked.models:
            with contextlib.suppress(ModelNotFound, ModelUnpriced):  # what has no price is refused by its extra
                helpers[name] = bound_price(await self._catalogs[call.visitor.environment].find(name), None)
        return pricing.worst_case(asked, self._register, price, helpers, call.ask.choices)

    def _refuse_crowd(self, visitor: Caller) -> None:
        """An org that is known to have its share in flight is refused before anything is asked of the database."""
        if org_id := self._orgs.get(visitor.digest):
            self._upstreams.refuse_crowd(org_id, SANDBOX if visitor.environment == "test" else OPENROUTER)

    async def _models(self, call: Call) -> list[Model]:
        catalog = self._catalogs.get(call.visitor.environment)
        if catalog is None:
            raise UpstreamUnavailable("Test keys need a sandbox, and none runs here. Set SANDBOX_BASE_URL.")
        return [await catalog.find(name) for name in call.ask.models]

    def _item(self, call: Call, sizes: rules.Bounds, price: Price, worst: WorstCase, added: Added) -> dict[str, Any]:
        ask = call.ask
        return {
            "id": call.id,
            "caller": call.visitor.claims,
            "scope": ask.endpoint,
            "endpoint": ask.endpoint,
            "model": ask.model,
            "models": (*ask.models, *ask.extras.models),
            "streamed": ask.stream,
            "fixed_nanos": str(worst.fixed_nanos),
            "output_nanos": str(worst.output_nanos),
            "output_bound": sizes.output,
            "least_output": rules.LEAST_OUTPUT,
            "most_output": sizes.most_output,
            "choices": ask.choices * added.turns,
            "prompt_tokens": sizes.prompt_tokens,
            "markup_ppm": self._markup_ppm,
            "ttl_seconds": self._ttl_seconds,
            "price": rules.kept_price(price, worst),
        }

    def _granted(
        self,
        call: Call,
        body: bytes,
        sizes: rules.Bounds,
        price: Price,
        models: list[Model],
        added: Added,
        grant: Mapping[str, Any],
    ) -> Admitted:
        logs.note(org_id=grant["org_id"], key_id=grant["key_id"], user_id=grant["user_id"])
        contexts = [route.context_tokens for model in models for route in model.routes]
        known = [context for context in contexts if context]
        counts = call.ask.endpoint != "embeddings" and len(known) == len(contexts)
        if self._orgs.get(call.visitor.digest) != grant["org_id"]:
            self._orgs[call.visitor.digest] = grant["org_id"]
        return Admitted(
            org_id=grant["org_id"],
            routes=rules.routes_of(models),
            body=body,
            price=price,
            bound=rules.bound_to_send(call.ask, sizes, grant["output_bound"]),
            hold_nanos=grant["hold_nanos"],
            markup_ppm=grant["markup_ppm"],
            context_tokens=max(known) * call.ask.choices * added.turns if counts else None,
            prompt_tokens=sizes.prompt_tokens,
            headers=limits.remaining(grant.get("limits")),
        )

    def _refused(self, call: Call, refusal: Mapping[str, Any]) -> TollgateError:
        facts = refusal["facts"]
        error = from_code(refusal["code"], facts)
        if isinstance(error, InvalidApiKey):
            self._gate.remember_stranger(call.visitor)
        elif isinstance(error, RateLimitExceeded):
            error.headers = limits.refused(facts)
        if "key_id" in facts:
            logs.note(key_id=facts["key_id"])
        return error


def _digest(call: Call) -> str:
    """Tells whether a repetition is of the same request."""
    return hashlib.sha256(call.ask.endpoint.encode() + b"\n" + call.body).hexdigest()


def _has_nothing(call: Call, grant: Mapping[str, Any]) -> bool:
    """Then the call was admitted because it costs nothing, and must cost nothing."""
    asks_text = call.ask.endpoint != "embeddings" and call.visitor.environment != "test"
    return asks_text and grant["hold_nanos"] == 0 and bool(grant["balance_nanos"] <= grant["held_nanos"])
