"""What the sweeper does besides ending requests: rolls usage up, deletes old rows, looks for security patterns, and
records what this process uses.

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

ROLLED_AT_ONCE = 5_000
DROPPED_AT_ONCE = 1_000

Task = Callable[[], Awaitable[Mapping[str, Any]]]


class Upkeep:
    def __init__(
        self,
        door: Door,
        *,
        retention_days: int | None,
        clock: Monotonic,
        content_days: int | None = None,
        machine: Machine | None = None,
    ) -> None:
        self._clock = clock
        self._tasks: list[Task] = [
            partial(usage.roll_up, door, ROLLED_AT_ONCE),
            partial(usage.renew_leaders, door),
            partial(audit.detect_patterns, door),
            partial(cache.drop_expired, door, DROPPED_AT_ONCE),
            partial(fleet.keep, door, DROPPED_AT_ONCE),
        ]
        if retention_days is not None:  # after the roll-up: a request that was not rolled up is not deleted
            self._tasks.insert(1, partial(usage.drop_old_requests, door, retention_days, DROPPED_AT_ONCE))
        if content_days is not None:
            self._tasks.append(partial(usage.drop_old_contents, door, content_days, DROPPED_AT_ONCE))
        if machine is not None:
            self._tasks.append(partial(_record, door, machine))

    async def turn(self, ends_at: float) -> None:
        """Never raises: what is left undone is done in a later turn."""
        for task in self._tasks:
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
