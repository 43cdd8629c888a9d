"""Admission: what a call may cost at most, and whether it may. Python decides how much, Postgres decides whether."""

import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from cachetools import LRUCache

from tollgate.cache import rules as cache_rules
from tollgate.cache.lookups import Cache
from tollgate.catalog.cache import Catalog
from tollgate.catalog.rules import bound_price
from tollgate.completions import rules
from tollgate.completions.endings import RELEASED
from tollgate.completions.paid_call import PaidCall
from tollgate.completions.rules import Bounds, Grant
from tollgate.completions.settlements import Settlements
from tollgate.completions.translations import translated
from tollgate.core import prices
from tollgate.core.endpoints import ENDPOINTS, EVERY_DIALECT
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
from tollgate.core.models import OPENROUTER, SANDBOX, Model
from tollgate.core.prices import Price
from tollgate.credits.rules import WorstCase
from tollgate.keys.authentication import Caller, Gate
from tollgate.keys.rules import Environment
from tollgate.limits import rules as limits
from tollgate.process import logs, threads
from tollgate.upstreams.client import Upstreams

ORGS_REMEMBERED = 10_000

FREE = WorstCase(prices.NOTHING, prices.NOTHING)

Replay = Mapping[str, Any]
Hit = Mapping[str, Any]
"""granted, hit, settled."""


class Quote(NamedTuple):
    """What a call may use and cost at most."""

    models: list[Model]
    price: Price
    """The dearest that may apply."""
    added: Added
    """By extras."""
    sizes: Bounds
    worst: WorstCase


class Admission:
    def __init__(
        self,
        gate: Gate,
        settlements: Settlements,
        catalogs: Mapping[Environment, Catalog],
        upstreams: Upstreams,
        cache: Cache,
        *,
        markup_ppm: int,
        ttl_seconds: int,
        register: Register = REGISTER,
    ) -> None:
        self._gate = gate
        self._settlements = settlements
        self._catalogs = catalogs
        self._upstreams = upstreams
        self._cache = cache
        self._markup_ppm = markup_ppm
        self._ttl_seconds = ttl_seconds
        self._register = register
        self._orgs: LRUCache[str, str] = LRUCache(ORGS_REMEMBERED)
        """By the digest of a key that was granted something."""

    async def price(self, call: PaidCall) -> Quote:
        """Raises the refusal of a call that cannot be priced or served. The database is not asked."""
        ask, is_test = call.ask, call.caller.environment == "test"
        pricing.refuse_unpriced(ask.extras, self._register)
        self._check_share(call.caller)
        models = await self._models(call)
        price = prices.dearest([bound_price(model, ask.max_price) for model in models])
        added = await self._added(call, models, price)
        sizes = rules.bounds(ask, models, added)
        is_free = is_test or sizes is rules.NO_BOUNDS
        return Quote(models, price, added, sizes, FREE if is_free else rules.worst_case(ask, sizes, price, added))

    async def admit(self, call: PaidCall, quote: Quote) -> Replay | Hit | None:
        """Grants the call, or returns the replay or hit to send instead: one round trip. Raises the refusal; then
        nothing was taken."""
        answer = await self._answer(call, quote)
        call.caller.recognised = True
        if "refusal" in answer:
            raise self._refused(call, answer["refusal"])
        if "replay" in answer:
            return _replayed(answer["replay"])
        granted = answer["granted"]
        if granted["environment"] != call.caller.environment:
            # The key's prefix and its row disagree, so the call would go to the wrong upstream.
            await self._settlements.settle(RELEASED.item(call.id))
            self._cache.ended(call.id)
            raise InternalError
        logs.note(org_id=granted["org_id"], key_id=granted["key_id"], user_id=granted["user_id"])
        if self._orgs.get(call.caller.digest) != granted["org_id"]:
            self._orgs[call.caller.digest] = granted["org_id"]
        self._cache.learn(call.caller.digest, granted["caches"])
        if "hit" in answer:
            return answer
        call.grant = _grant(call, quote, granted)
        return None

    async def _answer(self, call: PaidCall, quote: Quote) -> Mapping[str, Any]:
        """Of the database, which looks the call up in the cache where it is wished."""
        item = self._item(call, quote)
        use = call.cache
        if use is None:
            return await self._settlements.admit(item)
        if not cache_rules.is_cacheable(call.ask):
            call.cache = use if use.wish.asked else None
            return await self._settlements.admit(item)
        if call.idempotency_key is not None:  # its answer is its own
            use.wish = use.wish._replace(reads=False)
        routes = [route for model in quote.models for route in model.routes]
        use.key = cache_rules.key(
            self._cache.pepper, use.digest, call.ask, call.caller.environment, routes, call.headers
        )
        answer = await self._cache.admit(use, item, self._orgs.get(call.caller.digest), self._settlements.admit)
        if use.outcome == "bypass" and not use.wish.asked:
            call.cache = None  # its setting is off
        return answer

    def _check_share(self, caller: Caller) -> None:
        """Refuses an org that has its share in flight before the database is asked, where the key's org is known. The
        share itself is taken by `Upstreams.open`."""
        if org_id := self._orgs.get(caller.digest):
            self._upstreams.check_share(org_id, SANDBOX if caller.environment == "test" else OPENROUTER)

    async def _models(self, call: PaidCall) -> list[Model]:
        catalog = self._catalogs.get(call.caller.environment)
        if catalog is None:
            raise UpstreamUnavailable("Test keys need a sandbox, and this server has none. Set SANDBOX_BASE_URL.")
        models = [await catalog.find(name) for name in call.ask.models]
        form = ENDPOINTS[call.ask.endpoint]
        if form.dialects is EVERY_DIALECT:
            return models
        models = rules.serving(models, form)
        if form.is_translated and not rules.is_native(models, form):
            call.translated = await threads.work(len(call.body), translated, call.ask.endpoint, call.body)
        return models

    async def _added(self, call: PaidCall, models: list[Model], price: Price) -> Added:
        """What the extras of the call add at most. Raises ExtraUnpriced."""
        asked = rules.with_outputs(call.ask.extras, models)
        helpers: dict[str, Price] = {}
        for name in asked.models:
            with contextlib.suppress(ModelNotFound, ModelUnpriced):  # pricing refuses an extra whose model has no price
                helpers[name] = bound_price(await self._catalogs[call.caller.environment].find(name), None)
        return pricing.worst_case(asked, self._register, price, helpers, call.ask.choices)

    def _item(self, call: PaidCall, quote: Quote) -> dict[str, Any]:
        ask, sizes, worst = call.ask, quote.sizes, quote.worst
        item = {
            "id": call.id,
            "caller": call.caller.claims,
            "scope": ENDPOINTS[ask.endpoint].scope,
            "endpoint": ask.endpoint,
            "model": ask.model,
            "models": (*ask.models, *ask.extras.models),
            "streamed": ask.stream,
            "fixed_nanos": str(worst.fixed_nanos),
            "output_nanos": str(worst.output_nanos),
            "output_bound": sizes.output,
            "least_output": rules.LEAST_OUTPUT,
            "most_output": sizes.most_output,
            "choices": ask.choices * quote.added.turns,
            "prompt_tokens": sizes.limited_tokens,
            "markup_ppm": self._markup_ppm,
            "ttl_seconds": self._ttl_seconds,
            "price": rules.kept_price(quote.price, worst),
        }
        if call.idempotency_key is not None:
            item |= {"idempotency_key": call.idempotency_key, "body_hash": call.body_hash}
        return item

    def _refused(self, call: PaidCall, refusal: Mapping[str, Any]) -> TollgateError:
        facts = refusal["facts"]
        logs.note(model=call.ask.model, refusal=facts)
        error = from_code(refusal["code"], facts)
        if isinstance(error, InvalidApiKey):
            self._gate.remember_unknown(call.caller)
        elif isinstance(error, RateLimitExceeded):
            error.headers = limits.refused(facts)
            logs.note(limit=f"{facts['measure']}_per_{facts['window']}")
        if "key_id" in facts:
            logs.note(key_id=facts["key_id"])
        return error


def _replayed(found: Replay) -> Replay:
    logs.note(org_id=found.get("org_id"), key_id=found.get("key_id"))
    if not found.get("kept", True):
        raise AnswerNotKept(request_id=found["request_id"])
    return found


def _grant(call: PaidCall, quote: Quote, granted: Mapping[str, Any]) -> Grant:
    ask, is_test = call.ask, call.caller.environment == "test"
    routes = [route for model in quote.models for route in model.routes]
    return Grant(
        org_id=granted["org_id"],
        routes=rules.routes_of(quote.models),
        price=quote.price,
        hold_nanos=granted["hold_nanos"],
        markup_ppm=granted["markup_ppm"],
        prompt_tokens=quote.sizes.prompt_tokens,
        context_tokens=rules.context_tokens(ask, routes, quote.added),
        bound=rules.bound_to_send(ask, quote.sizes, granted["output_bound"]),
        openrouter_models=rules.openrouter_models(quote.models),
        search_off=not is_test and rules.must_cost_nothing(ask, granted),
        reserved_tokens=quote.sizes.limited_tokens + granted["output_bound"] * ask.choices * quote.added.turns,
        headers=limits.remaining(granted.get("limits")),
        is_free=quote.sizes is rules.NO_BOUNDS,
        counted=rules.counted(ask, quote.models) if quote.sizes is rules.NO_BOUNDS else None,
    )
