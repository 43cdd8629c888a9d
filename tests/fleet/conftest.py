from collections.abc import AsyncIterator
from typing import Any

import pytest

from admin.api_client import ApiClient, admin_api
from gateway import Upstream
from people import Person
from tollgate.database import Door

FORGOTTEN = (
    "delete from tollgate.routes where upstream_id in (select id from tollgate.upstreams where host_id is not null)",
    "delete from tollgate.upstreams where host_id is not null",
    "update tollgate.hosts set state = 'retired'",
)
"""Other tests share the database."""
AGENT_KEY = "an-agent-key-of-the-tests-with-40-chars!"


@pytest.fixture
async def forgotten(sql: Any, shared_database: str) -> AsyncIterator[None]:
    yield
    for statement in FORGOTTEN:
        await sql(shared_database, statement)


@pytest.fixture
async def api(postgres_door: Door, sandbox: Upstream, forgotten: None) -> AsyncIterator[ApiClient]:
    """An operator, for tests that need one door only."""
    admin = Person(postgres_door, "admin")
    await admin.seed()
    async with admin_api(postgres_door, sandbox, admin, AGENT_KEY=AGENT_KEY, VAULT_KEY="a1" * 32) as made:
        yield made


@pytest.fixture
async def api_of_door(door: Door, sandbox: Upstream, forgotten: None) -> AsyncIterator[ApiClient]:
    """An operator, for tests of the way to the database."""
    admin = Person(door, "admin")
    await admin.seed()
    async with admin_api(door, sandbox, admin, AGENT_KEY=AGENT_KEY, VAULT_KEY="a1" * 32) as made:
        yield made
