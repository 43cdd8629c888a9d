"""What tests of sessions share: a browser, and statements that they run in the database."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from sessions.browser import browser
from tollgate.database import Door


@pytest.fixture
async def client(door: Door) -> AsyncIterator[httpx.AsyncClient]:
    async with browser(door) as made:
        yield made


@pytest.fixture
def change(sql: Any, shared_database: str) -> Callable[..., Awaitable[Any]]:
    """Runs a statement in the database."""

    async def run(statement: str, *arguments: object) -> Any:
        return await sql(shared_database, statement, *arguments)

    return run
