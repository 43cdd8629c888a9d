"""A database with rules of its own for each test, since a round looks at all of it."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from alerts.watch import Watch
from conftest import DEADLINE_SECONDS
from tollgate.database.postgres import PostgresDoor


@pytest.fixture
async def own_door(own_database: str) -> AsyncIterator[PostgresDoor]:
    made = PostgresDoor(own_database, pool_size=4, deadline_seconds=DEADLINE_SECONDS)
    yield made
    await made.close()


@pytest.fixture
async def watch(own_database: str, own_door: PostgresDoor) -> AsyncIterator[Watch]:
    connection = await asyncpg.connect(own_database)
    try:
        yield Watch(own_door, connection)
    finally:
        await connection.close()
