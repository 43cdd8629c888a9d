"""What the catalogue is told: OpenRouter's list and the rows of our own routes, read into values. Pure."""

import json
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any, Final, NamedTuple, get_args

from tollgate.core import prices, strict_json
from tollgate.core.models import OPENROUTER, Dialect, Route, Upstream
from tollgate.core.prices import Price, Unpriced

Json = Any

LONGEST_NAME: Final = 256

MADE_UP: Final[dict[str, Json]] = {
    "hugging_face_id": None,
    "name": "",
    "created": 0,
    "description": "",
    "context_length": None,
    "architecture": {
        "modality": "text->text",
        "input_modalities": ["text"],
        "output_modalities": ["text"],
        "tokenizer": "Other",
        "instruct_type": None,
    },
    "top_provider": {"context_length": None, "max_completion_tokens": None, "is_moderated": False},
    "per_request_limits": None,
    "supported_parameters": [
        *("temperature", "top_p", "max_tokens", "stop", "seed", "frequency_penalty", "presence_penalty"),
        *("response_format", "structured_outputs", "tools", "tool_choice", "logprobs", "top_logprobs"),
    ],
    "supported_voices": None,
    "default_parameters": None,
    "knowledge_cutoff": None,
    "expiration_date": None,
}
"""What OpenRouter would say of a model of which we know little. Strict SDKs want every field."""


class Entry(NamedTuple):
    """A model as OpenRouter lists it."""

    id: str
    also: str | None
    """Its canonical name, where that is another."""
    price: Price | None
    expires_on: str | None
    listing: Mapping[str, Json]


class Hosted(NamedTuple):
    """A route to a server of our own, and what to list where OpenRouter does not know the model."""

    model: str
    route: Route
    listing: Mapping[str, Json]


def intake(listed: Iterable[object]) -> tuple[list[Entry], int]:
    """The usable entries of a list, each id once, and how many were not usable.

    An alias (~author/model-latest) without a price of its own has that of the model that it stands for.
    """
    read = [_entry(one) for one in listed]
    entries: dict[str, Entry] = {}
    for entry in read:
        if entry is not None:
            entries.setdefault(entry.id, entry)
    return [_priced_as_its_target(entry, entries) for entry in entries.values()], read.count(None)


def written(entries: Iterable[Entry]) -> list[Json]:
    """The entries as the database keeps them."""
    return [{"id": entry.id, "also": entry.also, "listing": encoded(entry.listing)} for entry in entries]


def read_back(listings: Iterable[str]) -> list[Entry]:
    return intake(strict_json.from_upstream(listing.encode()) for listing in listings)[0]


def encoded(listing: Mapping[str, Json]) -> str:
    """Prices are strings in it; of other numbers with a fraction a double is what every client reads."""
    return json.dumps(listing, default=float, ensure_ascii=False, separators=(",", ":"))


def hosted(routes: Iterable[Mapping[str, Json]], upstreams: Iterable[Mapping[str, Json]]) -> list[Hosted]:
    """The routes to servers of our own. One that is not understood (written by newer code, or by hand) is left out."""
    servers = {given["id"]: _upstream(given) for given in upstreams if given["dialect"] in get_args(Dialect)}
    return [made for given in routes if (made := _hosted(given, servers.get(given["upstream_id"]))) is not None]


def _entry(given: object) -> Entry | None:
    if not isinstance(given, dict) or not _is_name(given.get("id")):
        return None
    stated = given.get("pricing")
    pricing = prices.marked_up(stated, 0) if isinstance(stated, dict) else {}
    return Entry(given["id"], _also(given), _price(pricing), _expiry(given), {**given, "pricing": pricing})


def _price(pricing: Mapping[str, Json]) -> Price | None:
    try:
        return prices.read(pricing)
    except Unpriced:
        return None


def _also(given: Mapping[str, Json]) -> str | None:
    """The free variant of a model often shares its canonical name, which must never lead to the free price."""
    name, canonical = given["id"], given.get("canonical_slug")
    if canonical is None or not _is_name(canonical) or name.startswith("~"):
        return None
    _, colon, suffix = name.partition(":")
    also = canonical if canonical.endswith(colon + suffix) else f"{canonical}:{suffix}"
    return None if also == name else str(also)


def _expiry(given: Mapping[str, Json]) -> str | None:
    stated = given.get("expiration_date")
    try:
        return date.fromisoformat(stated[:10]).isoformat() if isinstance(stated, str) else None
    except ValueError:
        return None


def _priced_as_its_target(entry: Entry, entries: Mapping[str, Entry]) -> Entry:
    alias = entry.listing.get("alias_target")
    target = entries.get(str(alias.get("slug"))) if isinstance(alias, Mapping) else None
    if entry.price is not None or target is None:
        return entry
    return entry._replace(price=target.price, listing={**entry.listing, "pricing": target.listing["pricing"]})


def _hosted(given: Mapping[str, Json], upstream: Upstream | None) -> Hosted | None:
    price = _price(given["pricing"])
    if upstream is None or upstream.dialect == OPENROUTER or price is None:
        return None
    route = Route(
        upstream,
        given["upstream_model"],
        price,
        given["context_tokens"],
        given["most_output"],
        given["priority"],
        given["weight"],
    )
    return Hosted(given["model"], route, _listing(given))


def _upstream(given: Mapping[str, Json]) -> Upstream:
    return Upstream(
        given["id"],
        given["dialect"],
        given["base_url"],
        secret_name=given["secret_name"],
        concurrency=given["concurrency"],
        connect_seconds=float(given["connect_seconds"]),
        first_byte_seconds=float(given["first_byte_seconds"]),
        idle_seconds=float(given["idle_seconds"]),
        health_path=given["health_path"],
    )


def _listing(given: Mapping[str, Json]) -> dict[str, Json]:
    """What is known of it over what is made up, and over both what its operator has to say."""
    name, context = given["model"], given["context_tokens"]
    limits = {"context_length": context, "max_completion_tokens": given["most_output"], "is_moderated": False}
    known = {"name": name, "created": given["created"], "context_length": context, "top_provider": limits}
    fixed = {
        "id": name,
        "canonical_slug": name,
        "pricing": prices.marked_up(given["pricing"], 0),
        "links": {"details": f"/api/v1/models/{name}"},
    }
    return {**fixed, **MADE_UP, **known, **given["listing"], **fixed}


def _is_name(given: object) -> bool:
    return isinstance(given, str) and 0 < len(given) <= LONGEST_NAME and given.isprintable() and " " not in given
