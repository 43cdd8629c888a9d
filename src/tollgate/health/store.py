"""The health and the statistics of the database, and the samples of processes."""

from typing import Any

from tollgate.database import Door, Json


async def health(door: Door) -> Json:
    return await door.call("tollgate_health")


async def versions(door: Door) -> Json:
    return await door.call("tollgate_versions")


async def database(door: Door) -> Json:
    """Postgres' own statistics."""
    return await door.call("tollgate_database")


async def record_process(door: Door, process: str, sample: dict[str, Any], page_size: int) -> Json:
    return await door.call("tollgate_record_process", process=process, sample=sample, page_size=page_size)


async def processes(door: Door) -> Json:
    return await door.call("tollgate_processes")


async def process_trends(door: Door, process: str, minutes: int, step_seconds: int) -> Json:
    return await door.call("tollgate_process_trends", process=process, minutes=minutes, step_seconds=step_seconds)
