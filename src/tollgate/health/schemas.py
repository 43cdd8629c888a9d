"""The responses of the health pages."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from tollgate.health import checks, rules


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    status: Literal["ready", "not_ready"]
    failing: list[str] = Field(description="The parts that are needed and do not work.")
    parts: dict[str, str] = Field(description="The state of each part. Redis is not needed.")


class UpstreamCounts(BaseModel):
    """Your own upstreams that are active, by their last health check."""

    up: int
    down: int
    unknown: int = Field(description="Not checked yet: `POST /admin/upstreams/refresh-health` checks them.")


class Health(BaseModel):
    status: rules.Verdict
    database: checks.DatabaseState = Field(description="`behind`: run `make migrate`.")
    openrouter: checks.OpenRouterState
    upstreams: UpstreamCounts | None = Field(description="Null when unknown. `GET /admin/upstreams` names them.")
    user_count: int | None = Field(description="Null when unknown, or hidden by HEALTH_USER_COUNT.")
    timestamp: datetime
    version: str
