"""The hash chains: no fork, no gap and no deadlock, however many write; and rows from before them."""

import asyncio
import json
from typing import Any

import asyncpg

from people import Person
from tollgate.credits import store
from tollgate.database.postgres import PostgresDoor
from tollgate.keys.authentication import console

FORGET_LINKS = """
set session_replication_role = replica;
update tollgate.transfers set chain = null;
update tollgate.orgs set chain_head = null;
delete from tollgate.event_links;
update tollgate.chain_starts
set position = (select max(position) from tollgate.transfers), started_at = clock_timestamp();
"""
RECORD = """select tollgate.record(
  row('system', null, null, null, null, null, null, 'tests', null, null, null, null, null)::tollgate.caller,
  'test.done', $1, $2)"""


async def faults(url: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return json.loads(await connection.fetchval("select public.tollgate_audit_books()"))["faults"]
    finally:
        await connection.close()


async def test_many_who_write_events_and_lock_orgs_in_any_order_make_one_chain(own_database: str, sql: Any) -> None:
    """Events are written before and after the locks that their transactions wait for."""
    await sql(
        own_database, "insert into tollgate.orgs (id, name) select 'org_' || i, 'Org' from generate_series(1, 3) i"
    )
    lock = "select from tollgate.orgs where id = $1 for no key update"

    async def write(writer: int) -> None:
        connection = await asyncpg.connect(own_database)
        for turn in range(10):
            async with connection.transaction():
                await connection.execute(RECORD, f"org_{writer % 3 + 1}", f"{writer} {turn} before")
                for org in sorted((f"org_{turn % 3 + 1}", f"org_{writer % 3 + 1}")):
                    await connection.execute(lock, org)
                await connection.execute(RECORD, None, f"{writer} {turn} after")
        await connection.close()

    await asyncio.gather(*(write(writer) for writer in range(8)))
    assert await sql(own_database, "select count(*) from tollgate.event_links") == 160
    assert await sql(own_database, "select max(position) from tollgate.event_links") == 160
    assert await faults(own_database) == []


async def test_an_event_is_linked_when_its_transaction_commits_and_else_not(own_database: str, sql: Any) -> None:
    first, second = await asyncpg.connect(own_database), await asyncpg.connect(own_database)
    transaction = first.transaction()
    await transaction.start()
    await first.execute(RECORD, None, "slow")
    async with asyncio.timeout(60):
        await second.execute(RECORD, None, "quick")  # waits for nobody
    undone = second.transaction()
    await undone.start()
    await second.execute(RECORD, None, "undone")
    await undone.rollback()
    await transaction.commit()
    targets = """select array_agg(a.target_id order by l.position)
    from tollgate.event_links l join tollgate.audit_events a on a.id = l.event_id"""
    assert await sql(own_database, targets) == ["quick", "slow"]
    assert await faults(own_database) == []
    await first.close()
    await second.close()


async def test_grants_at_once_make_one_chain_of_each_org(own_database: str, sql: Any) -> None:
    door = PostgresDoor(own_database, pool_size=8, deadline_seconds=30)
    people = [Person(door) for _ in range(3)]
    for person in people:
        await person.seed()
    operator = console(door, "tests")
    await asyncio.gather(
        *(
            store.grant(operator, person.org_id, 5, source="funding", reason="", reference=f"{person.number} {turn}")
            for turn in range(12)
            for person in people
        )
    )
    await door.close()
    assert await sql(own_database, "select count(chain) from tollgate.transfers") == 36
    assert await faults(own_database) == []


async def some_history(url: str) -> Person:
    door = PostgresDoor(url, pool_size=2, deadline_seconds=30)
    person = Person(door)
    await person.seed()
    for turn in range(3):
        await store.grant(
            console(door, "tests"), person.org_id, 5, source="funding", reason="", reference=f"{person.number} {turn}"
        )
    await door.close()
    return person


async def test_rows_from_before_the_chain_need_no_link(own_database: str, sql: Any) -> None:
    await some_history(own_database)
    connection = await asyncpg.connect(own_database)
    await connection.execute(FORGET_LINKS)
    await connection.close()
    assert await faults(own_database) == []
    await some_history(own_database)
    assert await sql(own_database, "select count(chain) from tollgate.transfers") == 3
    assert await faults(own_database) == []
    await sql(own_database, "alter table tollgate.transfers disable trigger user")
    await sql(own_database, "update tollgate.transfers set reason = 'other' where position = 4")
    changed = await sql(own_database, "select tollgate.transfer_id(4)")
    assert [fault["id"] for fault in await faults(own_database)] == [changed]
