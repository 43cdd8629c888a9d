"""Audit events in the database."""

from typing import Any

from tollgate.runtime.database import Door, Json


async def events(door: Door, filters: dict[str, Any], page_size: int) -> Json:
    return await door.call("tollgate_audit_events", filters=filters, page_size=page_size)
