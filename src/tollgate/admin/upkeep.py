"""What keeps an operator's figures true and short, a turn at a time: usage rolled up, what is old dropped, patterns
looked for. It rides on the sweeper, for a serverless host has nobody else who comes by."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from tollgate.audit import store as audit
from tollgate.core.errors import TollgateError
from tollgate.database import Door
from tollgate.process import logs
from tollgate.process.clock import Monotonic
from tollgate.usage import store as usage

log = logs.source("database")

ROLLED_AT_ONCE = 5_000
DROPPED_AT_ONCE = 1_000

Step = Callable[[], Awaitable[Mapping[str, Any]]]


class Upkeep:
    def __init__(
        self, door: Door, *, retention_days: int | None, clock: Monotonic, content_days: int | None = None
    ) -> None:
        self._clock = clock
        self._steps: list[Step] = [
            partial(usage.roll_up, door, ROLLED_AT_ONCE),
            partial(usage.renew_leaders, door),
            partial(audit.detect_patterns, door),
        ]
        if retention_days is not None:  # after they were rolled up: what is not is not dropped
            self._steps.insert(1, partial(usage.drop_old_requests, door, retention_days, DROPPED_AT_ONCE))
        if content_days is not None:
            self._steps.append(partial(usage.drop_old_contents, door, content_days, DROPPED_AT_ONCE))

    async def turn(self, ends_at: float) -> None:
        """None of it is worth a failure: what is left undone is done in a later turn."""
        for step in self._steps:
            try:
                while self._clock() < ends_at and (await step()).get("more"):
                    pass
            except TollgateError as error:
                log.warning("upkeep_failed", error_code=error.code)
