"""Usage in the database. `everyone` covers all orgs, for operators; else only the caller's org."""

from collections.abc import Sequence
from typing import Any

from tollgate.database import Door, Json

Filters = dict[str, Any]


async def requests(door: Door, filters: Filters, page_size: int, *, everyone: bool) -> Json:
    return await door.call("tollgate_requests", filters=filters, page_size=page_size, everyone=everyone)


async def request(door: Door, request_id: str, *, everyone: bool, content: bool = False) -> Json:
    """All that is stored of one request. Content is for operators, and reading it is recorded as an audit event."""
    return await door.call("tollgate_request", id=request_id, everyone=everyone, content=content)


async def refused_calls(door: Door, filters: Filters, page_size: int, *, everyone: bool) -> Json:
    return await door.call("tollgate_refused_calls", filters=filters, page_size=page_size, everyone=everyone)


async def refused_call(door: Door, row_id: str) -> Json:
    """For operators."""
    return await door.call("tollgate_refused_call", row_id=row_id)


async def contents(door: Door, filters: Filters, page_size: int) -> Json:
    """The requests of all orgs with their content. Each read is recorded as an audit event."""
    return await door.call("tollgate_contents", filters=filters, page_size=page_size)


async def aggregate(door: Door, by: Sequence[str], filters: Filters, page_size: int, *, everyone: bool) -> Json:
    return await door.call(
        "tollgate_usage_aggregate", by=list(by), filters=filters, page_size=page_size, everyone=everyone
    )


async def series(door: Door, bucket: str, filters: Filters, *, everyone: bool) -> Json:
    return await door.call("tollgate_usage_series", bucket=bucket, filters=filters, everyone=everyone)


async def latency(door: Door, kind: str, filters: Filters) -> Json:
    return await door.call("tollgate_latency", kind=kind, filters=filters)


async def latency_series(door: Door, bucket: str, filters: Filters) -> Json:
    return await door.call("tollgate_latency_series", bucket=bucket, filters=filters)


async def of_keys(door: Door, filters: Filters, page_size: int) -> Json:
    return await door.call("tollgate_keys_usage", filters=filters, page_size=page_size)


async def roll_up(door: Door, page_size: int) -> Json:
    """Rolls one batch up; the answer says whether there is more."""
    return await door.call("tollgate_roll_up_usage", page_size=page_size)


async def renew_leaders(door: Door) -> Json:
    """Computes the top orgs, models and keys once after a roll-up, so that the monitor need not."""
    return await door.call("tollgate_renew_leaders")


async def drop_old_requests(door: Door, older_than_days: int, page_size: int) -> Json:
    """Deletes one batch; the answer says whether there is more."""
    return await door.call("tollgate_drop_old_requests", older_than_days=older_than_days, page_size=page_size)


async def drop_old_contents(door: Door, older_than_days: int, page_size: int) -> Json:
    """Deletes one batch; the answer says whether there is more."""
    return await door.call("tollgate_drop_old_contents", older_than_days=older_than_days, page_size=page_size)


async def monitor(door: Door) -> Json:
    return await door.call("tollgate_monitor")


async def overview(door: Door, since: str, until: str | None, bucket: str) -> Json:
    return await door.call("tollgate_overview", since=since, until=until, bucket=bucket)


async def own_monitor(door: Door) -> Json:
    """Of the caller's org."""
    return await door.call("tollgate_own_monitor")


async def own_overview(door: Door, bucket: str, filters: Filters) -> Json:
    return await door.call("tollgate_own_overview", bucket=bucket, filters=filters)


async def key_usage(door: Door) -> Json:
    """Of the caller's key."""
    return await door.call("tollgate_key_usage")


async def credits_readout(door: Door) -> Json:
    """What the caller's org has and was charged."""
    return await door.call("tollgate_credits_readout")


async def key_readout(door: Door) -> Json:
    """The caller's key, with what it was charged."""
    return await door.call("tollgate_key_readout")


async def generation(door: Door, name: str) -> Json:
    """The ended request of the caller's org with this id, or with this generation id of an upstream."""
    return await door.call("tollgate_generation", id=name)
