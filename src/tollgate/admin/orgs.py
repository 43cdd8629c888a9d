"""/admin/orgs: who pays."""

from typing import Annotated, Literal

from fastapi import Depends, Path, Query, status
from pydantic import BaseModel, ConfigDict, Field

from tollgate.core import errors
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.limits.schemas import AT_ONCE, Limit, Limits
from tollgate.people import store
from tollgate.people.rules import Line, Markup, Name, told
from tollgate.web.routing import Routes
from tollgate.web.schemas import Listed, Moment, Page, Written, refusals

OrgId = Annotated[Line, Path(description="The id of an org, such as org_0193….")]
OrgStatus = Literal["active", "suspended"]
PaidCalls = Literal["active", "suspended"]


class Org(BaseModel):
    id: str
    name: str
    plan: str
    status: OrgStatus
    markup: float | None = Field(description="0.05 charges 5 % above the cost; null follows the plan.")
    limits: Limits = Field(description="Its own; a null follows the plan.")
    max_concurrent_requests: int | None = Field(description=AT_ONCE + "Its own bound; null follows the plan.")
    open_requests: int = Field(description="How many are open now.")
    paid_calls: PaidCalls = Field(description="Suspended: paid calls are refused, and all else goes on.")
    paid_suspended_at: Moment | None
    paid_suspended_reason: str | None = Field(description="`quarantined_usage` or `operator`.")
    credits: float = Field(description="The balance, for people to read; 1 credit is 1 US dollar.")
    credits_nanos: int = Field(description="The balance in nanos (1e-9 credit), exact.")
    held_nanos: int = Field(description="What running requests have set aside.")
    available_nanos: int = Field(description="Balance less held.")
    users: int = Field(description="How many users belong to it.")
    created_at: Moment
    updated_at: Moment


class NewOrg(Written):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Acme", "plan": "pro"}]})

    name: Name
    plan: Name = Field("free", description="The id of a plan.")


class OrgChanges(Written):
    """What is left out or null stays as it is, but for markup, limits and max_concurrent_requests: there a null follows
    the plan."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"markup": 0.05, "limits": {"requests_per_minute": 600}}, {"status": "suspended"}]
        }
    )

    name: Name | None = None
    plan: Name | None = Field(None, description="The id of a plan.")
    status: OrgStatus | None = Field(None, description="Suspending stops all keys of the org at once.")
    markup: Markup | None = Field(None, description="0.05 is 5 %, in steps of a millionth; null follows the plan.")
    limits: Limits | None = Field(None, description="Those named are changed; null lets all follow the plan.")
    max_concurrent_requests: Limit | None = Field(None, description=AT_ONCE + "Null follows the plan.")
    paid_calls: PaidCalls | None = Field(
        None,
        description="Refuse paid calls, or serve them again. Tollgate suspends them by itself when the usage of "
        "two requests within an hour makes no sense.",
    )


class OrgsAsked(Listed):
    q: Line | None = Field(None, description="Part of the name, in capitals or not, or the whole id.")
    plan: Line | None = Field(None, description="Only orgs on this plan.")
    status: OrgStatus | None = None
    sort: Literal["created_at:desc", "created_at:asc", "name:asc", "name:desc", "credits:desc", "credits:asc"] = (
        "created_at:desc"
    )


class Lookup(BaseModel):
    """What a person types to pick one of many."""

    model_config = ConfigDict(extra="forbid")

    q: Line | None = Field(None, description="Part of the name, in capitals or not, or the whole id.")
    limit: int = Field(20, ge=1, le=1000)

    def filters(self, sort: str) -> dict[str, str]:
        return {"sort": sort} | ({"q": self.q} if self.q else {})


class Pick(BaseModel):
    id: str
    name: str


class Picks(BaseModel):
    data: list[Pick]


class Deleted(BaseModel):
    id: str
    deleted: Literal[True]


def router(gate: Gate) -> Routes:
    routes = Routes(prefix="/admin/orgs", responses=refusals(errors.BadRequest))
    stable = {"x-stability": "stable"}
    one = refusals(errors.BadRequest, errors.NotFound)
    ending = refusals(errors.BadRequest, errors.NotFound, errors.Conflict)

    @routes.get("", summary="Orgs", openapi_extra=stable)
    async def orgs(door: Annotated[Door, Depends(gate.open)], asked: Annotated[OrgsAsked, Query()]) -> Page[Org]:
        return Page[Org].of(await store.orgs(door, asked.filters(), asked.limit))

    @routes.get("/lookup", summary="Ids and names of orgs, for a picker", openapi_extra=stable)
    async def lookup(door: Annotated[Door, Depends(gate.open)], asked: Annotated[Lookup, Query()]) -> Picks:
        return Picks.model_validate(await store.orgs(door, asked.filters("name:asc"), asked.limit))

    @routes.post("", summary="Make an org", status_code=status.HTTP_201_CREATED, responses=one, openapi_extra=stable)
    async def create(door: Annotated[Door, Depends(gate.open)], said: NewOrg) -> Org:
        return Org.model_validate(await store.create_org(door, said.model_dump(mode="json")))

    @routes.get("/{org_id}", summary="One org", responses=one, openapi_extra=stable)
    async def org(door: Annotated[Door, Depends(gate.open)], org_id: OrgId) -> Org:
        return Org.model_validate(await store.org(door, org_id))

    @routes.patch("/{org_id}", summary="Change an org", responses=ending, openapi_extra=stable)
    async def update(door: Annotated[Door, Depends(gate.open)], org_id: OrgId, said: OrgChanges) -> Org:
        """Holds from the next request on. What is so already changes nothing.

        Refused where no admin could come in again.
        """
        return Org.model_validate(await store.update_org(door, org_id, told(said.changes())))

    @routes.delete("/{org_id}", summary="Delete an org", responses=ending, openapi_extra=stable)
    async def delete(door: Annotated[Door, Depends(gate.open)], org_id: OrgId) -> Deleted:
        """Refused while it has a balance, open holds or users. Its requests, transfers and audit events stay."""
        return Deleted.model_validate(await store.delete_org(door, org_id))

    return routes
