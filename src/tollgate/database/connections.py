"""A pool of connections to Postgres.

asyncpg's own pool supports every use of a connection. Ours run single statements that leave no session state, so this
pool needs no proxies, resets and tasks, which cost as much as the rest of a call.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from tollgate.process.clock import Monotonic, monotonic

GRACE_SECONDS = 0.25
"""For telling the server to cancel a query; a connection that takes longer is aborted."""
MOST_IDLE_SECONDS = 300.0
MOST_SECONDS = 3600.0
"""The lifetime of a connection. Cached plans were made for the tables as they were when it began."""


class _Kept:
    """A connection, and the times that decide when it is closed."""

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
        """The last one returned is used first, so that the others reach their idle time."""

    async def value(self, statement: str, values: list[Any]) -> Any:
        """The value that a statement returns. Waits while all connections are busy."""
        async with self._free:
            kept = await self._taken()
            is_sound = False
            try:
                value = await kept.connection.fetchval(statement, *values)
                is_sound = True
                return value
            except asyncpg.PostgresError:  # the server answered, so the connection is sound
                is_sound = True
                raise
            finally:
                self._busy.discard(kept)
                await (self._keep(kept) if is_sound else _end(kept))

    async def close(self) -> None:
        """Waits for calls under way until it is cancelled, and closes all connections in either case."""
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
    """Closes a connection in order, so that the server cancels a running query."""
    with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        await kept.connection.close(timeout=GRACE_SECONDS)
