"""Reads OpenRouter's list of models and the rows of our own routes into values."""

import json
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any, Final, NamedTuple, get_args

from tollgate.core import prices, strict_json
from tollgate.core.host_keys import HostKey
from tollgate.core.models import VENDORS, OwnDialect, Retirement, Route, Upstream
from tollgate.core.names import is_name
from tollgate.core.prices import Price, Unpriced

Json = Any

DEFAULT_LISTING: Final[dict[str, Json]] = {
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
"""Defaults for models that OpenRouter does not list. Strict SDKs need every field."""


KNOWN: Final = frozenset((*get_args(OwnDialect), *VENDORS))
"""The dialects of upstreams in the database."""


class Entry(NamedTuple):
    """A model as OpenRouter lists it."""

    id: str
    also: str | None
    """Its canonical name, if that is different."""
    price: Price | None
    expires_on: str | None
    listing: Mapping[str, Json]


class Hosted(NamedTuple):
    """A route to an upstream of our own, and the listing if OpenRouter does not list the model."""

    model: str
    route: Route
    listing: Mapping[str, Json]


class AliasRow(NamedTuple):
    """An alias as the database keeps it: with the names of models."""

    name: str
    targets: tuple[tuple[str, str | None, int], ...]
    """Model, upstream id and weight."""
    fallbacks: tuple[str, ...] = ()
    description: str = ""
    retirement: Retirement | None = None


def intake(listed: Iterable[object]) -> tuple[list[Entry], int]:
    """The usable entries of a list, without duplicate ids, and how many could not be used.

    An alias (~author/model-latest) without a price gets the price of its target.
    """
    read = [_entry(one) for one in listed]
    entries: dict[str, Entry] = {}
    for entry in read:
        if entry is not None:
            entries.setdefault(entry.id, entry)
    return [_priced_as_its_target(entry, entries) for entry in entries.values()], read.count(None)


def written(entries: Iterable[Entry]) -> list[Json]:
    """The entries as the database stores them."""
    return [{"id": entry.id, "also": entry.also, "listing": encoded(entry.listing)} for entry in entries]


def read_back(listings: Iterable[str]) -> list[Entry]:
    return intake(strict_json.from_upstream(listing.encode()) for listing in listings)[0]


def encoded(listing: Mapping[str, Json]) -> str:
    """Prices are strings, so they stay exact; other decimals become floats."""
    return json.dumps(listing, default=float, ensure_ascii=False, separators=(",", ":"))


def hosted(routes: Iterable[Mapping[str, Json]], upstreams: Iterable[Mapping[str, Json]]) -> list[Hosted]:
    """The routes to our own upstreams. A route that cannot be read (written by newer code, or by hand) is left out."""
    servers = {given["id"]: _upstream(given) for given in upstreams if given["dialect"] in KNOWN}
    return [made for given in routes if (made := _hosted(given, servers.get(given["upstream_id"]))) is not None]


def aliases(rows: Iterable[Mapping[str, Json]]) -> list[AliasRow]:
    return [
        AliasRow(
            given["name"],
            tuple((target["model"], target.get("upstream_id"), target["weight"]) for target in given["targets"]),
            tuple(given["fallbacks"]),
            given["description"],
            _retirement(given),
        )
        for given in rows
    ]


def _retirement(given: Mapping[str, Json]) -> Retirement | None:
    stated = Retirement(given.get("deprecated_on"), given.get("retires_on"), given.get("replacement"))
    return stated if stated.deprecated_on or stated.retires_on else None


def _entry(given: object) -> Entry | None:
    if not isinstance(given, dict) or not is_name(given.get("id")):
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
    """The canonical name with the suffix of the entry, so that it never leads to the price of a free variant."""
    name, canonical = given["id"], given.get("canonical_slug")
    if canonical is None or not is_name(canonical) or name.startswith("~"):
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
    if upstream is None or price is None:
        return None
    route = Route(
        upstream,
        given["upstream_model"],
        price,
        given["context_tokens"],
        given["most_output"],
        given["priority"],
        given["weight"],
        _retirement(given),
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
        takes_org_keys=given["takes_org_keys"],
        host_key=HostKey(given["host_id"], given["host_key_generation"]) if given.get("host_id") else None,
    )


def _listing(given: Mapping[str, Json]) -> dict[str, Json]:
    """Defaults, overridden by what the route says, overridden by the operator's listing."""
    name, context = given["model"], given["context_tokens"]
    limits = {"context_length": context, "max_completion_tokens": given["most_output"], "is_moderated": False}
    ends = {"expiration_date": given["retires_on"]} if given.get("retires_on") else {}
    known = {"name": name, "created": given["created"], "context_length": context, "top_provider": limits}
    fixed = {
        "id": name,
        "canonical_slug": name,
        "pricing": prices.marked_up(given["pricing"], 0),
        "links": {"details": f"/api/v1/models/{name}"},
    }
    listing = {**given["listing"], "architecture": _architecture(given["listing"].get("architecture"))}
    return {**fixed, **DEFAULT_LISTING, **known, **listing, **ends, **fixed}


def _architecture(stated: object) -> dict[str, Json]:
    """What the operator says of it, and defaults for the rest."""
    said = stated if isinstance(stated, Mapping) else {}
    whole = {**DEFAULT_LISTING["architecture"], **said}
    modality = "->".join(_joined(whole[name]) for name in ("input_modalities", "output_modalities"))
    return {**whole, "modality": said.get("modality") or modality}


def _joined(modalities: object) -> str:
    return "+".join(map(str, modalities)) if isinstance(modalities, list) else "text"
