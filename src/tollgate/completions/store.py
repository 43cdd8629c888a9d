"""Paid requests in the database: many at once, each with an answer of its own."""

from typing import Any

from tollgate.database import Door, Json

Items = list[dict[str, Any]]


async def admit(door: Door, items: Items) -> Json:
    return await door.call("tollgate_admit", items=items)


async def settle(door: Door, items: Items) -> Json:
    return await door.call("tollgate_settle", items=items)


async def note_generations(door: Door, items: Items) -> Json:
    return await door.call("tollgate_note_generations", items=items)


async def due(door: Door, page_size: int, lease_seconds: int) -> Json:
    return await door.call("tollgate_due", page_size=page_size, lease_seconds=lease_seconds)
