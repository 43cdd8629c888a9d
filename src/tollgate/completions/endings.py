"""How a paid call ends: what is charged, what the request's row keeps, and whether the sweeper must look. Pure."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache, partial
from itertools import compress, islice
from math import ceil
from operator import is_not
from typing import Any, Final, Literal, NamedTuple

from tollgate.completions.rules import Grant
from tollgate.core import strict_json
from tollgate.core.errors import ServerRestarting, TooManyInFlight, UpstreamCut, UpstreamError, UpstreamTimeout
from tollgate.core.extras.pricing import IMAGE_TOKENS
from tollgate.core.models import OPENROUTER, SANDBOX, Route
from tollgate.core.sse import Tally
from tollgate.core.units import Units, delivered
from tollgate.credits import rules as credits

FIRST_SWEEP_SECONDS: Final = 2
MOST_USAGE_FIELDS: Final = 60
LONGEST_USAGE_NAME: Final = 64
CLIENT_CLOSED_REQUEST: Final = 499
_IS_KNOWN: Final = partial(is_not, None)


Basis = Literal[
    "no_usage", "byok_fee", "abandoned_prefill", "no_trace", "generation_record", "no_record", "unbelievable_usage",
    "unreadable_record", "out_of_range",
]  # fmt: skip
"""How the charge was found, where the answer did not state it. The last one is the database's."""


class Ending(NamedTuple):
    """How one paid call ended."""

    outcome: Literal["settled", "released", "unsettled"]
    upstream: str | None = None
    served_model: str | None = None
    generation_id: str | None = None
    usage: Mapping[str, Any] | None = None
    """Numbers only, as the row keeps them."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    charge_nanos: int | None = None
    cost_nanos: int | None = None
    estimated: bool = False
    quarantined: bool = False
    basis: Basis | None = None
    status: int | None = None
    """The HTTP status, where it is not 200."""
    error_code: str | None = None
    sweep_in_seconds: int | None = None
    """Of an unsettled call: when the sweeper looks for its cost."""
    is_byok: bool | None = None
    """It used the org's own key. Null says nothing, and the row stays as it is."""

    def tokens_of(self, reserved: int) -> int:
        """Of the tokens that were reserved, those that limits count after the settlement."""
        return reserved if self.outcome == "unsettled" else (self.prompt_tokens or 0) + (self.completion_tokens or 0)

    def item(self, request_id: str, **more: Any) -> dict[str, Any]:
        """As the settlement in the database takes it."""
        return {"id": request_id, **_known(self._fields, self), **_known(more, more.values())}


def _known(names: Iterable[str], values: Collection[Any]) -> dict[str, Any]:
    """The values that are not None, by name. Each settlement needs it, so the loop is not in Python."""
    return dict(compress(zip(names, values, strict=True), map(_IS_KNOWN, values)))


RELEASED: Final = Ending("released")
UNSETTLED: Final = Ending("unsettled", sweep_in_seconds=FIRST_SWEEP_SECONDS)
"""The upstream may have done work, and only it knows the cost."""


def of_answer(tally: Tally, route: Route, grant: Grant, generation_id: str | None) -> Ending:
    """The upstream answered, completely or not."""
    if route.upstream.id == SANDBOX or grant.is_free:
        return _free(tally)._replace(upstream=None if grant.counted is not None else route.upstream.id)
    ending = _at_the_fee(tally, grant) if grant.uses_org_key(route) else _charged(tally, route, grant, generation_id)
    return ending._replace(
        upstream=route.upstream.id,
        served_model=tally.model,
        generation_id=generation_id,
        usage=kept_usage(tally.usage) if ending.outcome == "released" else _kept(tally, grant),
        error_code="failed_upstream" if tally.ending == "failed" else None,
    )


def refused(status: int, upstream: str) -> Ending:
    """The upstream answered with an error."""
    return Ending("released", upstream, status=status, error_code="refused_upstream")


def failed(error: UpstreamError | TooManyInFlight, routes: Sequence[Route]) -> Ending:
    """No upstream gave a readable answer. OpenRouter may charge us for work that it began. `routes` are those that cost
    us something."""
    upstream, generation_id = error.facts.get("upstream"), error.facts.get("generation_id")
    is_paid = _may_cost(routes) and upstream in (OPENROUTER, None)
    began = isinstance(error, (UpstreamCut, UpstreamTimeout)) and error.facts.get("phase") != "connect"
    ending = UNSETTLED if is_paid and (began or generation_id) else RELEASED
    return ending._replace(upstream=upstream, generation_id=generation_id, status=error.status, error_code=error.code)


def unanswered(routes: Sequence[Route]) -> Ending:
    """The client left, or the server stopped, before an upstream answered."""
    return UNSETTLED if _may_cost(routes) else RELEASED


def broken_off(route: Route, generation_id: str | None) -> Ending:
    """The client left, or the server stopped, while an answer came that had said nothing yet."""
    return unanswered([route])._replace(upstream=route.upstream.id, generation_id=generation_id)


def at_work_with_org_key(route: Route, grant: Grant, generation_id: str | None) -> Ending:
    """The client left while an upstream worked with the org's own key, and had said nothing yet."""
    fee = _fee(grant, credits.Usage(grant.prompt_tokens, 0, None))
    return fee._replace(upstream=route.upstream.id, generation_id=generation_id)


def prefill(route: Route, grant: Grant) -> Ending:
    """The client left, or the server stopped, while a server of our own read the prompt: its work is estimated."""
    ending = _estimated(route, grant, completion_tokens=0, units=grant.units and grant.units.read)
    return ending._replace(upstream=route.upstream.id, basis="abandoned_prefill")


def with_client_gone(ending: Ending) -> Ending:
    return ending._replace(status=CLIENT_CLOSED_REQUEST, error_code="client_gone")


def with_server_stopped(ending: Ending) -> Ending:
    return ending._replace(status=ServerRestarting.status, error_code=ServerRestarting.code)


def billed(bill: credits.Bill, usage: credits.Usage | None = None) -> Ending:
    return Ending(
        "settled",
        prompt_tokens=usage.prompt_tokens if usage else None,
        completion_tokens=usage.completion_tokens if usage else None,
        charge_nanos=bill.charge_nanos,
        cost_nanos=bill.cost_nanos,
        estimated=bill.estimated,
        quarantined=bill.quarantined,
    )


def kept_usage(usage: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The numbers of a usage. Its texts are left out, and decimals become strings, so that any row can hold it."""
    if usage is None:
        return None
    return {
        _kept_name(name[:LONGEST_USAGE_NAME]): keep(value)
        for name, value in islice(usage.items(), MOST_USAGE_FIELDS)
        if (keep := _KEPT.get(type(value)))
    }


_KEPT: Final[Mapping[type, Callable[[Any], Any]]] = {int: int, bool: bool, Decimal: str, dict: kept_usage}


@lru_cache(1024)
def _kept_name(name: str) -> str:
    """All usages have the same few names."""
    return strict_json.printable(name, LONGEST_USAGE_NAME)


def _charged(tally: Tally, route: Route, grant: Grant, generation_id: str | None) -> Ending:
    try:
        usage = _usage(tally, route, grant)
        if usage is None:
            return _without_usage(tally, route, grant, generation_id)
        if tally.is_guessed:
            return _estimated(
                route, grant, completion_tokens=usage.completion_tokens, prompt_tokens=usage.prompt_tokens
            )
        return billed(
            credits.bill(
                usage,
                route.price or grant.price,
                markup_ppm=grant.markup_ppm,
                most_nanos=credits.BEYOND_BELIEF * grant.hold_nanos,
                context_tokens=grant.context_tokens,
            ),
            usage,
        )
    except credits.Nonsense:
        if route.upstream.id == OPENROUTER and generation_id:
            return UNSETTLED  # its own record decides
        held = credits.at_the_hold(grant.hold_nanos, grant.markup_ppm)
        return billed(held)._replace(basis="unbelievable_usage")


def _at_the_fee(tally: Tally, grant: Grant) -> Ending:
    """The upstream worked with the org's own key, and bills the org itself. Its tokens are counted against limits."""
    try:
        usage = credits.read_usage(tally.usage)
    except credits.Nonsense:
        usage = None
    if usage is None:
        said = _said(tally, grant)
        if not said and tally.ending != "complete":
            return RELEASED
        usage = credits.Usage(grant.prompt_tokens, said, None)
    return _fee(grant, usage)


def _fee(grant: Grant, usage: credits.Usage) -> Ending:
    return billed(credits.Bill(0, grant.org_keys.fee_nanos), usage)._replace(basis="byok_fee", is_byok=True)


def _kept(tally: Tally, grant: Grant) -> dict[str, Any] | None:
    """With the units that are charged, where the upstream does not name them."""
    kept = kept_usage(tally.usage)
    if grant.units is None:
        return kept
    return delivered(grant.units, tally.usage, tally.images).kept() | (kept or {}) or None


def _usage(tally: Tally, route: Route, grant: Grant) -> credits.Usage | None:
    """Our own servers' cost is tokens times the route's price, whatever they state. OpenRouter sends zeros without a
    cost for answers that did cost something: that is no usage. Nor are the tokens of Responses and Messages without
    a cost, since those of a cache have other prices."""
    usage = credits.read_usage(tally.usage)
    if grant.units is not None:
        return _usage_of_units(usage, tally, route, grant)
    if usage is None:
        return None
    if route.upstream.id != OPENROUTER:
        return credits.at_our_prices(usage, tally.usage or {})
    if usage.cost_nanos is not None:
        return usage
    is_typed = "input_tokens" in (tally.usage or {})
    return None if is_typed or not (usage.prompt_tokens or usage.completion_tokens) else usage


def _usage_of_units(usage: credits.Usage | None, tally: Tally, route: Route, grant: Grant) -> credits.Usage | None:
    """OpenRouter's is what states a cost. That of a server of our own is what we counted, and the tokens that it
    states; without them it is none if they have a price, and nothing is due before something came."""
    if route.upstream.id == OPENROUTER:
        return usage if usage and usage.cost_nanos is not None else None
    if grant.units is None or tally.failure or not tally.events:
        return None
    price = route.price or grant.price
    counted = usage or credits.Usage(0, 0, None)
    states_tokens = counted.prompt_tokens or counted.completion_tokens
    if grant.prompt_tokens and not states_tokens and (price.prompt or price.completion):
        return None
    ours = credits.at_our_prices(counted, tally.usage or {})
    return ours._replace(units=delivered(grant.units, tally.usage, tally.images))


def _without_usage(tally: Tally, route: Route, grant: Grant, generation_id: str | None) -> Ending:
    """Absent usage is not zero. OpenRouter is asked later. A server of our own cannot be asked, so its prompt and what
    it said are estimated. An answer that is only a failure is free."""
    if route.upstream.id == OPENROUTER:
        if grant.units is not None and not generation_id and tally.ending == "complete":
            return _at_the_most(grant)
        return UNSETTLED if generation_id or not tally.failure else RELEASED
    said = _said(tally, grant)
    if not said and tally.ending != "complete":
        return RELEASED
    if grant.units is not None:
        made = tally.images * IMAGE_TOKENS or tally.said_tokens
        return _estimated(route, grant, completion_tokens=made, units=delivered(grant.units, tally.usage, tally.images))
    return _estimated(route, grant, completion_tokens=said)


def _said(tally: Tally, grant: Grant) -> int:
    """The output tokens by the events and texts that came: at least what the server counts, within what was held."""
    return _held(max(0, tally.events - (tally.failure is not None), tally.said_tokens), grant)


def _held(tokens: int, grant: Grant) -> int:
    return tokens if grant.output_tokens is None else min(tokens, grant.output_tokens)


def _at_the_most(grant: Grant) -> Ending:
    """The upstream did the work, and nothing says what it cost, or ever will."""
    bill = credits.at_the_hold(grant.hold_nanos, grant.markup_ppm)._replace(estimated=True, quarantined=False)
    return billed(bill)._replace(basis="no_usage")


def _estimated(
    route: Route, grant: Grant, *, completion_tokens: int, prompt_tokens: int | None = None, units: Units | None = None
) -> Ending:
    """The prompt as it is stated, or the most that it may be, and at least what was said, within the hold."""
    read = _prompt_tokens(grant, units) if prompt_tokens is None else prompt_tokens
    counted = credits.Usage(read, _held(completion_tokens, grant), None, units)
    cost = credits.at_listed_price(counted, route.price or grant.price)
    charge = min(credits.charge_for(cost, grant.markup_ppm), grant.hold_nanos)
    bill = credits.Bill(min(int(cost), grant.hold_nanos), charge, estimated=True)
    return billed(bill, counted)._replace(basis="no_usage")


def _prompt_tokens(grant: Grant, units: Units | None) -> int:
    """The most that the prompt may have. Those of a sound are for its most likely length."""
    if units is None or grant.units is None or not grant.units.seconds:
        return grant.prompt_tokens
    return ceil(grant.prompt_tokens * units.seconds / grant.units.seconds)


def _free(tally: Tally) -> Ending:
    """A test key's call, or one that is free for all: counted, and charged nothing."""
    try:
        usage = credits.read_usage(tally.usage)
    except credits.Nonsense:
        usage = None
    return billed(credits.Bill(0, 0), usage)


def _may_cost(routes: Sequence[Route]) -> bool:
    return any(route.upstream.id == OPENROUTER for route in routes)
