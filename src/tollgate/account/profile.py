"""GET /user/balance, /user/profile, /user/plan and /user/limit; PATCH /user/profile."""

import hashlib
from typing import Annotated, Any, Literal

from fastapi import Depends, Header
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from tollgate.account import store
from tollgate.core import errors
from tollgate.core.money import to_credits
from tollgate.database import Door, Json
from tollgate.keys.authentication import Gate
from tollgate.keys.rules import masked
from tollgate.limits.schemas import AT_ONCE, Concurrent, OfEachLimit
from tollgate.people.rules import Email, Line
from tollgate.settings import Settings
from tollgate.web.routing import Routes
from tollgate.web.schemas import Moment, Written, refusals

IfNoneMatch = Annotated[
    str | None,
    Header(alias="If-None-Match", description="The ETag of a balance seen before: 304 while it is the same."),
]


class Balance(BaseModel):
    key: str = Field(description="The key of this request, masked.")
    credits: float = Field(description="The balance in credits, for people; 1 credit is 1 US dollar.")
    credits_nanos: int = Field(description="The balance in nanos (1e-9 credit), exact.")
    held_nanos: int = Field(description="What running requests have set aside.")
    available_nanos: int = Field(description="What a new request may use: balance less held.")
    org_id: str
    user_id: str
    plan: str
    environment: str = Field(description="`live`, or `test` for a key that costs nothing.")
    status: str


class Profile(BaseModel):
    user_id: str
    name: str
    email: str
    role: Literal["member", "admin"]
    status: str
    org_id: str
    org_name: str
    plan: str
    key: str = Field(description="The key of this request, masked.")
    environment: str
    scopes: list[str] = Field(description="What this key may do.")
    created_at: Moment
    updated_at: Moment


class ProfileChange(Written):
    """What people may change of themselves. Role, org and status are an operator's to change."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Ada Lovelace", "email": "ada@example.com"}]})

    name: Line | None = None
    email: Email | None = None


class SixLimits(OfEachLimit[int | None]):
    """null is no limit."""


class OwnPlan(BaseModel):
    id: str
    name: str
    description: str
    org_id: str
    limits: SixLimits = Field(description="The limits that the org's requests meet.")
    max_concurrent_requests: int | None = Field(description=AT_ONCE + "null is no bound.")
    own_limits: bool = Field(description="Whether these are the org's own, in place of the plan's.")
    markup: float = Field(description="What is charged above the cost: 0.05 is 5 %.")
    markup_ppm: int = Field(description="The same in parts per million, exact.")


class Window(BaseModel):
    limit: int | None = Field(description="null is no limit.")
    used: int = Field(description="What counts now. Windows slide: what is older than the window weighs nothing.")
    remaining: int | None
    resets_at: Moment | None = Field(description="When all of it is free again if nothing more comes; null if it is.")


class Windows(BaseModel):
    minute: Window
    hour: Window
    day: Window


class SixWindows(BaseModel):
    requests: Windows
    tokens: Windows


class LimitsOfOrg(SixWindows):
    concurrent: Concurrent


class LimitsOfKey(SixWindows):
    concurrent: Concurrent | None = Field(description="null where the key has no bound of its own.")


class LimitsOfBoth(BaseModel):
    at: Moment
    org: LimitsOfOrg = Field(description="Shared by all keys of the org.")
    key: LimitsOfKey | None = Field(description="The key's own, within the org's; null for a key without any.")


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
        return _tagged(_balance(await store.balance(door)), if_none_match)

    @routes.get("/profile", summary="Who the key's user is", **stable)
    async def profile(door: Annotated[Door, Depends(gate.open)]) -> Profile:
        return _profile(await store.profile(door))

    @routes.patch(
        "/profile",
        summary="Change one's own name or email",
        responses=refusals(errors.BadRequest, errors.Conflict, errors.BodyTooLarge),
        openapi_extra={"x-stability": "stable"},
    )
    async def change_profile(door: Annotated[Door, Depends(gate.open)], body: ProfileChange) -> Profile:
        """Needs the scope `keys`: a key that only calls models cannot rename its owner."""
        return _profile(await store.change_profile(door, body.changes()))

    @routes.get("/plan", summary="The org's plan: its limits, and the markup as charged", **stable)
    async def plan(door: Annotated[Door, Depends(gate.open)]) -> OwnPlan:
        found = await store.plan(door, chosen.markup_ppm)
        return OwnPlan(**found, markup=found["markup_ppm"] / 1_000_000)

    @routes.get("/limit", summary="What is used and left in each window, of the org and of the key", **stable)
    async def limit(door: Annotated[Door, Depends(gate.open)]) -> LimitsOfBoth:
        return LimitsOfBoth.model_validate(await store.limits(door))

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
