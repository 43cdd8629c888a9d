"""/admin/orgs."""

from typing import Annotated

from fastapi import Depends, Path, Query, status

from tollgate.admin.schemas.orgs import Deleted, Lookup, NewOrg, Org, OrgChanges, OrgsAsked, Picks
from tollgate.core import errors
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.people import store
from tollgate.people.rules import Line, told
from tollgate.web.routing import Routes
from tollgate.web.schemas import Page, refusals

OrgId = Annotated[Line, Path(description="The id of an org, such as org_0193….")]


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
