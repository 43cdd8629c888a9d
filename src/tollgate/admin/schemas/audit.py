"""Audit events, and the filters for them."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from tollgate.web.schemas import Moment, PageQuery, Period, Text


class AuditFilters(PageQuery, Period):
    org_id: Text | None = Field(None, description="Only events about this org.")
    action: Text | None = Field(None, description="Only this action, such as key.created.", examples=["key.created"])
    outcome: Literal["success", "refused"] | None = None
    target_id: Text | None = Field(None, description="Only events about this key, user, org or transfer.")
    actor_id: Text | None = Field(
        None, description="Only events by this key or user, or by the console command of this name."
    )
    sort: Literal["occurred_at:desc", "occurred_at:asc"] = "occurred_at:desc"


class AuditEvent(BaseModel):
    id: str = Field(examples=["evt_01a1fe3176a6a9708c902f14b38f"])
    occurred_at: Moment
    actor: dict[str, str] = Field(
        description="Who acted: kind `key` with key_id and user_id, or kind `console` or `system` with a name.",
        examples=[{"kind": "key", "key_id": "key_01a1fe317697", "user_id": "usr_01a1fe317690"}],
    )
    org_id: str | None
    action: str = Field(examples=["key.created"])
    target_id: str = Field(description="The id of what was changed; for `access.refused`, the method and route.")
    outcome: str
    ip: str | None
    user_agent: str | None
    request_id: str | None
    details: dict[str, Any]
