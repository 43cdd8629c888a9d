"""GET, POST and DELETE /admin/limit: how many requests and tokens an org or a key may use."""

from typing import Annotated, Any, Literal, Self

from fastapi import Depends, Query
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tollgate.core import errors
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.limits import store
from tollgate.limits.schemas import Limits, OfEachLimit
from tollgate.people.rules import Line
from tollgate.web.routing import Routes
from tollgate.web.schemas import refusals


class Subject(BaseModel):
    """Whose limits: exactly one of the three. A user stands for the org he belongs to."""

    model_config = ConfigDict(extra="forbid")

    org_id: Line | None = None
    user_id: Line | None = Field(None, description="The org of this user.")
    key_id: Line | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if len(self.subject()) != 1:
            raise ValueError("name exactly one of org_id, user_id and key_id")
        return self

    def subject(self) -> dict[str, str]:
        named = {"org_id": self.org_id, "user_id": self.user_id, "key_id": self.key_id}
        return {name: value for name, value in named.items() if value is not None}


class SetRateLimitRequest(Subject, Limits):
    """All six at once: what is left out follows, as a null does."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"org_id": "org_0193", "requests_per_minute": 600, "tokens_per_day": 5000000}]}
    )

    def limits(self) -> dict[str, Any]:
        return self.model_dump(mode="json", include=set(Limits.model_fields))


class ResetOf(Subject):
    counters: bool = Field(False, description="Let the windows begin anew as well.")


class Binding(BaseModel):
    limit: int | None = Field(description="The lowest that applies; null where there is none.")
    set_by: Literal["plan", "org", "key"] | None


class BindingLimits(OfEachLimit[Binding]):
    pass


class LimitsNow(BaseModel):
    """What holds from the next request on."""

    org_id: str
    key_id: str | None = Field(description="Null when the limits are an org's.")
    plan: str
    limits: Limits = Field(description="What was set for this org or key itself.")
    in_effect: BindingLimits = Field(description="What that comes to with the plan's and, for a key, the org's limits.")


def router(gate: Gate) -> Routes:
    routes = Routes(prefix="/admin/limit", responses=refusals(errors.BadRequest, errors.NotFound))
    stable = {"x-stability": "stable"}
    changing = refusals(errors.BadRequest, errors.NotFound, errors.KeyIsFinal, errors.Conflict)

    @routes.get("", summary="The limits of an org or a key, and which of them bind", openapi_extra=stable)
    async def limits(door: Annotated[Door, Depends(gate.open)], asked: Annotated[Subject, Query()]) -> LimitsNow:
        return LimitsNow.model_validate(await store.limits_of(door, asked.subject()))

    @routes.post("", summary="Set the limits of an org or a key", responses=changing, openapi_extra=stable)
    async def set_limits(door: Annotated[Door, Depends(gate.open)], said: SetRateLimitRequest) -> LimitsNow:
        return LimitsNow.model_validate(await store.set_limits(door, said.subject(), said.limits()))

    @routes.delete(
        "", summary="Take away what was set, and perhaps what was counted", responses=changing, openapi_extra=stable
    )
    async def reset(door: Annotated[Door, Depends(gate.open)], asked: Annotated[ResetOf, Query()]) -> LimitsNow:
        found = await store.reset_limits(door, asked.subject(), counters=asked.counters)
        return LimitsNow.model_validate(found)

    return routes
