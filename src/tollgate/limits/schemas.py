"""The six limits of a plan, an org or a key, and the bound of open requests."""

from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, Field

from tollgate.web.schemas import ChangeBody

MOST = 100_000_000_000
Limit = Annotated[int, Field(ge=0, le=MOST, strict=True)]
Value = TypeVar("Value")
OPEN_REQUESTS = "The most open requests: those admitted and not settled yet. "


class WindowLimits(ChangeBody):
    """Limits of six sliding windows. Null uses the limit of the plan; on a plan it is no limit, on a key only the org's
    limits apply."""

    requests_per_minute: Limit | None = None
    requests_per_hour: Limit | None = None
    requests_per_day: Limit | None = None
    tokens_per_minute: Limit | None = None
    tokens_per_hour: Limit | None = None
    tokens_per_day: Limit | None = None


class SixLimits(BaseModel, Generic[Value]):
    requests_per_minute: Value
    requests_per_hour: Value
    requests_per_day: Value
    tokens_per_minute: Value
    tokens_per_hour: Value
    tokens_per_day: Value


class OpenRequests(BaseModel):
    """Requests that are admitted and not settled yet."""

    limit: int | None = Field(description="Null is no bound.")
    in_flight: int
    remaining: int | None
