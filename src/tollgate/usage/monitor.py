"""What the database says at one look: of the whole house to an operator, of their part of it to a key's owner."""

from tollgate.database import Door, Json


async def of_all(door: Door) -> Json:
    return await door.call("tollgate_monitor")


async def of_org(door: Door) -> Json:
    """The caller's."""
    return await door.call("tollgate_own_monitor")


async def of_key(door: Door) -> Json:
    """The caller's own."""
    return await door.call("tollgate_key_usage")
