"""What the sweeper does besides ending requests: evaluates the rules of alerts, rolls usage up, deletes old rows, looks
for security patterns, reconciles days, records what this process uses, and tells what is due.

The sweeper runs it because a serverless host has no other process that runs regularly.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from tollgate.audit import store as audit
from tollgate.cache import store as cache
from tollgate.core.errors import TollgateError
from tollgate.database import Door
from tollgate.fleet import store as fleet
from tollgate.health import store as health
from tollgate.process import logs
from tollgate.process.clock import Monotonic
from tollgate.process.machine import Machine
from tollgate.usage import store as usage

log = logs.source("database")

ROLLED_AT_ONCE = 10_000
DROPPED_AT_ONCE = 1_000
TELLING_SECONDS = 6.0
"""For one page of deliveries."""

Task = Callable[[], Awaitable[Mapping[str, Any]]]


class Upkeep:
    def __init__(
        self,
        door: Door,
        *,
        evaluate: Task,
        send_due: Task,
        retention_days: int | None,
        clock: Monotonic,
        content_days: int | None = None,
        reconcile: Task | None = None,
        machine: Machine | None = None,
    ) -> None:
        self._clock = clock
        self._send_due = send_due
        self._tasks: list[Task] = [
            evaluate,  # first, since a backlog of the others may take all the time
            partial(usage.roll_up, door, ROLLED_AT_ONCE),
            partial(usage.renew_leaders, door),
            partial(audit.detect_patterns, door),
            partial(cache.drop_expired, door, DROPPED_AT_ONCE),
            partial(fleet.keep, door, DROPPED_AT_ONCE),
        ]
        if retention_days is not None:  # after the roll-up: a request that was not rolled up is not deleted
            self._tasks.insert(2, partial(usage.drop_old_requests, door, retention_days, DROPPED_AT_ONCE))
        if content_days is not None:
            self._tasks.append(partial(usage.drop_old_contents, door, content_days, DROPPED_AT_ONCE))
        if reconcile is not None:
            self._tasks.append(reconcile)
        if machine is not None:
            self._tasks.append(partial(_record, door, machine))

    async def turn(self, ends_at: float) -> None:
        """Never raises: what is left undone is done in a later turn. Some of the time is kept for telling."""
        for task in self._tasks:
            await self._repeat(task, ends_at - TELLING_SECONDS)
        await self._repeat(self._send_due, ends_at)

    async def _repeat(self, task: Task, ends_at: float) -> None:
        try:
            while self._clock() < ends_at and (await task()).get("more"):
                pass
        except TollgateError as error:
            log.warning("upkeep_failed", error_code=error.code)


async def _record(door: Door, machine: Machine) -> Mapping[str, Any]:
    """A sample of this process, once a minute."""
    if not machine.is_due():
        return {}
    recorded: Mapping[str, Any] = await health.record_process(door, machine.name, machine.taken(), DROPPED_AT_ONCE)
    return recorded
