"""What an operator does: /admin/*."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from tollgate.audit import store as audit
from tollgate.keys.gate import IN_THE_DOCUMENT, Gate
from tollgate.runtime.database import Door

Text = Annotated[str | None, Field(max_length=200)]


class AuditFilters(BaseModel):
    model_config = ConfigDict(extra="forbid")

    org_id: Text = Field(None, description="Only events about this org.")
    action: Text = Field(None, description="Only this action, such as key.created.")
    outcome: Literal["success", "refused"] | None = None
    target_id: Text = Field(None, description="Only events about this key, user, org or transfer.")
    since: datetime | None = Field(None, alias="from", description="Not before this time.")
    until: datetime | None = Field(None, alias="to", description="Before this time.")
    cursor: Text = Field(None, description="The next_cursor of the page before.")
    limit: int = Field(100, ge=1, le=1000)


class AuditEvent(BaseModel):
    id: str
    occurred_at: datetime
    actor: dict[str, str] = Field(description="Who: kind `key` with key_id and user_id, or `console` with its name.")
    org_id: str | None
    action: str
    target_id: str
    outcome: str
    ip: str | None
    user_agent: str | None
    request_id: str | None
    details: dict[str, Any]


class AuditPage(BaseModel):
    data: list[AuditEvent]
    next_cursor: str | None = Field(description="Ask with this cursor for the next page; null on the last.")


def router(gate: Gate) -> APIRouter:
    routes = APIRouter(prefix="/admin", tags=["admin"], dependencies=IN_THE_DOCUMENT)

    @routes.get("/audit-logs", summary="Who did what, newest first")
    async def audit_logs(
        door: Annotated[Door, Depends(gate.open)], filters: Annotated[AuditFilters, Query()]
    ) -> AuditPage:
        wanted = filters.model_dump(mode="json", by_alias=True, exclude_none=True)
        page_size = wanted.pop("limit")
        if "cursor" in wanted:
            wanted["before_id"] = wanted.pop("cursor")
        found = (await audit.events(door, wanted, page_size + 1))["data"]
        page = found[:page_size]
        return AuditPage(data=page, next_cursor=page[-1]["id"] if len(found) > page_size else None)

    return routes
