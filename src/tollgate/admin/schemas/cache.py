"""The completion cache, as operators see and change it."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tollgate.cache import rules
from tollgate.web.schemas import Amounts, ChangeBody, Credits, Line, QueryModel


class CacheQuery(QueryModel):
    org_id: Line | None = Field(None, description="Only this org.")
    days: int = Field(30, ge=1, le=366, description="Look-ups of so many days (UTC), including today.")


class LookUps(Amounts):
    hits: int
    misses: int = Field(description="Look-ups that found nothing. A request that waited and got an answer is a hit.")
    hit_rate: float | None = Field(description="Hits by look-ups; null without any.")
    saved_nanos: int = Field(description="What the hits would have been charged, less what they were charged.")
    saved_credits: Credits

    @model_validator(mode="before")
    @classmethod
    def _with_rate(cls, found: dict[str, Any]) -> dict[str, Any]:
        return found | {"hit_rate": rules.hit_rate(found["hits"], found["misses"])}


class CachedModel(LookUps):
    model: str = Field(description="The name in the request.")


class CacheLimits(BaseModel):
    """The settings CACHE_… in force."""

    ttl_seconds: int
    max_ttl_seconds: int
    max_answer_bytes: int
    max_org_bytes: int = Field(description="0: the cache is off.")
    hit_share: float
    wait_seconds: float


class CacheFigures(LookUps):
    entries: int = Field(description="Answers that are stored now, some perhaps expired.")
    bytes: int = Field(description="Their size together.")
    models: list[CachedModel] = Field(description="The 50 models with most look-ups.")


class CacheStats(CacheFigures):
    redis: Literal["not_configured", "working", "resting"] = Field(
        description="Of the instance that answers. `resting`: a call failed, and Redis is tried again within 5 s."
    )
    settings: CacheLimits


class ClearQuery(QueryModel):
    """What fits all of these is cleared; without any, everything."""

    org_id: Line | None = Field(None, description="Only answers of this org.")
    model: Line | None = Field(None, description="Only answers to requests that named this model.")
    key_id: Line | None = Field(None, description="Only answers to requests with this API key.")


class Cleared(BaseModel):
    cleared: int = Field(description="How many answers were deleted.")


class Warming(ChangeBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "openai/gpt-5-mini", "limit": 500}]})

    org_id: Line | None = Field(None, description="Only answers of this org.")
    model: Line | None = Field(None, description="Only answers to requests that named this model.")
    limit: int = Field(100, ge=1, le=1_000, description="The most answers to copy, the newest first.")


class Warmed(BaseModel):
    warmed: int = Field(description="How many answers are in Redis now.")
    redis: Literal["not_configured", "working", "resting"]
