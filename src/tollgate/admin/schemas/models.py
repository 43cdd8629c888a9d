"""The state of the catalog."""

from typing import Literal

from pydantic import BaseModel, Field

from tollgate.catalog import rules
from tollgate.catalog.rules import FRESH_SECONDS
from tollgate.web.schemas import Moment

HEALTHS = (
    "healthy: the list is fresh. stale: an older list is used because no newer one could be fetched. "
    "cold: no list yet; the first call reads what it needs. down: no list, and none could be fetched."
)


class Instance(BaseModel):
    """What the process that answered has in memory."""

    health: rules.Health = Field(description=HEALTHS)
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

    health: rules.Health = Field(description=HEALTHS)
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
