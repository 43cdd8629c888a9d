"""/admin/plans and /admin/assign-plan."""

from typing import Annotated

from fastapi import Depends, Path, Query, status

from tollgate.admin.schemas.orgs import Deleted, Org
from tollgate.admin.schemas.plans import NewPlan, Plan, PlanAssignment, PlanChanges, PlansAsked
from tollgate.core import errors
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.people import store
from tollgate.people.rules import Line, told
from tollgate.web.routing import Routes
from tollgate.web.schemas import Page, refusals

PlanId = Annotated[Line, Path(description="The id of a plan, such as pro.")]


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
