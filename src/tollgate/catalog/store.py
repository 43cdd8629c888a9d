"""What the database knows of models: the snapshot of OpenRouter's list, and the routes to servers of our own."""

from collections.abc import Sequence
from typing import Any

from tollgate.database import Door, Json


async def catalog(door: Door, source: str, names: Sequence[str] | None, within_seconds: int) -> Json:
    """Of these names, or of all; the snapshot's part only where it is no older than that."""
    return await door.call(
        "tollgate_catalog",
        source=source,
        names=list(names) if names is not None else None,
        within_seconds=within_seconds,
    )


async def keep(door: Door, source: str, models: list[dict[str, Any]], age_ms: int) -> Json:
    return await door.call("tollgate_keep_catalog", source=source, models=models, age_ms=age_ms)


async def put_upstream(door: Door, upstream: dict[str, Any]) -> Json:
    return await door.call("tollgate_put_upstream", upstream=upstream)


async def put_route(door: Door, route: dict[str, Any]) -> Json:
    return await door.call("tollgate_put_route", route=route)


async def shopper(door: Door) -> Json:
    return await door.call("tollgate_catalog_caller")


async def routes(door: Door, filters: dict[str, Any], page_size: int) -> Json:
    return await door.call("tollgate_routes", filters=filters, page_size=page_size)


async def route(door: Door, route_id: str) -> Json:
    return await door.call("tollgate_route", route_id=route_id)


async def delete_route(door: Door, route_id: str) -> Json:
    return await door.call("tollgate_delete_route", route_id=route_id)


async def snapshot(door: Door, source: str) -> Json:
    """What all instances share of this source's list, for an operator."""
    return await door.call("tollgate_snapshot", source=source)


async def note_refresh(door: Door, source: str, digest: str | None) -> Json:
    """Records it, and says whether the shared list is another than that of the digest."""
    return await door.call("tollgate_note_refresh", source=source, digest=digest)
