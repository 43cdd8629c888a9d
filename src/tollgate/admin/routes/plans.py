"""/admin/plans and /admin/assign-plan."""

from typing import Annotated

from fastapi import Depends, Path, Query, status

from tollgate.admin.schemas.orgs import Deleted, Org
from tollgate.admin.schemas.plans import NewPlan, Plan, PlanAssignment, PlanChanges, PlanFilters
from tollgate.core import errors
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.keys.idempotency_keys import once
from tollgate.people import store
from tollgate.people.rules import as_stored
from tollgate.web.routing import Routes
from tollgate.web.schemas import CountedPage, Line, refusals

PlanId = Annotated[Line, Path(description="The id of a plan, such as pro.")]


def router(gate: Gate) -> Routes:
    routes = Routes(prefix="/admin", responses=refusals(errors.BadRequest))
    one = refusals(errors.BadRequest, errors.NotFound)
    creating = refusals(errors.BadRequest, errors.Conflict, errors.IdempotencyKeyReused)
    ending = refusals(errors.BadRequest, errors.NotFound, errors.Conflict)

    @routes.get("/plans", summary="List plans")
    async def plans(
        door: Annotated[Door, Depends(gate.open)], query: Annotated[PlanFilters, Query()]
    ) -> CountedPage[Plan]:
        return CountedPage[Plan].of(await store.plans(door, query.filters(), query.limit))

    @routes.post(
        "/plans",
        summary="Create a plan",
        status_code=status.HTTP_201_CREATED,
        responses=creating,
    )
    async def create(door: Annotated[Door, Depends(once(gate))], body: NewPlan) -> Plan:
        return Plan.model_validate(await store.create_plan(door, as_stored(body.model_dump(mode="json"))))

    @routes.get("/plans/{plan_id}", summary="Get a plan", responses=one)
    async def plan(door: Annotated[Door, Depends(gate.open)], plan_id: PlanId) -> Plan:
        return Plan.model_validate(await store.plan(door, plan_id))

    @routes.patch("/plans/{plan_id}", summary="Change a plan", responses=one)
    async def update(door: Annotated[Door, Depends(gate.open)], plan_id: PlanId, body: PlanChanges) -> Plan:
        """Takes effect with the next request of every org on the plan. Setting a value that is already set changes
        nothing."""
        return Plan.model_validate(await store.update_plan(door, plan_id, as_stored(body.changes())))

    @routes.delete("/plans/{plan_id}", summary="Delete a plan", responses=ending)
    async def delete(door: Annotated[Door, Depends(gate.open)], plan_id: PlanId) -> Deleted:
        """A plan with orgs cannot be deleted, nor can the three plans that Tollgate installs."""
        return Deleted.model_validate(await store.delete_plan(door, plan_id))

    @routes.post("/assign-plan", summary="Move an org to another plan", responses=ending)
    async def assign(door: Annotated[Door, Depends(gate.open)], body: PlanAssignment) -> Org:
        """The org keeps its own limits and its own markup."""
        subject = body.model_dump(mode="json", include={"org_id", "user_id"}, exclude_none=True)
        return Org.model_validate(await store.assign_plan(door, subject, body.plan))

    return routes
