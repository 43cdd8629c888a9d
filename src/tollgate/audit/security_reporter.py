"""Writes the security counters to the database. No request waits for it, and none fails because of it."""

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


class SecurityReporter:
    def __init__(self, door: Door, *, clock: Monotonic, now: Callable[[], datetime]) -> None:
        self._door = door
        self._clock = clock
        self._counters = SecurityCounters(now=now, clock=clock)
        self._written_at = clock()
        self._writing: asyncio.Task[None] | None = None

    def begins(self) -> None:
        """A request begins: starts to write what was counted before it.

        This runs beside the request and not after it, because a serverless host may freeze the process then.
        """
        if self._clock() - self._written_at < PAUSE_SECONDS or self._is_writing():
            return
        self._written_at = self._clock()
        if taken := self._counters.take():
            # With its own context, so that its log lines do not carry the request's fields.
            self._writing = asyncio.create_task(self._write(taken), context=Context())

    def ended(self, method: str, path: str | None, facts: Mapping[str, Any], caller: Mapping[str, Any]) -> None:
        """A request has ended: counts it."""
        self._counters.count(method, path, facts, caller)

    async def finish(self) -> None:
        """Writes all counts now."""
        if self._writing:
            await asyncio.wait([self._writing])
        if taken := self._counters.take():
            await self._write(taken)

    def _is_writing(self) -> bool:
        return self._writing is not None and not self._writing.done()

    async def _write(self, taken: dict[str, list[dict[str, Any]]]) -> None:
        """Counts that cannot be written are dropped."""
        try:
            await store.write_security_counts(self._door, **taken)
        except TollgateError as error:
            log.warning("security_counts_lost", error_code=error.code)
