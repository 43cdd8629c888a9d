"""The database's own word on its health."""

from tollgate.database import Door, Json


async def health(door: Door) -> Json:
    return await door.call("tollgate_health")
