"""The six limits of a plan, an org or a key, and the bound of open requests: as they are written and shown."""

from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, Field

from tollgate.web.schemas import Written

MOST = 100_000_000_000
Limit = Annotated[int, Field(ge=0, le=MOST, strict=True)]
Shown = TypeVar("Shown")
AT_ONCE = "How many requests may be open at once: from admission until what it cost is known. "


class Limits(Written):
    """Six windows, which slide. A null follows the plan; on a plan it is no limit, on a key none but the org's."""

    requests_per_minute: Limit | None = None
    requests_per_hour: Limit | None = None
    requests_per_day: Limit | None = None
    tokens_per_minute: Limit | None = None
    tokens_per_hour: Limit | None = None
    tokens_per_day: Limit | None = None


class Concurrent(BaseModel):
    """Requests that are open: admitted, and not settled yet."""

    limit: int | None = Field(description="null is no bound.")
    in_flight: int
    remaining: int | None


class OfEachLimit(BaseModel, Generic[Shown]):
    requests_per_minute: Shown
    requests_per_hour: Shown
    requests_per_day: Shown
    tokens_per_minute: Shown
    tokens_per_hour: Shown
    tokens_per_day: Shown
