"""The state of the catalog, and its models with prices and routes."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from tollgate.catalog.rules import FRESH_SECONDS, ListHealth
from tollgate.upstreams.breaker import State as BreakerState
from tollgate.web.schemas import Moment, PageQuery, QueryModel, Text

UpstreamHealth = Literal["up", "down"]
HEALTH_DESCRIPTION = (
    "healthy: the list is fresh. stale: an older list is used because no newer one could be fetched. "
    "cold: no list yet; the first call reads what it needs. down: no list, and none could be fetched."
)


class InstanceCatalog(BaseModel):
    """The catalog in the memory of the instance that answered."""

    health: ListHealth = Field(description=HEALTH_DESCRIPTION)
    age_seconds: float | None = Field(description="Since the list was fetched, by any instance; null while cold.")
    models: int
    hits: int = Field(description="Look-ups answered from memory.")
    misses: int = Field(description="Look-ups that asked the database or OpenRouter.")
    hit_rate: float | None = Field(description="Hits by all look-ups; null before the first.", examples=[0.9987])
    refreshes: int
    failures: int = Field(description="Refreshes that got no list.")
    skipped: int = Field(description="Entries of the last list that could not be used.")
    last_error: str | None = Field(description="Why the last refresh failed; null if it succeeded.")


class SharedCatalog(BaseModel):
    """The snapshot that all instances share."""

    health: ListHealth = Field(description=HEALTH_DESCRIPTION)
    taken_at: Moment
    age_seconds: int
    models: int = Field(description="Models of OpenRouter, without your own servers' models.")


class CatalogStatus(BaseModel):
    instance: InstanceCatalog
    shared: SharedCatalog | None = Field(description="Null before the first snapshot, and always for the sandbox.")


class CacheStatus(BaseModel):
    ttl_seconds: int = Field(description="How long a list is fresh.", examples=[FRESH_SECONDS])
    oldest_seconds: int = Field(description="How long a list is used while no newer one can be fetched.")
    live: CatalogStatus
    test: CatalogStatus | None = Field(description="The catalog of test keys; null without a sandbox.")


class RefreshedCatalog(BaseModel):
    status: Literal["refreshed"] = "refreshed"
    models: int = Field(description="How many models there are now, your own servers' included.")
    changed: bool = Field(description="Whether the shared list differs from the one before.")
    took_ms: int
    shared: SharedCatalog | None


class MarkupQuery(QueryModel):
    for_org: Text | None = Field(None, description="charged_pricing has the markup of this org. Default: MARKUP.")
    for_plan: Text | None = Field(None, description="charged_pricing has the markup of this plan.")


class ModelsQuery(PageQuery, MarkupQuery):
    q: Text | None = Field(None, description="Part of the id or name.")
    sort: Literal[
        "id:asc", "id:desc", "prompt:asc", "prompt:desc", "completion:asc", "completion:desc",
        "context_length:asc", "context_length:desc", "created_at:asc", "created_at:desc",
    ] = Field("id:asc", description="prompt and completion are the prices.")  # fmt: skip


class RouteOfModel(BaseModel):
    upstream_id: str
    upstream_name: str | None
    upstream_model: str = Field(description="The upstream's name for the model.")
    priority: int = Field(description="Lower ones are tried first.")
    weight: int = Field(description="The share of requests among routes of the same priority.")
    pricing: dict[str, str] | None = Field(description="Null without a usable price.")
    context_tokens: int | None
    most_output: int | None
    health: UpstreamHealth | None = Field(
        description="The last health check; null for OpenRouter and before the first."
    )
    breaker: BreakerState | None = Field(
        description="On the instance that answered, for this model; null before its first call to the upstream."
    )


class PricedModel(BaseModel):
    id: str
    name: str
    owned_by: str
    created_at: Moment | None
    context_length: int | None
    input_modalities: list[str]
    output_modalities: list[str]
    pricing: dict[str, Any] = Field(description="What the upstream charges: US dollars per token, request or piece.")
    charged_pricing: dict[str, Any] = Field(description="The same with the markup.")
    alias_of: list[str] = Field(description="Of an alias: the models that may answer. Empty for a model.")
    routes: list[RouteOfModel] = Field(description="In the order in which they are tried.")
