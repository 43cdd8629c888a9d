"""The ledger in the database, through both doors."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway import BOTH_DOORS
from people import refused
from tollgate.core.errors import BadRequest, IdempotencyKeyReused, NotFound, PermissionDenied
from tollgate.credits import store
from tollgate.database import Door
from tollgate.keys.authentication import console

pytestmark = BOTH_DOORS

BOOKS = """
select coalesce(bool_and(o.balance_nanos = t.balance and o.balance_nanos = t.last), false)
from tollgate.orgs o, lateral (
  select sum(case when credit = 'wallet' then amount_nanos else -amount_nanos end) as balance,
         (array_agg(balance_after_nanos order by position desc))[1] as last
  from tollgate.transfers where org_id = o.id
) t
where o.id = $1
"""


async def grant(door: Door, org_id: str, nanos: Any, reference: str, source: str = "funding") -> Any:
    return await store.grant(door, org_id, nanos, source=source, reason="of the tests", reference=reference)


async def test_a_grant_is_a_transfer_and_the_balance(
    person: Any, shared_database: str, sql: Callable[..., Any]
) -> None:
    someone = await person()
    operator = console(someone.door, "tests")
    first = await grant(operator, someone.org_id, 5_000_000_000, f"{someone.number}-1")
    second = await grant(operator, someone.org_id, 1, f"{someone.number}-2", source="promotion")
    assert (first["created"], first["balance_nanos"]) == (True, 5_000_000_000)
    assert (second["created"], second["balance_nanos"]) == (True, 5_000_000_001)
    assert (await store.balance(someone.at_the_door()))["balance_nanos"] == 5_000_000_001
    assert await sql(shared_database, BOOKS, someone.org_id)


async def test_a_repeated_grant_moves_money_once(person: Any, shared_database: str, sql: Callable[..., Any]) -> None:
    someone = await person()
    operator = console(someone.door, "tests")
    answers = await asyncio.gather(*(grant(operator, someone.org_id, 7, someone.number) for _ in range(8)))
    assert sorted(answer["created"] for answer in answers) == [False] * 7 + [True]
    assert len({answer["transfer_id"] for answer in answers}) == 1
    assert (await store.balance(someone.at_the_door()))["balance_nanos"] == 7
    assert await sql(shared_database, BOOKS, someone.org_id)


async def test_grants_at_once_lose_nothing(person: Any, shared_database: str, sql: Callable[..., Any]) -> None:
    someone = await person()
    operator = console(someone.door, "tests")
    await asyncio.gather(*(grant(operator, someone.org_id, 3, f"{someone.number}-{turn}") for turn in range(40)))
    assert (await store.balance(someone.at_the_door()))["balance_nanos"] == 120
    assert await sql(shared_database, BOOKS, someone.org_id)


@pytest.mark.parametrize("change", [{"nanos": 8}, {"source": "promotion"}])
async def test_a_reference_names_one_grant(person: Any, change: dict[str, Any]) -> None:
    someone = await person()
    operator = console(someone.door, "tests")
    await grant(operator, someone.org_id, 7, someone.number)
    again = {"org_id": someone.org_id, "nanos": 7, "reference": someone.number, **change}
    assert isinstance(await refused(grant(operator, **again)), IdempotencyKeyReused)
    assert (await store.balance(someone.at_the_door()))["balance_nanos"] == 7


async def test_two_orgs_cannot_share_a_reference(person: Any) -> None:
    people = [await person() for _ in range(4)]
    operator = console(people[0].door, "tests")
    granted = await asyncio.gather(
        *(grant(operator, someone.org_id, 7, people[0].number) for someone in people), return_exceptions=True
    )
    assert sorted(type(answer).__name__ for answer in granted) == ["IdempotencyKeyReused"] * 3 + ["dict"]
    balances = [(await store.balance(someone.at_the_door()))["balance_nanos"] for someone in people]
    assert sum(balances) == 7


@pytest.mark.parametrize("nanos", [0, -1, 10**17 + 1, None])
async def test_an_amount_that_makes_no_sense_is_refused(person: Any, nanos: int | None) -> None:
    someone = await person()
    error = await refused(grant(console(someone.door, "tests"), someone.org_id, nanos, someone.number))
    assert isinstance(error, BadRequest)
    assert error.param == "amount_nanos"
    assert (await store.balance(someone.at_the_door()))["balance_nanos"] == 0


async def test_credits_come_only_from_known_accounts(person: Any) -> None:
    someone = await person()
    error = await refused(grant(console(someone.door, "tests"), someone.org_id, 1, someone.number, source="revenue"))
    assert error.param == "source"


async def test_an_org_that_is_not_there_gets_nothing(door: Door) -> None:
    assert isinstance(await refused(grant(console(door, "tests"), "org_missing", 1, "reference")), NotFound)


async def test_a_member_grants_nothing(person: Any) -> None:
    someone = await person()
    error = await refused(grant(someone.at_the_door(), someone.org_id, 1, someone.number))
    assert isinstance(error, PermissionDenied)
