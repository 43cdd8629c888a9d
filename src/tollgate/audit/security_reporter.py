"""Writes the security counters to the database. No request waits for it, and none fails because of it."""

import asyncio
from collections.abc import Callable, Mapping
from contextvars import Context
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cachetools import LRUCache

from tollgate.audit import rules, store
from tollgate.audit.security_counters import SecurityCounters
from tollgate.core.errors import TollgateError
from tollgate.database import Door
from tollgate.process import logs
from tollgate.process.clock import Monotonic

log = logs.source("security")

PAUSE_SECONDS = 5.0
LINE_SECONDS = 60.0
ADDRESSES_REMEMBERED = 1_000


@dataclass(slots=True)
class Line:
    """A log line about an event and an address."""

    at: float
    left_out: int = 0
    """The same since, without a line of their own."""


class SecurityReporter:
    def __init__(self, door: Door, *, clock: Monotonic, now: Callable[[], datetime], mark_key: bytes = b"") -> None:
        self._door = door
        self._clock = clock
        self._counters = SecurityCounters(now=now, clock=clock, mark_key=mark_key)
        self._written_at = clock()
        self._writing: asyncio.Task[None] | None = None
        self._lines: LRUCache[tuple[str, str], Line] = LRUCache(ADDRESSES_REMEMBERED)
        """The last of each event and address."""

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
        """A request has ended: counts it, and logs a refusal that may concern security."""
        self._counters.count(method, path, facts, caller)
        code = facts.get("error_code", "")
        if event := rules.line_about(code, path):
            self._log(event, method, path, code, caller.get("ip"))

    async def finish(self) -> None:
        """Writes all counts now."""
        if self._writing:
            await asyncio.wait([self._writing])
        if taken := self._counters.take():
            await self._write(taken)

    def _log(self, event: str, method: str, path: str | None, code: str, ip: str | None) -> None:
        """The first of each address in a minute. The others are counted on the line of the next."""
        address = rules.address_of(ip) if ip else "unknown"
        line = self._lines.get((event, address))
        if line and self._clock() - line.at < LINE_SECONDS:
            line.left_out += 1
            return
        self._lines[event, address] = Line(self._clock())
        left_out = line.left_out if line else 0
        log.warning(event, method=method, route=path, error_code=code, address=address, left_out=left_out)

    def _is_writing(self) -> bool:
        return self._writing is not None and not self._writing.done()

    async def _write(self, taken: dict[str, list[dict[str, Any]]]) -> None:
        """Counts that cannot be written are dropped."""
        try:
            await store.write_security_counts(self._door, **taken)
        except TollgateError as error:
            log.warning("security_counts_lost", error_code=error.code)
