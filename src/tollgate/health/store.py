"""The health and the statistics of the database."""

from tollgate.database import Door, Json


async def health(door: Door) -> Json:
    return await door.call("tollgate_health")


async def versions(door: Door) -> Json:
    return await door.call("tollgate_versions")


async def database(door: Door) -> Json:
    """Postgres' own statistics."""
    return await door.call("tollgate_database")
