"""/admin/security-events."""

from typing import Annotated, Any

from fastapi import Body, Depends, Query
from fastapi import Path as InPath

from tollgate.admin.schemas.security import Acknowledgement, SecurityEvent, SecurityFilters
from tollgate.audit import store as audit
from tollgate.core.errors import NotFound
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.web.routing import Routes
from tollgate.web.schemas import Page, Text, refusals


def router(gate: Gate) -> Routes:
    routes = Routes(prefix="/admin/security-events")
    stable: dict[str, Any] = {"x-stability": "stable"}

    @routes.get(
        "",
        summary="What looks like an attack or a fault",
        description="Refused requests and changes to keys are counted by kind and subject, within seconds; patterns "
        "are looked for every ten minutes. The counts of a server that dies are lost: a hint, not the books.",
        responses=refusals(),
        openapi_extra=stable,
    )
    async def security_events(
        door: Annotated[Door, Depends(gate.open)], filters: Annotated[SecurityFilters, Query()]
    ) -> Page[SecurityEvent]:
        return Page[SecurityEvent].of(await audit.security_events(door, filters.filters(), filters.limit))

    @routes.post(
        "/{event_id}/acknowledge",
        summary="Say that somebody has seen to an event",
        description="Seen again, it opens a new event; a pattern not before a day has passed. "
        "The first acknowledgement stands.",
        responses=refusals(NotFound),
        openapi_extra=stable,
    )
    async def acknowledge(
        door: Annotated[Door, Depends(gate.open)],
        event_id: Annotated[Text, InPath(description="The event's id.")],
        said: Annotated[Acknowledgement | None, Body()] = None,
    ) -> SecurityEvent:
        note = said.note if said else None
        return SecurityEvent.model_validate(await audit.acknowledge_security_event(door, event_id, note))

    return routes
