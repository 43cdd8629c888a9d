"""GET /user/balance, /user/profile, /user/plan and /user/limit; PATCH /user/profile."""

import hashlib
from typing import Annotated, Any

from fastapi import Depends, Header
from pydantic import BaseModel
from starlette.responses import Response

from tollgate.account.schemas.profile import Balance, LimitsOfBoth, OwnPlan, Profile, ProfileChange
from tollgate.core import errors
from tollgate.core.money import to_credits
from tollgate.credits import store as credits
from tollgate.database import Door, Json
from tollgate.keys.authentication import Gate
from tollgate.keys.rules import masked
from tollgate.limits import store as limits
from tollgate.people import store as people
from tollgate.settings import Settings
from tollgate.web.routing import Routes
from tollgate.web.schemas import refusals

IfNoneMatch = Annotated[
    str | None,
    Header(alias="If-None-Match", description="The ETag of a balance seen before: 304 while it is the same."),
]


def router(gate: Gate, chosen: Settings) -> Routes:
    routes = Routes(prefix="/user")
    stable: dict[str, Any] = {"responses": refusals(), "openapi_extra": {"x-stability": "stable"}}
    unchanged: dict[int | str, dict[str, Any]] = {304: {"description": "It is what the ETag says."}}

    @routes.get(
        "/balance",
        summary="The balance of the key's org",
        response_model=Balance,
        responses=refusals() | unchanged,
        openapi_extra={"x-stability": "stable"},
    )
    async def balance(door: Annotated[Door, Depends(gate.open)], if_none_match: IfNoneMatch = None) -> Response:
        return _tagged(_balance(await credits.balance(door)), if_none_match)

    @routes.get("/profile", summary="Who the key's user is", **stable)
    async def profile(door: Annotated[Door, Depends(gate.open)]) -> Profile:
        return _profile(await people.own_profile(door))

    @routes.patch(
        "/profile",
        summary="Change one's own name or email",
        responses=refusals(errors.BadRequest, errors.Conflict, errors.BodyTooLarge),
        openapi_extra={"x-stability": "stable"},
    )
    async def change_profile(door: Annotated[Door, Depends(gate.open)], body: ProfileChange) -> Profile:
        """Needs the scope `keys`: a key that only calls models cannot rename its owner."""
        return _profile(await people.change_own_profile(door, body.changes()))

    @routes.get("/plan", summary="The org's plan: its limits, and the markup as charged", **stable)
    async def plan(door: Annotated[Door, Depends(gate.open)]) -> OwnPlan:
        found = await people.own_plan(door, chosen.markup_ppm)
        return OwnPlan(**found, markup=found["markup_ppm"] / 1_000_000)

    @routes.get("/limit", summary="What is used and left in each window, of the org and of the key", **stable)
    async def limit(door: Annotated[Door, Depends(gate.open)]) -> LimitsOfBoth:
        return LimitsOfBoth.model_validate(await limits.own_limits(door))

    return routes


def _balance(found: Json) -> Balance:
    return Balance(
        key=masked(found["prefix"], found["last_four"]),
        credits=to_credits(found["balance_nanos"]),
        credits_nanos=found["balance_nanos"],
        held_nanos=found["held_nanos"],
        available_nanos=found["balance_nanos"] - found["held_nanos"],
        org_id=found["org_id"],
        user_id=found["user_id"],
        plan=found["plan"],
        environment=found["environment"],
        status=found["status"],
    )


def _profile(found: Json) -> Profile:
    return Profile(**found, key=masked(found["prefix"], found["last_four"]))


def _tagged(shown: BaseModel, if_none_match: str | None) -> Response:
    """What is shown, or 304 for who has it already. The tag is made of nothing but what is shown."""
    body = shown.model_dump_json().encode()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"etag": tag, "cache-control": "private, no-cache", "vary": "authorization, x-api-key"}
    known = {one.strip().removeprefix("W/") for one in (if_none_match or "").split(",")}
    if known & {tag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")
