"""A settlement that comes after its request was ended: what was a guess is put right, once, and the books agree."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from completions.paid import HOLD, admit, an_item, audited, released, settle, settled
from people import Person
from tollgate.credits import store as credits
from tollgate.database import Door
from tollgate.database.postgres import PostgresDoor
from tollgate.keys import store as keys
from tollgate.keys.authentication import console

Customer = Callable[..., Any]
Sql = Callable[..., Any]

CREDIT = 1_000_000_000
GUESS = 50_000


class Ledger:
    """What is left of a request."""

    def __init__(self, url: str, sql: Sql) -> None:
        self._url = url
        self._sql = sql

    async def moved(self, asked: dict[str, Any]) -> list[tuple[str, str, int]]:
        """Kind, reference after the id, and amount, of its transfers."""
        found = await self._sql(
            self._url,
            "select coalesce(json_agg(json_build_array(kind, replace(reference, $1, ''), amount_nanos)"
            " order by position), '[]') from tollgate.transfers where reference like $1 || '%'",
            asked["id"],
        )
        return [tuple(one) for one in json.loads(found)]

    async def row(self, asked: dict[str, Any]) -> tuple[str, int, bool]:
        found = await self._sql(
            self._url,
            "select json_build_array(state, charge_nanos, estimated) from tollgate.requests where id = $1",
            asked["id"],
        )
        return tuple(json.loads(found))

    async def events(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        found = await self._sql(
            self._url,
            "select coalesce(json_agg(details order by occurred_at), '[]')"
            " from tollgate.audit_events where target_id = $1 and action = 'settlement.late'",
            asked["id"],
        )
        return list(json.loads(found))

    async def balance(self, someone: Person) -> int:
        return int(await self._sql(self._url, "select balance_nanos from tollgate.orgs where id = $1", someone.org_id))


@pytest.fixture
def ledger(shared_database: str, sql: Sql) -> Ledger:
    return Ledger(shared_database, sql)


def guessed(asked: dict[str, Any], charge: int = GUESS, **more: Any) -> dict[str, Any]:
    """As a sweeper ends what nobody can tell it about."""
    ending = {"id": asked["id"], "outcome": "settled", "charge_nanos": charge, "cost_nanos": charge}
    return ending | {"estimated": True} | more


RELEASED: dict[str, Any] = {"outcome": "released"}


@pytest.mark.parametrize(
    ("earlier", "said", "charge", "moved"),
    [
        ({}, 20_000, 20_000, [("charge", "", GUESS), ("refund", ":late", 30_000)]),
        ({}, 0, 0, [("charge", "", GUESS), ("refund", ":late", GUESS)]),
        ({}, 70_000, 70_000, [("charge", "", GUESS), ("charge", ":late", 20_000)]),
        ({}, 900_000, HOLD, [("charge", "", GUESS), ("charge", ":late", HOLD - GUESS)]),
        ({"charge_nanos": 0}, 70_000, 70_000, [("charge", "", 70_000)]),
        (RELEASED, 70_000, 70_000, [("charge", "", 70_000)]),
        (RELEASED, 900_000, HOLD, [("charge", "", HOLD)]),
    ],
)
async def test_an_exact_settlement_corrects_a_guess_within_the_hold_once(
    door: Door,
    customer: Customer,
    ledger: Ledger,
    earlier: dict[str, Any],
    said: int,
    charge: int,
    moved: list[tuple[str, str, int]],
) -> None:
    someone = await customer()
    asked = an_item(someone)
    await admit(door, asked)
    (ended,) = await settle(door, released(asked) if earlier is RELEASED else guessed(asked, **earlier))
    before = ended["settled"]["charge_nanos"]
    for _ in range(2):
        (late,) = await settle(door, settled(asked, said))
        assert late["settled"] == {
            "state": "settled", "charge_nanos": charge, "balance_nanos": CREDIT - charge, "again": True,
        }  # fmt: skip
    assert await ledger.moved(asked) == moved
    assert await ledger.row(asked) == ("settled", charge, False)
    assert await ledger.balance(someone) == CREDIT - charge
    assert await ledger.events(asked) == [
        {
            "state_before": "released" if earlier is RELEASED else "settled",
            "charge_before_nanos": before,
            "charge_nanos": said,
            "corrected_by_nanos": charge - before,
        }
    ]


async def test_a_release_that_comes_late_gives_a_guess_back(door: Door, customer: Customer, ledger: Ledger) -> None:
    someone = await customer()
    asked = an_item(someone)
    await admit(door, asked)
    await settle(door, guessed(asked))
    await settle(door, released(asked), released(asked))
    assert await ledger.moved(asked) == [("charge", "", GUESS), ("refund", ":late", GUESS)]
    assert await ledger.balance(someone) == CREDIT


@pytest.mark.parametrize(
    ("earlier", "late"),
    [
        ({"estimated": False}, {}),
        ({}, {"estimated": True}),
        ({}, {"quarantined": True}),
        ({"estimated": False, "quarantined": True}, {}),
    ],
    ids=["after an exact one", "another guess", "nonsense", "after nonsense"],
)
async def test_any_other_that_differs_is_recorded_and_changes_nothing(
    door: Door, customer: Customer, ledger: Ledger, earlier: dict[str, Any], late: dict[str, Any]
) -> None:
    someone = await customer()
    asked = an_item(someone)
    await admit(door, asked)
    await settle(door, guessed(asked, **earlier))
    for _ in range(3):
        (told,) = await settle(door, settled(asked, 20_000, **late))
        assert told["settled"]["charge_nanos"] == GUESS
    assert await ledger.moved(asked) == [("charge", "", GUESS)]
    (event,) = await ledger.events(asked)
    assert (event["charge_before_nanos"], event["charge_nanos"], event["corrected_by_nanos"]) == (GUESS, 20_000, 0)


async def test_what_agrees_with_the_guess_is_no_event(door: Door, customer: Customer, ledger: Ledger) -> None:
    someone = await customer()
    asked = an_item(someone)
    await admit(door, asked)
    await settle(door, guessed(asked), guessed(asked))
    await settle(door, settled(asked, GUESS))
    await settle(door, {"id": asked["id"], "outcome": "unsettled"})
    assert await ledger.events(asked) == []


async def test_many_that_come_late_at_once_correct_once(door: Door, customer: Customer, ledger: Ledger) -> None:
    someone = await customer()
    asked = [an_item(someone) for _ in range(4)]
    await admit(door, *asked)
    await settle(door, *(guessed(one) for one in asked))
    batch = [settled(one, charge) for one, charge in zip(asked, (10_000, 20_000, 60_000, 70_000), strict=True)]
    fresh = an_item(someone)
    await admit(door, fresh)
    await asyncio.gather(*(settle(door, *batch, settled(fresh, 7)) for _ in range(6)))
    assert await ledger.balance(someone) == CREDIT - 160_000 - 7


async def test_what_an_operator_gave_back_is_not_given_back_again(
    door: Door, customer: Customer, person: Any, ledger: Ledger
) -> None:
    someone, admin = await customer(), await person("admin")
    asked = an_item(someone)
    await admit(door, asked)
    await settle(door, guessed(asked))
    await refund(admin, asked, 40_000)
    await settle(door, settled(asked, 20_000))
    assert (await ledger.moved(asked))[-1] == ("refund", ":late", 10_000)
    with pytest.raises(Exception, match="can still be refunded"):
        await refund(admin, asked, 1)
    assert await ledger.balance(someone) == CREDIT


async def test_an_operator_gives_back_no_more_than_what_is_left_of_a_corrected_charge(
    door: Door, customer: Customer, person: Any, ledger: Ledger
) -> None:
    someone, admin = await customer(), await person("admin")
    asked = an_item(someone)
    await admit(door, asked)
    await settle(door, guessed(asked))
    await settle(door, settled(asked, 70_000))
    await refund(admin, asked, None)
    assert (await ledger.moved(asked))[-1] == ("refund", "/1", 70_000)
    assert await ledger.balance(someone) == CREDIT


async def refund(admin: Person, asked: dict[str, Any], nanos: int | None) -> None:
    operation = {"request_id": asked["id"], "amount_nanos": nanos, "reason": "r", "idempotency_key": asked["id"]}
    if nanos == 1:
        operation["idempotency_key"] += "-2"
    await credits.refund_charge(admin.at_the_door(), operation)


async def test_a_key_s_budget_and_the_windows_are_corrected_too(
    door: Door, customer: Customer, shared_database: str, sql: Sql
) -> None:
    someone = await customer()
    terms = {"budget_nanos": CREDIT, "budget_reset": "never", "max_concurrent_requests": 3}
    await keys.change_key(console(door, "tests"), someone.key_id, terms)
    asked = an_item(someone)
    await admit(door, asked)
    await settle(door, guessed(asked))
    await settle(door, settled(asked, 20_000))  # 10 tokens in, 20 out
    found = await sql(
        shared_database,
        "select json_build_array(k.budget_spent_nanos, k.tokens_used_in_all, k.open_requests,"
        " (o.counters).day_tokens + (o.counters).day_tokens_before)"
        " from tollgate.api_keys k join tollgate.orgs o on o.id = k.org_id where k.id = $1",
        someone.key_id,
    )
    assert json.loads(found) == [20_000, 30, 0, 30]


@pytest.mark.parametrize("rolled_up", [False, True])
async def test_usage_and_the_report_tell_of_the_corrected_charge(own_database: str, sql: Sql, rolled_up: bool) -> None:
    """Whether or not the request was rolled up before."""
    await sql(
        own_database,
        """
        insert into tollgate.orgs (id, name, balance_nanos, held_nanos, open_requests) values ('org_a', 'A', 9, 900, 1);
        """,
    )
    await sql(
        own_database,
        """
        with request as (
          insert into tollgate.requests (
            id, org_id, key_id, user_id, state, endpoint, model, hold_nanos, markup_ppm, output_bound, reserved_tokens,
            created_at, expires_at
          )
          values (
            'req_a', 'org_a', 'key_a', 'usr_a', 'held', 'chat', 'm', 900, 0, 1, 1, now() - interval '3 hours', now()
          )
        )
        insert into tollgate.holds (request_id, next_sweep_at) values ('req_a', now())
        """,
    )
    settle_one = "select public.tollgate_settle($1)"
    await sql(own_database, settle_one, json.dumps([guessed({"id": "req_a"}, 500)]))
    if rolled_up:
        await sql(own_database, "select tollgate.roll_up(now() - interval '1 hour', 100)")
    details = {"prompt_tokens_details": {"cached_tokens": 7}, "completion_tokens_details": {"reasoning_tokens": 9}}
    await sql(own_database, settle_one, json.dumps([settled({"id": "req_a"}, 200) | {"usage": details}]))
    if not rolled_up:
        await sql(own_database, "select tollgate.roll_up(now() - interval '1 hour', 100)")
    used = (
        "select json_agg(json_build_array(t.requests, t.estimated, t.prompt_tokens, t.completion_tokens,"
        " t.charge_nanos, t.cost_nanos, t.cached_tokens, t.reasoning_tokens)) from tollgate.tallies t"
    )
    assert json.loads(await sql(own_database, used)) == [[1, 0, 10, 20, 200, 190, 7, 9]] * 8
    report = "select tollgate.report_on_money(now() - interval '1 day', now() + interval '1 day')"
    money = json.loads(await sql(own_database, report))
    assert (money["charged_nanos"], money["refunded_nanos"], money["margin_nanos"]) == (200, 0, 10)


async def test_the_books_agree_when_corrected_requests_are_dropped(own_database: str, sql: Sql) -> None:
    door = PostgresDoor(own_database, pool_size=2, deadline_seconds=30)
    someone = Person(door)
    await someone.seed()
    await sql(own_database, "update tollgate.orgs set plan_id = 'enterprise' where id = $1", someone.org_id)
    granter = console(door, "tests")
    await credits.grant(granter, someone.org_id, CREDIT, source="funding", reason="", reference=someone.org_id)
    asked = [an_item(someone) for _ in range(3)]
    await admit(door, *asked)
    await settle(door, *(guessed(one) for one in asked))
    await settle(door, *(settled(one, charge) for one, charge in zip(asked, (0, 10_000, 90_000), strict=True)))
    await sql(own_database, "update tollgate.requests set created_at = now() - interval '40 days'")
    await sql(own_database, "select tollgate.roll_up_again(now() - interval '41 days')")
    rolled = 0
    async with asyncio.timeout(60):  # transactions of other tests, which began earlier, hold rolling up back
        while rolled < len(asked):
            rolled += (await door.call("tollgate_roll_up_usage", page_size=10_000))["requests"]
    await sql(own_database, "update tollgate.rolled set rolled_until = now() - interval '30 days'")
    await door.call("tollgate_drop_old_requests", older_than_days=35, page_size=1000)
    assert await sql(own_database, "select count(*) from tollgate.requests") == 0
    await audited(door)
    await door.close()


async def test_the_audit_names_a_correction_that_does_not_fit(own_database: str, sql: Sql) -> None:
    await sql(own_database, "insert into tollgate.orgs (id, name, balance_nanos) values ('org_a', 'A', -5)")
    await sql(
        own_database,
        """
        with request as (
          insert into tollgate.requests (
            id, org_id, key_id, user_id, state, endpoint, model, hold_nanos, charge_nanos, markup_ppm, output_bound,
            reserved_tokens, expires_at, settled_at
          )
          values ('req_a', 'org_a', 'key_a', 'usr_a', 'settled', 'chat', 'm', 9, 5, 0, 1, 1, now(), now())
        )
        insert into tollgate.transfers (org_id, debit, credit, amount_nanos, kind, reference, balance_after_nanos)
        values ('org_a', 'wallet', 'revenue', 5, 'charge', 'req_a', -5)
        """,
    )
    audit = "select (public.tollgate_audit_books() -> 'faults')::text"
    assert await sql(own_database, audit) == "[]"
    await sql(
        own_database,
        "insert into tollgate.transfers (org_id, debit, credit, amount_nanos, kind, reference, balance_after_nanos)"
        " values ('org_a', 'revenue', 'wallet', 2, 'refund', 'req_a:late', -3)",
    )
    faults = json.loads(await sql(own_database, audit))
    assert sorted(fault["fault"] for fault in faults) == ["audit_event", "balance", "charge"]
