"""Admission: what a call may cost at most, and whether it may. Python decides how much, Postgres decides whether."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tollgate.cache import rules as cache_rules
from tollgate.cache.lookups import Cache
from tollgate.catalog.cache import Catalog
from tollgate.catalog.index import Found
from tollgate.catalog.rules import bound_price, chosen
from tollgate.completions import own_keys, rules
from tollgate.completions.endings import RELEASED
from tollgate.completions.own_keys import OrgKeys
from tollgate.completions.paid_call import PaidCall
from tollgate.completions.rules import Bounds, Grant
from tollgate.completions.settlements import Settlements
from tollgate.completions.translations import translated
from tollgate.core import prices, request_body
from tollgate.core.endpoints import ENDPOINTS, EVERY_DIALECT
from tollgate.core.errors import (
    AnswerNotKept,
    EndpointNotServed,
    ExtraUnpriced,
    InternalError,
    InvalidApiKey,
    ModelNotFound,
    ModelUnpriced,
    RateLimitExceeded,
    TollgateError,
    UpstreamKeyOutdated,
    UpstreamUnavailable,
    VaultLocked,
    from_code,
)
from tollgate.core.extras import pricing
from tollgate.core.extras.pricing import NO_EXTRAS, Added
from tollgate.core.extras.register import REGISTER, Register
from tollgate.core.extras.requested import NOTHING_ASKED, speaks
from tollgate.core.models import OPENROUTER, SANDBOX, Alias, Model, Retirement
from tollgate.core.prices import Price
from tollgate.core.request_body import Ask
from tollgate.credits.rules import WorstCase
from tollgate.keys.authentication import Caller, Gate
from tollgate.keys.rules import Environment
from tollgate.limits import rules as limits
from tollgate.process import logs, threads
from tollgate.process.bounded_map import BoundedMap
from tollgate.upstreams.client import Upstreams
from tollgate.vault.rules import Vault

ORGS_REMEMBERED = 10_000
PRICES_REMEMBERED = 1_000

FREE = WorstCase(prices.NOTHING, prices.NOTHING)

Replay = Mapping[str, Any]
Hit = Mapping[str, Any]
"""granted, hit, settled."""


class Choice(NamedTuple):
    """Which models may answer a call."""

    models: list[Model]
    """In order. Routes that cannot serve the call are left out."""
    alias: str | None = None
    """The name in the request, if it is an alias."""
    is_renamed: bool = False
    """A name in the request is an alias."""
    is_ordered: bool = False
    """The order of the routes is decided, and no weight is drawn."""
    retirement: Retirement | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(model.id for model in self.models))


class Quote(NamedTuple):
    """What a call may use and cost at most."""

    choice: Choice
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
        byok_fee_nanos: int = 0,
        vault: Vault | None = None,
    ) -> None:
        self._gate = gate
        self._settlements = settlements
        self._catalogs = catalogs
        self._upstreams = upstreams
        self._cache = cache
        self._markup_ppm = markup_ppm
        self._ttl_seconds = ttl_seconds
        self._register = register
        self._byok_fee_nanos = byok_fee_nanos
        self._vault = vault or Vault(())
        self._orgs: BoundedMap[str, str] = BoundedMap(ORGS_REMEMBERED)
        """By the digest of a key that was granted something."""
        self._components: BoundedMap[int, tuple[Price, Mapping[str, str]]] = BoundedMap(PRICES_REMEMBERED)
        """Of a price as rows keep it, by the identity of the price. The price itself stays, so no other gets its id."""

    async def price(self, call: PaidCall) -> Quote:
        """Raises the refusal of a call that cannot be priced or served. The database is not asked."""
        ask, is_test = call.ask, call.caller.environment == "test"
        pricing.refuse_unpriced(ask.extras, self._register)
        self._check_share(call.caller)
        choice = await self._choice(call)
        ask, models = call.ask, choice.models
        price = prices.dearest([bound_price(model, ask.max_price) for model in models])
        if price.units is not None or ask.units is not None:
            _refuse_unmetered(ask, models)
        added = await self._added(call, models, price)
        sizes = rules.bounds(ask, models, added)
        is_free = is_test or sizes is rules.NO_BOUNDS
        return Quote(choice, price, added, sizes, FREE if is_free else rules.worst_case(ask, sizes, price, added))

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
        keys, models = await self._org_keys(call, quote, granted)
        call.grant = _grant(call, quote, granted, keys, models)
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
        routes = [route for model in quote.choice.models for route in model.routes]
        use.key = cache_rules.key(
            self._cache.pepper, use.digest, call.ask, call.caller.environment, routes, call.headers
        )
        answer = await self._cache.admit(use, item, self._orgs.get(call.caller.digest), self._settlements.admit)
        if use.outcome == "bypass" and not use.wish.asked:
            call.cache = None  # its setting is off
        return answer

    async def _org_keys(
        self, call: PaidCall, quote: Quote, granted: Mapping[str, Any]
    ) -> tuple[OrgKeys, Sequence[Model]]:
        """If one of the org's own keys cannot be used, the call is refused, and goes upstream with no other."""
        try:
            return own_keys.opened(granted["byok"], quote.choice.models, self._vault)
        except (UpstreamKeyOutdated, VaultLocked) as error:
            await self._settlements.settle(RELEASED.item(call.id, status=error.status, error_code=error.code))
            self._cache.ended(call.id)
            raise

    def _check_share(self, caller: Caller) -> None:
        """Refuses an org that has its share in flight before the database is asked, where the key's org is known. The
        share itself is taken by `Upstreams.open`."""
        if org_id := self._orgs.get(caller.digest):
            self._upstreams.check_share(org_id, SANDBOX if caller.environment == "test" else OPENROUTER)

    async def _choice(self, call: PaidCall) -> Choice:
        catalog = self._catalogs.get(call.caller.environment)
        if catalog is None:
            raise UpstreamUnavailable("Test keys need a sandbox, and this server has none. Set SANDBOX_BASE_URL.")
        found = [await catalog.find(name) for name in call.ask.models]
        choice = _chosen(found, call)
        if choice.is_renamed and speaks(choice.names):
            call.ask = await threads.work(
                len(call.body), request_body.with_extras_of, call.ask, call.body, choice.names
            )
            pricing.refuse_unpriced(call.ask.extras, self._register)
        models = _able(choice.models, call.ask)
        form = ENDPOINTS[call.ask.endpoint]
        if form.is_translated and not rules.is_native(models, form):
            call.translated = await threads.work(len(call.body), translated, call.ask.endpoint, call.body)
        return choice if models == choice.models else choice._replace(models=models)

    async def _added(self, call: PaidCall, models: list[Model], price: Price) -> Added:
        """What the extras of the call add at most. Raises ExtraUnpriced."""
        asked = call.ask.extras if call.ask.units else rules.with_outputs(call.ask.extras, models)
        if asked is NOTHING_ASKED and call.ask.units is None:  # as for most calls
            return NO_EXTRAS
        helpers: dict[str, Price] = {}
        for name in asked.models:
            with contextlib.suppress(ModelNotFound, ModelUnpriced):  # pricing refuses an extra whose model has no price
                found = await self._catalogs[call.caller.environment].find(name)
                if isinstance(found, Model):  # OpenRouter gets the name as it is, and knows no alias
                    helpers[name] = bound_price(found, None)
        added = pricing.worst_case(asked, self._register, price, helpers, call.ask.choices)
        return added if call.ask.units is None else rules.with_floor(call.ask, models, added, self._register)

    def _item(self, call: PaidCall, quote: Quote) -> dict[str, Any]:
        ask, choice, sizes, worst = call.ask, quote.choice, quote.sizes, quote.worst
        item = {
            "id": call.id,
            "caller": call.caller.claims,
            "scope": ENDPOINTS[ask.endpoint].scope,
            "endpoint": ask.endpoint,
            "model": ask.model if choice.alias is None else choice.models[0].id,
            "models": (*(choice.names if choice.is_renamed else ask.models), *ask.extras.models),
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
            "price": rules.kept_price(worst, self._components_of(quote.price)),
            "upstreams": [[route.upstream.id for route in model.routes] for model in quote.choice.models],
            "byok_fee_nanos": 0 if worst is FREE else self._byok_fee_nanos,
        }
        if choice.alias is not None:
            item["alias"] = choice.alias
        if call.idempotency_key is not None:
            item |= {"idempotency_key": call.idempotency_key, "body_hash": call.body_hash}
        return item

    def _components_of(self, price: Price) -> Mapping[str, str]:
        known = self._components.get(id(price))
        if known is None:
            known = self._components[id(price)] = price, rules.kept_components(price)
        return known[1]

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


def _refuse_unmetered(ask: Ask, models: list[Model]) -> None:
    form = ENDPOINTS[ask.endpoint]
    for route in (route for model in models for route in model.routes):
        if route.price and (name := rules.unmetered(route.price, form, is_ours=rules.is_own(route))):
            raise ModelUnpriced(param="model", price=name, endpoint=form.path)


def _chosen(found: Sequence[Found], call: PaidCall) -> Choice:
    """A session or, for an alias, the key always gets the same target and the same order of routes."""
    session = call.ask.session_id or call.headers.get("x-session-id")
    if session is None and len(found) == 1 and isinstance(found[0], Model):  # as for most calls
        return Choice([found[0]], retirement=found[0].retirement)
    is_renamed = any(isinstance(one, Alias) for one in found)
    chooser = session or call.caller.digest
    models = [model for one in found for model in chosen(one, chooser)]
    is_ordered = is_renamed or session is not None
    return Choice(
        rules.in_order(models, chooser) if is_ordered else models,
        alias=found[0].name if isinstance(found[0], Alias) else None,
        is_renamed=is_renamed,
        is_ordered=is_ordered,
        retirement=found[0].retirement,
    )


def _able(models: list[Model], ask: Ask) -> list[Model]:
    """Of the models, those with a route that can serve the call. Raises ExtraUnpriced or EndpointNotServed."""
    form = ENDPOINTS[ask.endpoint]
    if param := rules.is_billed_apart(ask):
        models = rules.without_vendors(models)
        if not any(model.routes for model in models):
            raise ExtraUnpriced(param=param, model=ask.model)
    if ask.only_vllm:
        models = rules.on_vllm(models, ask.only_vllm)
    if form.dialects is not EVERY_DIALECT:
        models = rules.serving(models, form)
    able = [model for model in models if model.routes]
    if not able:
        raise EndpointNotServed(param="model", model=ask.model, endpoint=form.path)
    return able


def _replayed(found: Replay) -> Replay:
    logs.note(org_id=found.get("org_id"), key_id=found.get("key_id"), replayed=found["request_id"])
    if not found.get("kept", True):
        raise AnswerNotKept(request_id=found["request_id"])
    return found


def _grant(call: PaidCall, quote: Quote, granted: Mapping[str, Any], keys: OrgKeys, models: Sequence[Model]) -> Grant:
    ask, is_test = call.ask, call.caller.environment == "test"
    output = granted["output_bound"] * ask.choices * quote.added.turns
    search_off = not is_test and OPENROUTER not in keys.secrets and rules.must_cost_nothing(ask, granted)
    return Grant(
        org_id=granted["org_id"],
        routes=rules.routes_of(models),
        price=quote.price,
        hold_nanos=granted["hold_nanos"],
        markup_ppm=granted["markup_ppm"],
        prompt_tokens=quote.sizes.prompt_tokens,
        context_tokens=quote.sizes.context_tokens,
        bound=rules.bound_to_send(ask, quote.sizes, granted["output_bound"]),
        output_tokens=output if ENDPOINTS[ask.endpoint].generates else None,
        openrouter_models=rules.openrouter_models(models, ask, by_alias=quote.choice.is_renamed),
        search_off=search_off,
        reserved_tokens=quote.sizes.limited_tokens + output,
        limits=granted.get("limits"),
        is_ordered=quote.choice.is_ordered,
        notices=rules.notices(quote.choice.retirement),
        is_free=quote.sizes is rules.NO_BOUNDS,
        units=ask.units,
        counted=rules.counted(ask, models) if quote.sizes is rules.NO_BOUNDS else None,
        org_keys=keys,
    )
