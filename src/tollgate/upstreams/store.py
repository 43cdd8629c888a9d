"""The servers of our own in the database, and how they were when they were last asked."""

from typing import Any

from tollgate.database import Door, Json


async def upstreams(door: Door, filters: dict[str, Any], page_size: int) -> Json:
    return await door.call("tollgate_upstreams", filters=filters, page_size=page_size)


async def upstream(door: Door, upstream_id: str) -> Json:
    return await door.call("tollgate_upstream", upstream_id=upstream_id)


async def make(door: Door, upstream: dict[str, Any]) -> Json:
    return await door.call("tollgate_put_upstream", upstream=upstream)


async def change(door: Door, upstream_id: str, changes: dict[str, Any]) -> Json:
    return await door.call("tollgate_change_upstream", upstream_id=upstream_id, changes=changes)


async def delete(door: Door, upstream_id: str, *, with_routes: bool) -> Json:
    return await door.call("tollgate_delete_upstream", upstream_id=upstream_id, with_routes=with_routes)


async def keep_probes(door: Door, probes: list[dict[str, Any]]) -> Json:
    return await door.call("tollgate_keep_probes", probes=probes)
