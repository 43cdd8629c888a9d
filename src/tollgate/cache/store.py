"""The cache in the database, apart from look-ups and fills, which are part of admission and settlement."""

from typing import Any

from tollgate.database import Door, Json

Filters = dict[str, Any]


async def stats(door: Door, filters: Filters) -> Json:
    return await door.call("tollgate_cache_stats", filters=filters)


async def clear(door: Door, filters: Filters) -> Json:
    return await door.call("tollgate_clear_cache", filters=filters)


async def newest(door: Door, filters: Filters, page_size: int) -> Json:
    return await door.call("tollgate_newest_cached", filters=filters, page_size=page_size)


async def drop_expired(door: Door, page_size: int) -> Json:
    """Deletes one batch; the answer says whether there is more."""
    return await door.call("tollgate_drop_expired_cached", page_size=page_size)
