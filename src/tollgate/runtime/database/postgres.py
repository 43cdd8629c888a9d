"""The door for long-lived hosts: asyncpg, straight to Postgres or through a transaction pooler."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import cache

import asyncpg
from pydantic_core import from_json, to_json

from tollgate.runtime.database import faults
from tollgate.runtime.database.door import Json

GRACE_SECONDS = 0.25
"""Kept of each deadline for cancelling a query; a connection that does not even do that is dropped."""


class _Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg is not typed
    """Our calls leave no session state behind, so giving a connection back costs no round trip."""

    def get_reset_query(self) -> str:
        return ""


class PostgresDoor:
    def __init__(self, url: str, *, pool_size: int, deadline_seconds: float) -> None:
        self._url = url
        self._pool_size = pool_size
        self._deadline_seconds = deadline_seconds
        self._opening = asyncio.Lock()
        self._pool: asyncpg.Pool | None = None

    async def call(self, function: str, **arguments: Json) -> Json:
        values = [_encoded(value) for value in arguments.values()]
        try:
            async with self._connection() as connection:
                answer = await connection.fetchval(_statement(function, tuple(arguments)), *values)
        except asyncpg.PostgresError as error:
            raise faults.of_state(error.sqlstate or "", str(error.args[0]), error.detail) from error
        except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            raise faults.unavailable(type(error).__name__, str(error)) from error
        return from_json(answer)

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool:
            with contextlib.suppress(TimeoutError):  # closing then ends the connections the hard way
                async with asyncio.timeout(self._deadline_seconds):
                    await pool.close()

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection of the pool, within the deadline, even from a server that stands still: asyncpg's own
        release waits for its cancel request without limit."""
        pool = connection = None
        try:
            async with asyncio.timeout(self._deadline_seconds - GRACE_SECONDS):
                pool = self._pool or await self._open()
                connection = await pool.acquire()
                yield connection
        finally:
            if pool and connection:
                with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    await pool.release(connection, timeout=GRACE_SECONDS)

    async def _open(self) -> asyncpg.Pool:
        async with self._opening:
            if self._pool is None:
                pooled = await self._behind_a_pooler()
                self._pool = await asyncpg.create_pool(
                    self._url,
                    connection_class=_Connection,
                    min_size=0,
                    max_size=self._pool_size,
                    # A transaction pooler hands each transaction to any server connection,
                    # where statements prepared earlier are missing or, worse, another client's.
                    statement_cache_size=0 if pooled else 100,
                )
            return self._pool

    async def _behind_a_pooler(self) -> bool:
        """A pooler gives out backend ids of its own making."""
        connection = await asyncpg.connect(self._url, statement_cache_size=0)
        try:
            return bool(connection.get_server_pid() != await connection.fetchval("select pg_backend_pid()"))
        finally:
            await connection.close()


@cache
def _statement(function: str, names: tuple[str, ...]) -> str:
    arguments = ", ".join(f"{name} => ${place}" for place, name in enumerate(names, start=1))
    return f"select public.{function}({arguments})"


def _encoded(value: Json) -> Json:
    """By pydantic's own encoder and parser, which every process has loaded: json takes three times as long."""
    return to_json(value, inf_nan_mode="constants").decode() if isinstance(value, (dict, list)) else value
