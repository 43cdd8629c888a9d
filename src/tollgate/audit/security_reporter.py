"""Hands over what the process has seen. No request waits for it, and none fails when it does."""

import asyncio
from collections.abc import Callable, Mapping
from contextvars import Context
from datetime import datetime
from typing import Any

from tollgate.audit import store
from tollgate.audit.security_counters import SecurityCounters
from tollgate.core.errors import TollgateError
from tollgate.database import Door
from tollgate.process import logs
from tollgate.process.clock import Monotonic

log = logs.source("security")

PAUSE_SECONDS = 5.0


class Watch:
    def __init__(self, door: Door, *, clock: Monotonic, now: Callable[[], datetime]) -> None:
        self._door = door
        self._clock = clock
        self._counters = SecurityCounters(now=now, clock=clock)
        self._handed_over_at = clock()
        self._handing_over: asyncio.Task[None] | None = None

    def begins(self) -> None:
        """A request comes. What was seen before goes beside it: after it, a serverless host may freeze us."""
        if self._clock() - self._handed_over_at < PAUSE_SECONDS or self._is_busy():
            return
        self._handed_over_at = self._clock()
        if taken := self._counters.take():
            # In a context of its own: its log lines are not the request's.
            self._handing_over = asyncio.create_task(self._hand_over(taken), context=Context())

    def ended(self, method: str, path: str | None, facts: Mapping[str, Any], caller: Mapping[str, Any]) -> None:
        """A request was answered; see SecurityCounters.saw()."""
        self._counters.saw(method, path, facts, caller)

    async def finish(self) -> None:
        """Hands over everything, now."""
        if self._handing_over:
            await asyncio.wait([self._handing_over])
        if taken := self._counters.take():
            await self._hand_over(taken)

    def _is_busy(self) -> bool:
        return self._handing_over is not None and not self._handing_over.done()

    async def _hand_over(self, taken: dict[str, list[dict[str, Any]]]) -> None:
        """What cannot be handed over is lost: it is only counts."""
        try:
            await store.note_sightings(self._door, **taken)
        except TollgateError as error:
            log.warning("sightings_lost", error_code=error.code)
