"""Security events, and the filters for them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tollgate.web.schemas import ChangeBody, Moment, Note, PageQuery, Period, Text

SecurityKind = Literal[
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
SecuritySort = Literal[
    "last_seen_at:desc", "last_seen_at:asc", "first_seen_at:desc", "first_seen_at:asc",
    "count:desc", "count:asc", "severity:desc", "severity:asc",
]  # fmt: skip


class SecurityFilters(PageQuery, Period):
    """In a period are the events that were last seen after its start and first seen before its end."""

    kind: SecurityKind | None = Field(None, description="Only events of this kind.")
    severity: Severity | None = Field(None, description="Only events of this severity.")
    org_id: Text | None = Field(None, description="Only events about this org.")
    key_id: Text | None = Field(None, description="Only events about this key.")
    acknowledged: bool | None = Field(None, description="Only events that were acknowledged, or that were not.")
    sort: SecuritySort = "last_seen_at:desc"


class SecuritySubject(BaseModel):
    kind: Literal["org", "key", "user", "address"]
    id: str = Field(
        description="`unknown` for an unknown address; `others` for addresses beyond those counted one by one."
    )


class SecurityEvent(BaseModel):
    id: str = Field(examples=["sec_01a1fe3176a89d25de9e38917547"])
    kind: SecurityKind
    severity: Severity
    subject: SecuritySubject = Field(examples=[{"kind": "address", "id": "192.0.2.7"}])
    org_id: str | None
    key_id: str | None
    first_seen_at: Moment
    last_seen_at: Moment
    count: int = Field(description="How often it was seen; for a pattern, in how many hours.")
    details: dict[str, Any] = Field(
        description="The details of the last time it was seen.", examples=[{"code": "invalid_api_key"}]
    )
    acknowledged_at: Moment | None
    acknowledged_by: str | None = Field(description="The id of a user, or the name of a console command.")
    note: str | None


class Acknowledgement(ChangeBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"note": "A load test of ours."}]})

    note: Note | None = Field(None, description="What was found.")
