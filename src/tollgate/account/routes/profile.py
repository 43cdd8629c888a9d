"""GET /user/balance, /user/profile, /user/plan and /user/limit; PATCH /user/profile."""

import hashlib
from typing import Annotated, Any

from fastapi import Depends, Header
from pydantic import BaseModel
from starlette.responses import Response

from tollgate.account.schemas.profile import Balance, OwnLimits, OwnPlan, Profile, ProfileChange
from tollgate.core import errors
from tollgate.credits import store as credits
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.limits import store as limits
from tollgate.people import store as people
from tollgate.settings import Settings
from tollgate.web.routing import Routes
from tollgate.web.schemas import refusals

IfNoneMatch = Annotated[
    str | None,
    Header(alias="If-None-Match", description="The ETag of an earlier response; 304 if the balance is unchanged."),
]


def router(gate: Gate, chosen: Settings) -> Routes:
    routes = Routes(prefix="/user")
    unchanged: dict[int | str, dict[str, Any]] = {304: {"description": "Unchanged since the ETag."}}

    @routes.get(
        "/balance",
        summary="Get the balance of your org",
        response_model=Balance,
        responses=refusals() | unchanged,
    )
    async def balance(door: Annotated[Door, Depends(gate.open)], if_none_match: IfNoneMatch = None) -> Response:
        return _tagged(Balance.model_validate(await credits.balance(door)), if_none_match)

    @routes.get("/profile", summary="Get your profile", responses=refusals())
    async def profile(door: Annotated[Door, Depends(gate.open)]) -> Profile:
        return Profile.model_validate(await people.own_profile(door))

    @routes.patch(
        "/profile",
        summary="Change your name or email",
        responses=refusals(errors.BadRequest, errors.Conflict, errors.BodyTooLarge),
    )
    async def change_profile(door: Annotated[Door, Depends(gate.open)], body: ProfileChange) -> Profile:
        """Needs the scope `keys`, so that a key for models alone cannot change its owner."""
        return Profile.model_validate(await people.change_own_profile(door, body.changes()))

    @routes.get("/plan", summary="Get the plan of your org, with its limits", responses=refusals())
    async def plan(door: Annotated[Door, Depends(gate.open)]) -> OwnPlan:
        return OwnPlan.model_validate(await people.own_plan(door))

    @routes.get(
        "/limit", summary="Get what is left of your limits, and the models that you may use", responses=refusals()
    )
    async def limit(door: Annotated[Door, Depends(gate.open)]) -> OwnLimits:
        found = await limits.own_limits(door)
        models = found["models"]
        default = models["default_model"] or chosen.default_model or None
        return OwnLimits.model_validate({**found, "models": {**models, "default_model": default}})

    return routes


def _tagged(shown: BaseModel, if_none_match: str | None) -> Response:
    """The body with an ETag made of it, or 304 when the client has it already."""
    body = shown.model_dump_json().encode()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"etag": tag, "cache-control": "private, no-cache", "vary": "authorization, x-api-key"}
    known = {one.strip().removeprefix("W/") for one in (if_none_match or "").split(",")}
    if known & {tag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")
