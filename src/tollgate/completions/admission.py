"""The way in: how much a call may cost at worst, and whether it may."""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from tollgate.catalog.memory import Catalog
from tollgate.catalog.rules import bound_price
from tollgate.completions import rules
from tollgate.completions.books import Books
from tollgate.core import prices
from tollgate.core.chat import Ask
from tollgate.core.errors import (
    AnswerNotKept,
    InternalError,
    InvalidApiKey,
    RateLimitExceeded,
    TollgateError,
    UpstreamUnavailable,
    from_code,
)
from tollgate.core.models import Model, Route
from tollgate.core.prices import Price
from tollgate.credits.rules import WorstCase
from tollgate.keys.gate import Gate, Visitor
from tollgate.keys.rules import Environment
from tollgate.limits import rules as limits
from tollgate.runtime import logs

FREE = WorstCase(prices.NOTHING, prices.NOTHING)


class Call(NamedTuple):
    """A paid call as it came in."""

    id: str
    """Of its row; made here, never the client's."""
    visitor: Visitor
    ask: Ask
    body: bytes
    headers: Mapping[str, str]
    started: float
    idempotency_key: str | None
    wants_charge: bool
    """X-Tollgate-Usage: the charge goes into the last chunk of a stream."""


class Admitted(NamedTuple):
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
        *,
        markup_ppm: int,
        ttl_seconds: int,
    ) -> None:
        self._gate = gate
        self._books = books
        self._catalogs = catalogs
        self._markup_ppm = markup_ppm
        self._ttl_seconds = ttl_seconds

    async def admit(self, call: Call) -> Admitted | Replay:
        """One round trip. Raises the refusal; then nothing was taken."""
        self._gate.refuse_strangers(call.visitor)
        models = await self._models(call)
        price = prices.dearest(bound_price(model, call.ask.max_price) for model in models)
        sizes = rules.bounds(call.ask, models)
        is_test = call.visitor.environment == "test"
        worst = FREE if is_test else rules.worst_case(call.ask, sizes, price)
        answer = await self._books.admit(self._item(call, sizes, price, worst))
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
        return self._granted(call, sizes, price, models, answer["granted"])

    async def _models(self, call: Call) -> list[Model]:
        catalog = self._catalogs.get(call.visitor.environment)
        if catalog is None:
            raise UpstreamUnavailable("Test keys need a sandbox, and none runs here. Set SANDBOX_BASE_URL.")
        return [await catalog.find(name) for name in call.ask.models]

    def _item(self, call: Call, sizes: rules.Bounds, price: Price, worst: WorstCase) -> dict[str, Any]:
        ask = call.ask
        item = {
            "id": call.id,
            "caller": call.visitor.claims,
            "scope": ask.endpoint,
            "endpoint": ask.endpoint,
            "model": ask.model,
            "models": ask.models,
            "streamed": ask.stream,
            "fixed_nanos": str(worst.fixed_nanos),
            "output_nanos": str(worst.output_nanos),
            "output_bound": sizes.output,
            "least_output": rules.LEAST_OUTPUT,
            "most_output": sizes.most_output,
            "choices": ask.choices,
            "prompt_tokens": sizes.prompt_tokens,
            "markup_ppm": self._markup_ppm,
            "ttl_seconds": self._ttl_seconds,
            "price": rules.kept_price(price, worst),
        }
        if call.idempotency_key is not None:
            item["idempotency_key"] = call.idempotency_key
            item["body_hash"] = hashlib.sha256(ask.endpoint.encode() + b"\n" + call.body).hexdigest()
        return item

    def _granted(
        self, call: Call, sizes: rules.Bounds, price: Price, models: list[Model], grant: Mapping[str, Any]
    ) -> Admitted:
        logs.note(org_id=grant["org_id"], key_id=grant["key_id"], user_id=grant["user_id"])
        contexts = [route.context_tokens for model in models for route in model.routes]
        known = [context for context in contexts if context]
        counts = call.ask.endpoint != "embeddings" and len(known) == len(contexts)
        return Admitted(
            routes=rules.routes_of(models),
            body=rules.with_known_fallbacks(call.body, models),
            price=price,
            bound=rules.bound_to_send(call.ask, sizes, grant["output_bound"]),
            hold_nanos=grant["hold_nanos"],
            markup_ppm=grant["markup_ppm"],
            context_tokens=max(known) * call.ask.choices if counts else None,
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
