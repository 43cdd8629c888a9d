"""GET, POST and DELETE /admin/limit: how many requests and tokens an org or a key may use."""

from typing import Annotated

from fastapi import Depends, Query

from tollgate.admin.schemas.limits import LimitsNow, ResetOf, SetRateLimitRequest, Subject
from tollgate.core import errors
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.limits import store
from tollgate.web.routing import Routes
from tollgate.web.schemas import refusals


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
