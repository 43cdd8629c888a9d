"""Hosts, their deployments and tasks in the database. It imports no schemas, since the sweeper needs it."""

from typing import Any

from tollgate.core.host_keys import HostKey
from tollgate.database import Door, Json


async def enrol(door: Door, digests: list[str], agent: dict[str, Any]) -> Json:
    return await door.call("tollgate_enrol", digests=digests, agent=agent)


async def sync(door: Door, key: HostKey, report: dict[str, Any]) -> Json:
    return await door.call("tollgate_sync", host_id=key.host_id, key_generation=key.generation, report=report)


async def end_task(door: Door, key: HostKey, task_id: str, outcome: dict[str, Any]) -> Json:
    return await door.call(
        "tollgate_end_task", host_id=key.host_id, key_generation=key.generation, task_id=task_id, outcome=outcome
    )


async def keep(door: Door, page_size: int) -> Json:
    """Drops what is old, and ends the tasks that nobody took."""
    return await door.call("tollgate_keep_fleet", page_size=page_size)


async def hosts(door: Door, filters: dict[str, Any], page_size: int) -> Json:
    return await door.call("tollgate_hosts", filters=filters, page_size=page_size)


async def host(door: Door, host_id: str | None) -> Json:
    """Without an id, the only one."""
    return await door.call("tollgate_host", host_id=host_id)


async def create_host(door: Door, host: dict[str, Any], digest: str) -> Json:
    return await door.call("tollgate_create_host", host=host, enrolment={"digest": digest})


async def change_host(door: Door, host_id: str | None, changes: dict[str, Any]) -> Json:
    return await door.call("tollgate_change_host", host_id=host_id, changes=changes)


async def set_host_state(door: Door, host_id: str, state: str) -> Json:
    return await door.call("tollgate_set_host_state", host_id=host_id, state=state)


async def delete_host(door: Door, host_id: str) -> Json:
    return await door.call("tollgate_delete_host", host_id=host_id)


async def new_enrolment(door: Door, host_id: str, digest: str, *, rotate: bool) -> Json:
    return await door.call("tollgate_new_enrolment", host_id=host_id, digest=digest, rotate=rotate)


async def fleet(door: Door, host_id: str | None) -> Json:
    """All hosts, or one, with their last figures and those of their paid calls."""
    return await door.call("tollgate_fleet", host_id=host_id)


async def trends(door: Door, host_id: str | None, minutes: int, step_seconds: int) -> Json:
    return await door.call("tollgate_host_trends", host_id=host_id, minutes=minutes, step_seconds=step_seconds)


async def deployments(door: Door, filters: dict[str, Any], page_size: int) -> Json:
    return await door.call("tollgate_deployments", filters=filters, page_size=page_size)


async def deployment(door: Door, deployment_id: str) -> Json:
    return await door.call("tollgate_deployment", deployment_id=deployment_id)


async def phase_changes(door: Door, deployment_id: str, filters: dict[str, Any], page_size: int) -> Json:
    return await door.call("tollgate_phase_changes", deployment_id=deployment_id, filters=filters, page_size=page_size)


async def create_deployment(door: Door, deployment: dict[str, Any]) -> Json:
    return await door.call("tollgate_create_deployment", deployment=deployment)


async def change_deployment(door: Door, deployment_id: str, changes: dict[str, Any]) -> Json:
    return await door.call("tollgate_change_deployment", deployment_id=deployment_id, changes=changes)


async def set_wanted(door: Door, deployment_id: str, wanted: str, *, applied: bool = False) -> Json:
    return await door.call("tollgate_set_wanted", deployment_id=deployment_id, wanted=wanted, applied=applied)


async def archive_deployment(door: Door, deployment_id: str) -> Json:
    return await door.call("tollgate_archive_deployment", deployment_id=deployment_id)


async def delete_deployment(door: Door, deployment_id: str, *, with_files: bool) -> Json:
    return await door.call("tollgate_delete_deployment", deployment_id=deployment_id, with_files=with_files)


async def metrics(door: Door) -> Json:
    return await door.call("tollgate_deployment_metrics")


async def create_task(
    door: Door, kind: str, arguments: dict[str, Any], *, host_id: str | None, deployment_id: str | None
) -> Json:
    return await door.call(
        "tollgate_create_task", host_id=host_id, deployment_id=deployment_id, kind=kind, arguments=arguments
    )


async def task(door: Door, task_id: str) -> Json:
    return await door.call("tollgate_task", task_id=task_id)
