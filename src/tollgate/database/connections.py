"""Connections to one Postgres, each used by one call at a time.

asyncpg's own pool serves every use of a connection. Ours have one, a statement that leaves no session state behind, so
they need none of its proxies and resets, nor a task for each return: half of what a call cost this process.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from tollgate.process.clock import Monotonic, monotonic

GRACE_SECONDS = 0.25
"""For the server to hear that a query is given up; a connection that does not even do that is dropped."""
MOST_IDLE_SECONDS = 300.0
MOST_SECONDS = 3600.0
"""Of a connection's life: its plans were made for the tables of when it began."""


class _Kept:
    """A connection, and what decides when it ends."""

    def __init__(self, connection: asyncpg.Connection, began_at: float) -> None:
        self.connection = connection
        self.began_at = began_at
        self.idle_since = began_at


class Connections:
    def __init__(
        self, connect: Callable[[], Awaitable[asyncpg.Connection]], *, most: int, clock: Monotonic = monotonic
    ) -> None:
        self._connect = connect
        self._most = most
        self._clock = clock
        self._free = asyncio.Semaphore(most)
        self._busy: set[_Kept] = set()
        self._idle: list[_Kept] = []
        """The one that came back last goes out first, and the others grow old."""

    async def value(self, statement: str, values: list[Any]) -> Any:
        """The one value that a statement answers. Waits while all connections are busy."""
        async with self._free:
            kept = await self._taken()
            is_sound = False
            try:
                value = await kept.connection.fetchval(statement, *values)
                is_sound = True
                return value
            except asyncpg.PostgresError:  # an answer too
                is_sound = True
                raise
            finally:
                self._busy.discard(kept)
                await (self._keep(kept) if is_sound else _end(kept))

    async def close(self) -> None:
        """Waits for what is under way, as long as it is let; then nothing is left open."""
        try:
            for _ in range(self._most):
                await self._free.acquire()
            while self._idle:
                await _end(self._idle.pop())
        finally:
            for kept in [*self._busy, *self._idle]:
                kept.connection.terminate()

    async def _taken(self) -> _Kept:
        while self._idle:
            kept = self._idle.pop()
            if not kept.connection.is_closed():
                break
        else:
            kept = _Kept(await self._connect(), self._clock())
        self._busy.add(kept)
        return kept

    async def _keep(self, kept: _Kept) -> None:
        now = self._clock()
        if now - kept.began_at < MOST_SECONDS:
            kept.idle_since = now
            self._idle.append(kept)
        else:
            await _end(kept)
        if self._idle and now - self._idle[0].idle_since >= MOST_IDLE_SECONDS:
            await _end(self._idle.pop(0))


async def _end(kept: _Kept) -> None:
    """Tells the server, so that it gives up what it is still at."""
    with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        await kept.connection.close(timeout=GRACE_SECONDS)
