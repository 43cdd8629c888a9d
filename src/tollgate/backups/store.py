"""Backups in the database."""

from typing import Any

from tollgate.database import Door, Json


async def note(door: Door, backup: dict[str, Any]) -> None:
    await door.call("tollgate_note_backup", backup=backup)


async def note_verification(door: Door, backup: dict[str, Any]) -> None:
    await door.call("tollgate_note_verification", backup=backup)


async def moment(door: Door) -> str | None:
    """The newest moment that the rows tell of."""
    found: str | None = (await door.call("tollgate_moment_of_books"))["as_of"]
    return found


async def backup(door: Door, digest: str) -> Json:
    return await door.call("tollgate_backup", digest=digest)


async def backups(door: Door, filters: dict[str, Any], page_size: int) -> Json:
    return await door.call("tollgate_backups", filters=filters, page_size=page_size)
