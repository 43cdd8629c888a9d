"""What the health pages answer."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from tollgate.health import checks, rules


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    status: Literal["ready", "not_ready"]
    failing: list[str] = Field(description="The parts that keep it from serving.")
    parts: dict[str, str] = Field(description="Each part it needs, and its state.")


class Health(BaseModel):
    status: rules.Verdict
    database: checks.DatabaseState = Field(description="`behind`: it needs `make migrate`.")
    openrouter: checks.OpenRouterState
    user_count: int | None = Field(description="Null when hidden by HEALTH_USER_COUNT or unknown.")
    timestamp: datetime
    version: str
