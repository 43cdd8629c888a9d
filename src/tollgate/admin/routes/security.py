"""/admin/security-events."""

from typing import Annotated

from fastapi import Body, Depends, Query
from fastapi import Path as InPath

from tollgate.admin.schemas.security import Acknowledgement, SecurityEvent, SecurityFilters
from tollgate.audit import store as audit
from tollgate.core.errors import BadRequest, NotFound
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.web.routing import Routes
from tollgate.web.schemas import CountedPage, Identifier, refusals

EventId = Annotated[Identifier, InPath(description="The id of the event.")]


def router(gate: Gate) -> Routes:
    routes = Routes(prefix="/admin/security-events")

    @routes.get(
        "",
        summary="List security events",
        description="Refused requests and changes of keys are counted by kind and subject within seconds. Patterns are "
        "looked for every ten minutes. The counts are approximate: those of a server that dies are lost.",
        responses=refusals(),
    )
    async def security_events(
        door: Annotated[Door, Depends(gate.open)], filters: Annotated[SecurityFilters, Query()]
    ) -> CountedPage[SecurityEvent]:
        return CountedPage[SecurityEvent].of(await audit.security_events(door, filters.filters(), filters.limit))

    @routes.get("/{event_id}", summary="Get a security event", responses=refusals(BadRequest, NotFound))
    async def security_event(door: Annotated[Door, Depends(gate.open)], event_id: EventId) -> SecurityEvent:
        return SecurityEvent.model_validate(await audit.security_event(door, event_id))

    @routes.post(
        "/{event_id}/acknowledge",
        summary="Acknowledge a security event",
        description="When it is seen again a new event opens; for a pattern, after a day at the earliest. A second "
        "acknowledgement changes nothing.",
        responses=refusals(BadRequest, NotFound),
    )
    async def acknowledge(
        door: Annotated[Door, Depends(gate.open)],
        event_id: EventId,
        body: Annotated[Acknowledgement | None, Body()] = None,
    ) -> SecurityEvent:
        note = body.note if body else None
        return SecurityEvent.model_validate(await audit.acknowledge_security_event(door, event_id, note))

    return routes
