"""The limits of orgs and keys in the database. A subject is named by org_id, user_id (whose org is meant) or key_id."""

from typing import Any

from tollgate.database import Door, Json


async def limits_of(door: Door, subject: dict[str, Any]) -> Json:
    return await door.call("tollgate_limits_of", subject=subject)


async def set_limits(door: Door, subject: dict[str, Any], limits: dict[str, Any]) -> Json:
    return await door.call("tollgate_set_limits", subject=subject, limits=limits)


async def reset_limits(door: Door, subject: dict[str, Any], *, counters: bool) -> Json:
    return await door.call("tollgate_reset_limits", subject=subject, counters=counters)
