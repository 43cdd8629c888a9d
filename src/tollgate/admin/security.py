"""What an operator should look at: /admin/security-events."""

from typing import Annotated, Any, Literal

from fastapi import Body, Depends, Query
from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Field

from tollgate.audit import store as audit
from tollgate.core.errors import NotFound
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.web.routing import Routes
from tollgate.web.schemas import (
    Listed,
    Moment,
    Page,
    Text,
    Written,
    refusals,
)

Kind = Literal[
    "key_created",
    "key_rotated",
    "key_revoked",
    "authentication_failed",
    "limit_exceeded",
    "ip_refused",
    "org_overdrawn",
    "org_paid_suspended",
    "usage_quarantined",
    "many_networks",
    "usage_spike",
    "many_failures",
]
Severity = Literal["info", "warning", "critical"]
Sort = Literal[
    "last_seen:desc", "last_seen:asc", "first_seen:desc", "first_seen:asc",
    "count:desc", "count:asc", "severity:desc", "severity:asc",
]  # fmt: skip


class SecurityFilters(Listed):
    kind: Kind | None = Field(None, description="Only events of this kind.")
    severity: Severity | None = Field(None, description="Only events as grave as this.")
    org_id: Text | None = Field(None, description="Only events that concern this org.")
    key_id: Text | None = Field(None, description="Only events that concern this key.")
    acknowledged: bool | None = Field(None, description="Only events that somebody has seen to, or that nobody has.")
    since: Moment | None = Field(None, alias="from", description="Seen at this time or after.")
    until: Moment | None = Field(None, alias="to", description="Seen before this time.")
    sort: Sort = "last_seen:desc"


class Subject(BaseModel):
    kind: Literal["org", "key", "address"]
    id: str = Field(description="`unknown` where nothing names an address; `others` for those too many to tell apart.")


class SecurityEvent(BaseModel):
    id: str = Field(examples=["sec_01a1fe3176a89d25de9e38917547"])
    kind: Kind
    severity: Severity
    subject: Subject = Field(examples=[{"kind": "address", "id": "192.0.2.7"}])
    org_id: str | None
    key_id: str | None
    first_seen: Moment
    last_seen: Moment
    count: int = Field(description="How often. A pattern counts the hours in which it was seen.")
    details: dict[str, Any] = Field(description="Of the last time.", examples=[{"code": "invalid_api_key"}])
    acknowledged_at: Moment | None
    acknowledged_by: str | None = Field(description="A user's id, or the name of a console command.")
    note: str | None


class Acknowledgement(Written):
    model_config = ConfigDict(json_schema_extra={"examples": [{"note": "A load test of ours."}]})

    note: str | None = Field(None, max_length=1000, pattern=r"^[^\x00]*$", description="What was found.")


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
