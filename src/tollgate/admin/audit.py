"""GET /admin/audit-logs."""

from typing import Annotated, Any, Literal

from fastapi import Depends, Query
from pydantic import BaseModel, Field

from tollgate.audit import store as audit
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.web.routing import Routes
from tollgate.web.schemas import Listed, Moment, Page, Text, refusals


class AuditFilters(Listed):
    org_id: Text | None = Field(None, description="Only events about this org.")
    action: Text | None = Field(None, description="Only this action, such as key.created.", examples=["key.created"])
    outcome: Literal["success", "refused"] | None = Field(None, description="Only what was done, or what was refused.")
    target_id: Text | None = Field(None, description="Only events about this key, user, org or transfer.")
    actor_id: Text | None = Field(
        None, description="Only what this key or user did, or a console command of this name."
    )
    since: Moment | None = Field(None, alias="from", description="Not before this time.")
    until: Moment | None = Field(None, alias="to", description="Before this time.")
    sort: Literal["occurred_at:desc", "occurred_at:asc"] = "occurred_at:desc"


class AuditEvent(BaseModel):
    id: str = Field(examples=["evt_01a1fe3176a6a9708c902f14b38f"])
    occurred_at: Moment
    actor: dict[str, str] = Field(
        description="Who: kind `key` with key_id and user_id, or `console` or `system` with its name.",
        examples=[{"kind": "key", "key_id": "key_01a1fe317697", "user_id": "usr_01a1fe317690"}],
    )
    org_id: str | None
    action: str = Field(examples=["key.created"])
    target_id: str = Field(description="Of what was changed; for `access.refused` the method and route asked for.")
    outcome: str
    ip: str | None
    user_agent: str | None
    request_id: str | None
    details: dict[str, Any]


def router(gate: Gate) -> Routes:
    routes = Routes(prefix="/admin")

    @routes.get(
        "/audit-logs",
        summary="Who did what",
        description="The append-only trail of every change. The total is counted up to 10,000.",
        responses=refusals(),
        openapi_extra={"x-stability": "stable"},
    )
    async def audit_logs(
        door: Annotated[Door, Depends(gate.open)], filters: Annotated[AuditFilters, Query()]
    ) -> Page[AuditEvent]:
        return Page[AuditEvent].of(await audit.events(door, filters.filters(), filters.limit))

    return routes
