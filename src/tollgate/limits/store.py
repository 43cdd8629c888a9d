"""The limits of orgs, users, keys and roles in the database.

A subject is a dict with an org_id, a user_id, a key_id or a role.
"""

from typing import Any

from tollgate.database import Door, Json


async def limits_of(door: Door, subject: dict[str, Any]) -> Json:
    return await door.call("tollgate_limits_of", subject=subject)


async def set_limits(door: Door, subject: dict[str, Any], limits: dict[str, Any]) -> Json:
    return await door.call("tollgate_set_limits", subject=subject, limits=limits)


async def reset_limits(door: Door, subject: dict[str, Any], *, counters: bool) -> Json:
    return await door.call("tollgate_reset_limits", subject=subject, counters=counters)


async def own_limits(door: Door) -> Json:
    """Of the caller's org, user and key."""
    return await door.call("tollgate_own_limits")
