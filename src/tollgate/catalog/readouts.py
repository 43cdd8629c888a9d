"""The endpoints of a model and the providers, in the shapes of OpenRouter's API. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from tollgate.catalog.entries import DEFAULT_LISTING
from tollgate.catalog.priced_models import shown_price
from tollgate.core import prices
from tollgate.core.models import OPENROUTER, SANDBOX, Model, Route

PRICED_BY_THE_LISTING: Final = (OPENROUTER, SANDBOX)
NOTHING: Final = {"prompt": "0", "completion": "0"}
UNKNOWN: Final = {"prompt": "-1", "completion": "-1"}
"""As OpenRouter states that a model has no fixed price."""
TOOL_CHOICES: Final = ("none", "auto", "required", "function")


def endpoints(model: Model, markup_ppm: int) -> dict[str, Any]:
    """The routes of a model, with the prices that are charged."""
    listing = model.listing
    architecture = listing.get("architecture")
    created = listing.get("created")
    return {
        "id": model.id,
        "name": str(listing.get("name") or model.id),
        "created": created if isinstance(created, int) else 0,
        "description": str(listing.get("description") or ""),
        "architecture": {
            **DEFAULT_LISTING["architecture"],
            **(architecture if isinstance(architecture, Mapping) else {}),
        },
        "endpoints": [_endpoint(model, route, markup_ppm) for route in model.routes],
    }


def providers(models: Iterable[Model]) -> list[dict[str, str]]:
    """The upstreams that serve them, each once."""
    ids = sorted({route.upstream.id for model in models for route in model.routes})
    return [{"name": upstream, "slug": upstream} for upstream in ids]


def _endpoint(model: Model, route: Route, markup_ppm: int) -> dict[str, Any]:
    listing, upstream = model.listing, route.upstream.id
    parameters = [str(one) for one in listing.get("supported_parameters") or ()]
    return {
        "name": f"{upstream} | {model.id}",
        "model_id": model.id,
        "model_name": str(listing.get("name") or model.id),
        "provider_name": upstream,
        "tag": upstream,
        "context_length": route.context_tokens or listing.get("context_length") or 0,
        "max_completion_tokens": route.most_output,
        "pricing": _pricing(model, route, markup_ppm),
        "supported_parameters": parameters,
        "supports_tool_choice": dict.fromkeys(TOOL_CHOICES, "tool_choice" in parameters),
    }


def _pricing(model: Model, route: Route, markup_ppm: int) -> dict[str, Any]:
    if route.upstream.id in PRICED_BY_THE_LISTING:
        return prices.marked_up(model.listing["pricing"], markup_ppm)
    stated = shown_price(route.price)
    return UNKNOWN if stated is None else prices.marked_up(NOTHING | stated, markup_ppm)
