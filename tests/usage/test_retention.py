"""Retention deletes old requests, and nothing that is still needed."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import asyncpg
import pytest

from completions.paid import an_item
from people import Person
from tollgate.completions import store as completions
from tollgate.credits import store as credits
from tollgate.database import Door
from tollgate.database.postgres import PostgresDoor
from tollgate.keys.authentication import console
from tollgate.usage import store
from usage import past
from usage.past import a_request

LONG_AGO = datetime.now(UTC).replace(minute=30) - timedelta(days=40)
DROP = "select public.tollgate_drop_old_requests(30, $1)"
REFUND = """
with paid as (
  update tollgate.orgs set balance_nanos = balance_nanos + $2 where id = $1 returning balance_nanos
)
insert into tollgate.transfers (org_id, debit, credit, amount_nanos, kind, reference, balance_after_nanos)
select $1, 'revenue', 'wallet', $2, 'refund', $3, p.balance_nanos from paid p
"""
AGE = f"""
alter table tollgate.transfers disable trigger user;
update tollgate.transfers set created_at = created_at - interval '40 days';
update tollgate.requests set created_at = created_at - interval '40 days', settled_at = settled_at - interval '40 days';
alter table tollgate.transfers enable trigger user;
{past.LINK_ANEW}
"""
"""Moves what has happened so far back in time, its charges too."""


@pytest.fixture
async def own_door(own_database: str) -> Any:
    door = PostgresDoor(own_database, pool_size=4, deadline_seconds=30.0)
    yield door
    await door.close()


async def dropped(door: Door, page_size: int = 1000) -> int:
    """Deletes all that is old enough, batch by batch."""
    count = 0
    more = True
    while more:
        batch = await store.drop_old_requests(door, 30, page_size)
        count += batch["requests"]
        more = batch["more"]
    return count


async def spent(door: Door, times: int) -> Person:
    """A person with paid calls."""
    person = Person(door)
    await person.seed()
    await credits.grant(
        console(door, "tests"), person.org_id, 10**9, source="funding", reason="", reference=person.org_id
    )
    items = [an_item(person) for _ in range(times)]
    await completions.admit(door, items)
    charge = {"outcome": "settled", "charge_nanos": 700, "cost_nanos": 600, "status": 200}
    await completions.settle(door, [{"id": item["id"], **charge} for item in items])
    return person


async def test_what_was_used_and_charged_stays_when_its_requests_go(
    own_database: str, own_door: Door, sql: Any
) -> None:
    person = await spent(own_door, 20)
    connection = await asyncpg.connect(own_database)
    await connection.execute(AGE)
    await connection.close()
    await past.roll_up(own_database)
    before = await sql(own_database, "select u from tollgate.usage_by('{}') u")
    assert await dropped(own_door, page_size=7) == 20
    assert await sql(own_database, "select count(*) from tollgate.requests") == 0
    assert await sql(own_database, "select u from tollgate.usage_by('{}') u") == before
    books = json.loads(await sql(own_database, "select public.tollgate_audit_books()"))
    assert books["faults"] == []
    noted = await sql(own_database, "select to_jsonb(d) from tollgate.dropped d")
    assert json.loads(noted) == {"org_id": person.org_id, "requests": 20, "charges": 20, "charge_nanos": 14000}


async def test_a_charge_that_nothing_explains_is_found_among_those_of_dropped_requests(
    own_database: str, own_door: Door, sql: Any
) -> None:
    person = await spent(own_door, 3)
    connection = await asyncpg.connect(own_database)
    await connection.execute(AGE)
    await past.roll_up(own_database)
    await dropped(own_door)
    await connection.execute("update tollgate.orgs set balance_nanos = balance_nanos - 9 where id = $1", person.org_id)
    await connection.execute(
        "insert into tollgate.transfers (org_id, debit, credit, amount_nanos, kind, reference, balance_after_nanos) "
        "select id, 'wallet', 'revenue', 9, 'charge', 'req_nobody_made', balance_nanos "
        "from tollgate.orgs where id = $1",
        person.org_id,
    )
    await connection.close()
    books = json.loads(await sql(own_database, "select public.tollgate_audit_books()"))
    assert [(fault["fault"], fault["id"]) for fault in books["faults"]] == [("dropped_charges", person.org_id)]


@pytest.mark.parametrize("of_whom", ["the charge's own org", "another org"])
async def test_a_refund_of_more_than_its_charge_is_found(
    own_database: str, own_door: Door, sql: Any, of_whom: str
) -> None:
    someone, other = await spent(own_door, 2), await spent(own_door, 1)
    within, beyond = json.loads(
        await sql(
            own_database,
            "select jsonb_agg(t order by t.position) from tollgate.transfers t where kind = 'charge' and org_id = $1",
            someone.org_id,
        )
    )
    mine = of_whom == "the charge's own org"
    for charge, number, amount, org_id in (
        (within, 1, within["amount_nanos"] - 1, someone.org_id),
        (within, 2, 1, someone.org_id),
        (beyond, 1, beyond["amount_nanos"], someone.org_id if mine else other.org_id),
        *([(beyond, 2, 1, someone.org_id)] if mine else []),
    ):
        await sql(own_database, REFUND, org_id, amount, f"{charge['reference']}/{number}")
    books = json.loads(await sql(own_database, "select public.tollgate_audit_books()"))
    refunds = [fault for fault in books["faults"] if fault["fault"] == "refund"]
    assert [fault["id"] for fault in refunds] == [beyond["reference"]]
    charged = beyond["amount_nanos"]
    assert refunds[0]["facts"] == {
        "charge_nanos": charged if mine else 0, "refunded_nanos": charged + 1 if mine else charged,
    }  # fmt: skip


async def test_only_what_has_ended_is_old_and_was_rolled_up_goes(own_database: str, own_door: Door, sql: Any) -> None:
    old, young = a_request(LONG_AGO), a_request()
    await past.keep(own_database, [old, a_request(LONG_AGO, **past.still_open()), young])
    assert await dropped(own_door) == 0  # nothing is rolled up yet
    await past.roll_up(own_database)
    assert await dropped(own_door) == 1
    left = await sql(own_database, "select array_agg(state || ' ' || id order by created_at) from tollgate.requests")
    assert [one.split()[0] for one in left] == ["held", "settled"]
    assert left[1].split()[1] == young["id"]


async def test_a_late_one_goes_when_it_has_ended_and_was_counted(own_database: str, own_door: Door, sql: Any) -> None:
    late = a_request(LONG_AGO, **past.still_open())
    await past.keep(own_database, [late])
    await past.roll_up(own_database)
    await sql(own_database, "update tollgate.requests set state = 'released', settled_at = now(), charge_nanos = 0")
    assert await dropped(own_door) == 0
    await past.roll_up(own_database)
    assert await dropped(own_door) == 1
    assert await sql(own_database, "select requests from tollgate.usage_by('{}')") == 1


async def test_answers_go_with_their_requests(own_database: str, own_door: Door, sql: Any) -> None:
    old, young = a_request(LONG_AGO), a_request()
    await past.keep(own_database, [old, young])
    for row in (old, young):
        await sql(
            own_database,
            "insert into tollgate.answers (org_id, idempotency_key, body_hash, request_id) values ($1, $2, '', $2)",
            row["org_id"], row["id"],
        )  # fmt: skip
    await past.roll_up(own_database)
    await dropped(own_door)
    assert await sql(own_database, "select array_agg(request_id) from tollgate.answers") == [young["id"]]


async def test_hours_are_whole_where_requests_were_dropped(own_database: str, own_door: Door, sql: Any) -> None:
    """So that adjacent periods count each request once."""
    rows = [a_request(LONG_AGO + timedelta(minutes=13 * number)) for number in range(60)]
    await past.keep(own_database, rows)
    await past.roll_up(own_database)
    await dropped(own_door)
    cuts = [LONG_AGO + timedelta(minutes=71 * number) for number in range(-1, 14)]
    count = "select requests from tollgate.usage_by('{}', $1, $2)"
    parts = [await sql(own_database, count, *pair) for pair in pairwise(cuts)]
    assert sum(parts) == 60 == await sql(own_database, count, None, None)


async def test_neither_admission_nor_settling_waits_for_it(own_database: str, own_door: Door, sql: Any) -> None:
    await past.keep(own_database, [a_request(LONG_AGO) for _ in range(50)])
    await past.roll_up(own_database)
    dropping = await asyncpg.connect(own_database)
    transaction = dropping.transaction()
    await transaction.start()
    assert json.loads(await dropping.fetchval(DROP, 30))["requests"] == 30
    async with asyncio.timeout(60):
        await spent(own_door, 5)
    await transaction.commit()
    await dropping.close()
    assert await dropped(own_door) == 20
    assert await sql(own_database, "select count(*) from tollgate.requests") == 5


async def test_three_who_drop_at_once_drop_everything_once(own_database: str, own_door: Door, sql: Any) -> None:
    await past.keep(own_database, [a_request(LONG_AGO) for _ in range(100)])
    await past.roll_up(own_database)
    assert sum(await asyncio.gather(*(dropped(own_door, 9) for _ in range(3)))) == 100
    assert await sql(own_database, "select requests from tollgate.dropped") == 100
