"""The catalogue for operators: how it is, fetching it now, and the routes to servers of our own."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import Depends
from pydantic import BaseModel, Field

from tollgate.admin import registry
from tollgate.catalog import status, store
from tollgate.catalog.cache import FRESH_SECONDS, OLDEST_SECONDS, Catalog
from tollgate.core.errors import CatalogUnavailable
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.keys.rules import Environment
from tollgate.web.routing import Routes
from tollgate.web.schemas import Moment, refusals


class Instance(BaseModel):
    """What the process that answered has in memory."""

    health: status.Health = Field(description=status.HEALTHS)
    age_seconds: float | None = Field(description="Since the list was taken, here or elsewhere; null while cold.")
    models: int
    hits: int = Field(description="Answered from memory.")
    misses: int = Field(description="Answered after asking the database or OpenRouter.")
    hit_rate: float | None = Field(description="Hits of all; null before anything was asked.", examples=[0.9987])
    refreshes: int
    failures: int = Field(description="Refreshes that got no list.")
    skipped: int = Field(description="Entries of the last list that could not be used.")
    last_error: str | None = Field(description="Why the last refresh failed; null when it did not.")


class Snapshot(BaseModel):
    """What all instances share."""

    health: status.Health = Field(description=status.HEALTHS)
    taken_at: Moment
    age_seconds: int
    models: int = Field(description="Those of OpenRouter; your own come from the routes.")


class CatalogStatus(BaseModel):
    instance: Instance
    shared: Snapshot | None = Field(description="Null where none was kept yet; the sandbox's never is.")


class CacheStatus(BaseModel):
    ttl_seconds: int = Field(description="How long a list counts as fresh.", examples=[FRESH_SECONDS])
    oldest_seconds: int = Field(description="How old a list may grow while no newer can be had.")
    live: CatalogStatus
    test: CatalogStatus | None = Field(description="What test keys can ask for; null where no sandbox runs.")


class Refreshed(BaseModel):
    status: Literal["refreshed"] = "refreshed"
    models: int = Field(description="How many can be asked for now, your own among them.")
    changed: bool = Field(description="Whether the shared list says anything else than before.")
    took_ms: int
    shared: Snapshot | None


def router(gate: Gate, catalogs: Mapping[Environment, Catalog]) -> Routes:
    live = catalogs["live"]
    routes = Routes(prefix="/admin")

    @routes.post(
        "/refresh-models",
        summary="Fetch the list of models now",
        description="One at a time. Where none can be had, the old one stays.",
        responses=refusals(CatalogUnavailable),
        openapi_extra={"x-stability": "stable"},
    )
    async def refresh_models(door: Annotated[Door, Depends(gate.open)]) -> Refreshed:
        source = live.kept_as or ""
        before = await store.snapshot(door, source)
        took_ms = await _refresh(live)
        noted = await store.note_refresh(door, source, before["digest"])
        return Refreshed(
            models=live.state().models,
            changed=noted["changed"],
            took_ms=took_ms,
            shared=_shared(noted["snapshot"]),
        )

    @routes.get(
        "/cache-status",
        summary="How the catalogue is",
        responses=refusals(),
        openapi_extra={"x-stability": "stable"},
    )
    async def cache_status(door: Annotated[Door, Depends(gate.open)]) -> CacheStatus:
        known = await store.snapshot(door, live.kept_as or "")
        test = catalogs.get("test")
        return CacheStatus(
            ttl_seconds=FRESH_SECONDS,
            oldest_seconds=OLDEST_SECONDS,
            live=CatalogStatus(instance=_instance(live), shared=_shared(known["snapshot"])),
            test=CatalogStatus(instance=_instance(test), shared=None) if test else None,
        )

    routes_of_ours = registry.router(gate, live)
    made = Routes()
    made.take(routes)
    made.take(routes_of_ours)
    return made


async def _refresh(catalog: Catalog) -> int:
    """In how many milliseconds. A failure says why, and what there still is."""
    began = asyncio.get_running_loop().time()
    try:
        await catalog.refresh()
    except CatalogUnavailable:
        state = catalog.state()
        raise CatalogUnavailable(cause=state.last_error, models=state.models) from None
    return round((asyncio.get_running_loop().time() - began) * 1000)


def _instance(catalog: Catalog) -> Instance:
    state = catalog.state()
    return Instance(health=status.of_instance(state), hit_rate=status.hit_rate(state), **state._asdict())


def _shared(snapshot: dict[str, Any] | None) -> Snapshot | None:
    return Snapshot(health=status.of_snapshot(snapshot["age_seconds"]), **snapshot) if snapshot else None
