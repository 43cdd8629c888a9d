"""The direct door behind PgBouncer in transaction mode."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from conftest import DEADLINE_SECONDS
from servers.pgbouncer import PROGRAM, pgbouncer
from servers.postgres import Cluster
from tollgate.core.errors import NotFound
from tollgate.database import Door, migrations
from tollgate.database.postgres import PostgresDoor

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="PgBouncer is not installed (Debian: apt-get install pgbouncer)"
)


@pytest.fixture
async def pooled(postgres: Cluster, shared_database: str, tmp_path: Path) -> AsyncIterator[Door]:
    with pgbouncer(postgres, tmp_path / "pgbouncer") as bouncer:
        url = bouncer.url(shared_database.rsplit("/", 1)[1])
        door = PostgresDoor(url, pool_size=20, deadline_seconds=DEADLINE_SECONDS)
        yield door
        await door.close()


async def test_many_calls_over_two_server_connections_are_all_answered(pooled: Door) -> None:
    async def client(number: int) -> None:
        for turn in range(25):
            sent = {"words": str(number), "number": turn, "yes": True, "document": {"turn": turn}, "list": []}
            assert await pooled.call("tollgate_test_echo", **sent) == sent

    await asyncio.gather(*(client(number) for number in range(20)))


async def test_refusals_arrive_through_a_pooler(pooled: Door) -> None:
    for _ in range(10):
        with pytest.raises(NotFound):
            await pooled.call("tollgate_test_refuse", status=404, code="not_found", facts={})


async def test_migrations_run_through_a_pooler(postgres: Cluster, bare_database: str, tmp_path: Path) -> None:
    with pgbouncer(postgres, tmp_path / "pgbouncer") as bouncer:
        url = bouncer.url(bare_database.rsplit("/", 1)[1])
        assert [done.version for done in await migrations.migrate(url)] == [one.version for one in migrations.shipped()]
        assert await migrations.migrate(url) == []
