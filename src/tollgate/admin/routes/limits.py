"""GET, POST and DELETE /admin/limit."""

from typing import Annotated

from fastapi import Depends, Query

from tollgate.admin.schemas.limits import CurrentLimits, LimitReset, LimitSubject, NewLimits
from tollgate.core import errors
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.limits import store
from tollgate.web.routing import Routes
from tollgate.web.schemas import refusals


def router(gate: Gate) -> Routes:
    routes = Routes(prefix="/admin/limit", responses=refusals(errors.BadRequest, errors.NotFound))
    changing = refusals(errors.BadRequest, errors.NotFound, errors.KeyIsFinal, errors.Conflict)

    @routes.get("", summary="Get the limits of an org, a user, a key or a role")
    async def limits(
        door: Annotated[Door, Depends(gate.open)], query: Annotated[LimitSubject, Query()]
    ) -> CurrentLimits:
        return CurrentLimits.model_validate(await store.limits_of(door, query.subject()))

    @routes.post("", summary="Set the limits of an org, a user, a key or a role", responses=changing)
    async def set_limits(door: Annotated[Door, Depends(gate.open)], body: NewLimits) -> CurrentLimits:
        return CurrentLimits.model_validate(await store.set_limits(door, body.subject(), body.limits()))

    @routes.delete(
        "",
        summary="Remove the limits of an org, a user, a key or a role, and its counters if asked for",
        responses=changing,
    )
    async def reset(door: Annotated[Door, Depends(gate.open)], query: Annotated[LimitReset, Query()]) -> CurrentLimits:
        found = await store.reset_limits(door, query.subject(), counters=query.counters)
        return CurrentLimits.model_validate(found)

    return routes
