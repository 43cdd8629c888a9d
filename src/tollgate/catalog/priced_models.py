"""The catalog as operators see it: prices before and with a markup, and routes with their health. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from tollgate.catalog.rules import owner
from tollgate.core import prices
from tollgate.core.errors import BadRequest
from tollgate.core.models import OPENROUTER, OPENROUTER_NAME, Model, Route
from tollgate.core.prices import Price, Unpriced

Found = dict[str, Any]
UNKNOWN: Final = Decimal(-1)


def page(
    models: Sequence[Found], *, q: str | None, sort: str, limit: int, cursor: str | None, offset: int | None
) -> Found:
    """The entries whose id or name contains `q`, in order, from the one after the cursor on."""
    wanted = [model for model in models if q is None or _matches(model, q.casefold())]
    by, direction = sort.split(":")
    ordered = sorted(wanted, key=lambda model: (_measure(model, by), model["id"]), reverse=direction == "desc")
    start = _after(ordered, cursor) if cursor else offset or 0
    shown = ordered[start : start + limit]
    has_more = start + limit < len(ordered)
    return {"data": shown, "next_cursor": shown[-1]["id"] if has_more and shown else None, "total": len(ordered)}


def shown(
    models: Iterable[Model], markup_ppm: int, servers: Mapping[str, Found], breakers: Mapping[str, Mapping[str, str]]
) -> list[Found]:
    """`servers`: name and health of our own upstreams, by id. `breakers`: of the upstreams called here, by model."""
    return [_shown(model, markup_ppm, servers, breakers) for model in models]


def shown_price(price: Price | None) -> dict[str, str] | None:
    """Credits per token, request or piece, as decimal strings."""
    if price is None:
        return None
    return {name: prices.in_credits(value) for name, value in price.named().items()}


def _shown(
    model: Model, markup_ppm: int, servers: Mapping[str, Found], breakers: Mapping[str, Mapping[str, str]]
) -> Found:
    listing = model.listing
    pricing = listing["pricing"]
    architecture = listing.get("architecture") or {}
    created = listing.get("created")
    return {
        "id": model.id,
        "name": str(listing.get("name") or ""),
        "owned_by": owner(model.id),
        "created_at": datetime.fromtimestamp(created, UTC) if isinstance(created, int) and created > 0 else None,
        "context_length": listing.get("context_length"),
        "input_modalities": architecture.get("input_modalities") or [],
        "output_modalities": architecture.get("output_modalities") or [],
        "pricing": pricing,
        "charged_pricing": prices.marked_up(pricing, markup_ppm),
        "alias_of": list(model.alias_of),
        "routes": [_route(route, servers.get(route.upstream.id), breakers) for route in model.routes],
    }


def _route(route: Route, server: Found | None, breakers: Mapping[str, Mapping[str, str]]) -> Found:
    upstream_id = route.upstream.id
    return {
        "upstream_id": upstream_id,
        "upstream_name": OPENROUTER_NAME if upstream_id == OPENROUTER else (server or {}).get("name"),
        "upstream_model": route.model,
        "priority": route.priority,
        "weight": route.weight,
        "pricing": shown_price(route.price),
        "context_tokens": route.context_tokens,
        "most_output": route.most_output,
        "health": (server or {}).get("health"),
        "breaker": breakers.get(upstream_id, {}).get(route.model, "closed") if upstream_id in breakers else None,
    }


def _matches(model: Found, q: str) -> bool:
    return q in model["id"].casefold() or q in model["name"].casefold()


def _measure(model: Found, by: str) -> Any:
    if by in ("prompt", "completion"):
        return _price(model["pricing"].get(by))
    if by == "context_length":
        return model[by] or 0
    if by == "created_at":
        return model[by].timestamp() if model[by] else 0
    return model["id"]


def _price(given: object) -> Decimal:
    try:
        return prices.nanos(given)
    except Unpriced:
        return UNKNOWN


def _after(ordered: Sequence[Found], cursor: str) -> int:
    for place, model in enumerate(ordered):
        if model["id"] == cursor:
            return place + 1
    raise BadRequest("cursor: is not the next_cursor of a page of this list. Begin again without it.", param="cursor")
