"""The migration that begins to count open requests counts those that are there, and those that come while it runs."""

import asyncio
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from completions.paid import an_item, eventually, settled
from people import Person
from tollgate.database import migrations
from tollgate.database.postgres import PostgresDoor

BEFORE = "20261121002100"
COUNTED = "select open_requests from tollgate.orgs where id = $1"
WAITING = """
select count(*) from pg_stat_activity
where datname = current_database() and wait_event_type = 'Lock' and query like $1
"""

Sql = Callable[..., Any]
Migrate = Callable[[], Any]


@pytest.fixture
async def earlier(bare_database: str, monkeypatch: pytest.MonkeyPatch, sql: Sql) -> tuple[Person, Migrate]:
    """Someone in a database as it was before, and what migrates it from there, however long a lock takes."""
    shipped = migrations.shipped()
    monkeypatch.setattr(migrations, "shipped", lambda: [one for one in shipped if one.version <= BEFORE])
    await migrations.migrate(bare_database)
    patient = [dataclasses.replace(one, sql=one.sql.replace("'1s'", "'30s'")) for one in shipped]
    monkeypatch.setattr(migrations, "shipped", lambda: patient)
    door = PostgresDoor(bare_database, pool_size=1, deadline_seconds=30)
    someone = Person(door)
    await someone.seed()
    await door.close()
    await sql(bare_database, "update tollgate.orgs set plan_id = 'enterprise' where id = $1", someone.org_id)
    return someone, lambda: migrations.migrate(bare_database)


def free(someone: Person) -> dict[str, Any]:
    """A request that needs no credits."""
    return an_item(someone, fixed_nanos="0", output_nanos="0")


async def ask(connection: asyncpg.Connection, function: str, item: dict[str, Any]) -> dict[str, Any]:
    answer = await connection.fetchval(f"select public.tollgate_{function}($1)", json.dumps([item]))
    told: dict[str, Any] = json.loads(answer)[item["id"]]
    assert "refusal" not in told, told
    return told


async def test_what_was_open_before_is_counted(earlier: tuple[Person, Migrate], bare_database: str, sql: Sql) -> None:
    someone, migrate = earlier
    connection = await asyncpg.connect(bare_database)
    asked = [free(someone) for _ in range(4)]
    for one in asked:
        await ask(connection, "admit", one)
    await ask(connection, "settle", {"id": asked[0]["id"], "outcome": "unsettled"})
    await ask(connection, "settle", settled(asked[1], 0))
    await migrate()
    assert await sql(bare_database, COUNTED, someone.org_id) == 3
    await ask(connection, "settle", settled(asked[0], 0))
    await ask(connection, "admit", free(someone))
    assert await sql(bare_database, COUNTED, someone.org_id) == 3
    await connection.close()
    assert json.loads(await sql(bare_database, "select public.tollgate_audit_books()"))["faults"] == []


async def test_a_call_that_waits_for_the_migration_with_the_function_as_it_was_is_counted_too(
    earlier: tuple[Person, Migrate], bare_database: str, sql: Sql
) -> None:
    someone, migrate = earlier
    callers = [await asyncpg.connect(bare_database) for _ in range(2)]
    running = free(someone)
    for caller in callers:  # so that each has the old functions at hand
        one = free(someone)
        await ask(caller, "admit", one)
        await ask(caller, "settle", settled(one, 0))
    await ask(callers[0], "admit", running)

    busy = await asyncpg.connect(bare_database)
    async with busy.transaction():
        await busy.execute("select from tollgate.orgs")
        migrating = asyncio.create_task(migrate())

        async def waits(query: str, many: int = 1) -> bool:
            return bool(await sql(bare_database, WAITING, query) == many)

        await eventually(lambda: waits("%max_concurrent_requests%"))
        calls = [
            asyncio.create_task(ask(callers[0], "admit", free(someone))),
            asyncio.create_task(ask(callers[1], "settle", settled(running, 0))),
        ]
        await eventually(lambda: waits("select public.tollgate_%", 2))
    await asyncio.gather(*calls)
    await migrating
    assert await sql(bare_database, COUNTED, someone.org_id) == 1
    assert json.loads(await sql(bare_database, "select public.tollgate_audit_books()"))["faults"] == []
    for connection in (busy, *callers):
        await connection.close()
