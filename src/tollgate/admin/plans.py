"""/admin/plans and /admin/assign-plan: named limits and markups."""

from typing import Annotated, Literal, Self

from fastapi import Depends, Path, Query, status
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from tollgate.admin.orgs import Deleted, Org
from tollgate.core import errors
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.limits.schemas import AT_ONCE, Limit, Limits
from tollgate.people import store
from tollgate.people.rules import Line, Markup, Name, Words, told
from tollgate.web.routing import Routes
from tollgate.web.schemas import Listed, Moment, Page, Written, refusals

PlanId = Annotated[Line, Path(description="The id of a plan, such as pro.")]
OWN_MARKUP = "0.05 charges 5 % above the cost, in steps of a millionth; null is the setting MARKUP."


class Plan(BaseModel):
    id: str
    name: str
    description: str
    markup: float | None = Field(description=OWN_MARKUP)
    limits: Limits = Field(description="A null is no limit.")
    max_concurrent_requests: int | None = Field(description=AT_ONCE + "Null is no bound.")
    orgs: int = Field(description="How many orgs are on it.")
    created_at: Moment
    updated_at: Moment


class NewPlan(Written):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"id": "team", "name": "Team", "markup": 0.1, "limits": {"requests_per_minute": 300}}]
        }
    )

    id: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
    name: Name
    description: Words = ""
    markup: Markup | None = Field(None, description=OWN_MARKUP)
    limits: Limits = Field(default_factory=Limits, description="A null is no limit.")
    max_concurrent_requests: Limit | None = Field(None, description=AT_ONCE + "Null is no bound.")


class PlanChanges(Written):
    """What is left out stays as it is, as does what is null, but for markup, max_concurrent_requests and
    the single limits."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"limits": {"tokens_per_day": None}}]})

    name: Name | None = None
    description: Words | None = None
    markup: Markup | None = Field(None, description=OWN_MARKUP)
    limits: Limits | None = Field(None, description="Those named are changed; a null is no limit.")
    max_concurrent_requests: Limit | None = Field(None, description=AT_ONCE + "Null is no bound.")


class PlansAsked(Listed):
    q: Line | None = Field(None, description="Part of the id or name, in capitals or not.")
    sort: Literal["id:asc", "id:desc", "name:asc", "name:desc", "created_at:asc", "created_at:desc"] = "id:asc"


class PlanAssignment(Written):
    """Whom: exactly one of org_id and user_id. A user stands for the org he belongs to."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"org_id": "org_0193", "plan": "pro"}]})

    org_id: Line | None = None
    user_id: Line | None = Field(None, description="The org of this user.")
    plan: Name = Field(description="The id of a plan.")

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.org_id is None) == (self.user_id is None):
            raise ValueError("name exactly one of org_id and user_id")
        return self


def router(gate: Gate) -> Routes:
    routes = Routes(prefix="/admin", responses=refusals(errors.BadRequest))
    stable = {"x-stability": "stable"}
    one = refusals(errors.BadRequest, errors.NotFound)
    taken = refusals(errors.BadRequest, errors.Conflict)
    ending = refusals(errors.BadRequest, errors.NotFound, errors.Conflict)

    @routes.get("/plans", summary="Plans", openapi_extra=stable)
    async def plans(door: Annotated[Door, Depends(gate.open)], asked: Annotated[PlansAsked, Query()]) -> Page[Plan]:
        return Page[Plan].of(await store.plans(door, asked.filters(), asked.limit))

    @routes.post(
        "/plans", summary="Make a plan", status_code=status.HTTP_201_CREATED, responses=taken, openapi_extra=stable
    )
    async def create(door: Annotated[Door, Depends(gate.open)], said: NewPlan) -> Plan:
        return Plan.model_validate(await store.create_plan(door, told(said.model_dump(mode="json"))))

    @routes.get("/plans/{plan_id}", summary="One plan", responses=one, openapi_extra=stable)
    async def plan(door: Annotated[Door, Depends(gate.open)], plan_id: PlanId) -> Plan:
        return Plan.model_validate(await store.plan(door, plan_id))

    @routes.patch("/plans/{plan_id}", summary="Change a plan", responses=one, openapi_extra=stable)
    async def update(door: Annotated[Door, Depends(gate.open)], plan_id: PlanId, said: PlanChanges) -> Plan:
        """Holds for the next request of every org that follows the plan. What is so already changes nothing."""
        return Plan.model_validate(await store.update_plan(door, plan_id, told(said.changes())))

    @routes.delete("/plans/{plan_id}", summary="Delete a plan", responses=ending, openapi_extra=stable)
    async def delete(door: Annotated[Door, Depends(gate.open)], plan_id: PlanId) -> Deleted:
        """Refused while orgs are on it, and for the three that come with Tollgate."""
        return Deleted.model_validate(await store.delete_plan(door, plan_id))

    @routes.post("/assign-plan", summary="Put an org on a plan", responses=ending, openapi_extra=stable)
    async def assign(door: Annotated[Door, Depends(gate.open)], said: PlanAssignment) -> Org:
        """What the org has of its own, limits or markup, stays."""
        subject = said.model_dump(mode="json", include={"org_id", "user_id"}, exclude_none=True)
        return Org.model_validate(await store.assign_plan(door, subject, said.plan))

    return routes
