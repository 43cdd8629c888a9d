"""What the database knows of models: the snapshot of OpenRouter's list, and the routes to servers of our own."""

from collections.abc import Sequence
from typing import Any

from tollgate.runtime.database import Door, Json


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
    return await door.call("tollgate_shopper")
