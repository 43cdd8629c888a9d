"""/admin/orgs."""

from typing import Annotated

from fastapi import Depends, Path, Query, status

from tollgate.admin.schemas.orgs import (
    CreatedOrg,
    Deleted,
    LookupQuery,
    NewOrg,
    Org,
    OrgChanges,
    OrgChoices,
    OrgFilters,
)
from tollgate.core import errors
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.keys.idempotency_keys import once
from tollgate.people import store
from tollgate.people.rules import as_stored
from tollgate.process import logs
from tollgate.web.routing import Routes
from tollgate.web.schemas import CountedPage, Line, refusals

log = logs.source("security")

OrgId = Annotated[Line, Path(description="The id of an org, such as org_0193….")]


def router(gate: Gate) -> Routes:
    routes = Routes(prefix="/admin/orgs", responses=refusals(errors.BadRequest))
    one = refusals(errors.BadRequest, errors.NotFound)
    creating = refusals(errors.BadRequest, errors.NotFound, errors.Conflict, errors.IdempotencyKeyReused)
    changing = refusals(errors.BadRequest, errors.NotFound, errors.Conflict)

    @routes.get("", summary="List orgs")
    async def orgs(
        door: Annotated[Door, Depends(gate.open)], query: Annotated[OrgFilters, Query()]
    ) -> CountedPage[Org]:
        return CountedPage[Org].of(await store.orgs(door, query.filters(), query.limit))

    @routes.get("/lookup", summary="List ids and names of orgs, for a picker")
    async def lookup(door: Annotated[Door, Depends(gate.open)], query: Annotated[LookupQuery, Query()]) -> OrgChoices:
        return OrgChoices.model_validate(await store.orgs(door, query.filters("name:asc"), query.limit))

    @routes.post("", summary="Create an org", status_code=status.HTTP_201_CREATED, responses=creating)
    async def create(door: Annotated[Door, Depends(once(gate))], body: NewOrg) -> CreatedOrg:
        return CreatedOrg.model_validate(await store.create_org(door, as_stored(body.model_dump(exclude_none=True))))

    @routes.get("/{org_id}", summary="Get an org", responses=one)
    async def org(door: Annotated[Door, Depends(gate.open)], org_id: OrgId) -> Org:
        return Org.model_validate(await store.org(door, org_id))

    @routes.patch("/{org_id}", summary="Change an org", responses=changing)
    async def update(door: Annotated[Door, Depends(gate.open)], org_id: OrgId, body: OrgChanges) -> Org:
        """Takes effect with the next request. Setting a value that is already set changes nothing.

        A change after which no admin could sign in is refused.
        """
        org = Org.model_validate(await store.update_org(door, org_id, as_stored(body.changes())))
        if body.paid_calls == "suspended":
            log.warning("paid_calls_suspended", org_id=org.id, reason=org.paid_suspended_reason)
        return org

    @routes.delete("/{org_id}", summary="Delete an org", responses=changing)
    async def delete(door: Annotated[Door, Depends(gate.open)], org_id: OrgId) -> Deleted:
        """An org with a balance, open holds or users cannot be deleted. Its requests, transfers and audit events are
        kept."""
        return Deleted.model_validate(await store.delete_org(door, org_id))

    return routes
