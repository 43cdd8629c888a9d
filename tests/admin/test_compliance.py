"""GET /admin/compliance/report in each format."""

import csv
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from completions.paid import an_item
from gateway import BOTH_DOORS
from people import PEPPER, Person
from tollgate.app import create_app
from tollgate.core.errors import BadRequest
from tollgate.database import Door
from tollgate.database.postgres import PostgresDoor
from tollgate.settings import read

REPORT = "/admin/compliance/report"
Sql = Callable[..., Awaitable[Any]]


def bearing(person: Person) -> dict[str, str]:
    return {"authorization": f"Bearer {person.secret}"}


def over(door: Door) -> httpx.AsyncClient:
    app = create_app(read({"KEY_PEPPER": PEPPER}), door=door)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tollgate")


@pytest.fixture
async def client(door: Door) -> AsyncIterator[httpx.AsyncClient]:
    async with over(door) as made:
        yield made


def today(**more: Any) -> dict[str, Any]:
    return {"from": (datetime.now(UTC) - timedelta(days=1)).isoformat(), **more}


async def reported(client: httpx.AsyncClient, admin: Person, **query: Any) -> Any:
    answer = await client.get(REPORT, params=today(**query), headers=bearing(admin))
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture
async def alone(own_database: str) -> AsyncIterator[Door]:
    """With a database for the test alone, so that no other test changes the sums."""
    made = PostgresDoor(own_database, pool_size=2, deadline_seconds=30)
    yield made
    await made.close()


async def settled(door: Door, someone: Person, charge: int, cost: int) -> None:
    item = an_item(someone)
    assert "granted" in (await door.call("tollgate_admit", items=[item]))[item["id"]]
    ending = {"id": item["id"], "outcome": "settled", "charge_nanos": charge, "cost_nanos": cost}
    await door.call("tollgate_settle", items=[ending])


async def test_a_report_adds_up_to_what_was_done(alone: Door, own_database: str, sql: Sql) -> None:
    admin, someone, idle = Person(alone, "admin"), Person(alone), Person(alone, "admin")
    for each in (admin, someone, idle):
        await each.seed()
    operator = admin.at_the_door()
    for source, nanos in (("funding", 5_000_000_000), ("promotion", 1_000_000_000)):
        await operator.call(
            "tollgate_grant", org_id=someone.org_id, amount_nanos=nanos, source=source, reason="", reference=source
        )
    await settled(alone, someone, 105_000, 100_000)
    await settled(alone, someone, 10_500, 10_000)
    await operator.call("tollgate_set_key_state", key_id=someone.key_id, state="revoked")

    async with over(alone) as client:
        found = await reported(client, admin)
    assert found["keys"] | {"unused": None} == {
        "issued": 3, "rotated": 0, "disabled": 0, "revoked": 1, "usable": 2, "never_used": 1, "unused_90_days": 0,
        "unused": None,
    }  # fmt: skip
    assert [key["key_id"] for key in found["keys"]["unused"]] == [idle.key_id]
    assert idle.secret[:12] in found["keys"]["unused"][0]["masked_key"]
    done = {who["id"]: who["actions"] for who in found["people"]["done"]}
    assert done[admin.user_id] == {"credits.granted": 2, "key.revoked": 1}
    assert done[idle.user_id] == {}
    assert done["tests"] == {"key.created": 3, "org.created": 3, "user.created": 3}
    assert someone.user_id not in done
    assert found["people"]["admins"] == 2
    assert found["access"]["requests"] == 2
    (use,) = found["access"]["used"]
    assert (use["key_id"], use["requests"], use["charge_nanos"]) == (someone.key_id, 2, 115_500)
    assert found["money"] == {
        "in_nanos": 5_000_000_000, "in_credits": "5.00",
        "promotions_nanos": 1_000_000_000, "promotions_credits": "1.00",
        "written_off_nanos": 0, "written_off_credits": "0.00",
        "charged_nanos": 115_500, "charged_credits": "0.0001155",
        "refunded_nanos": 0, "refunded_credits": "0.00",
        "out_nanos": 110_000, "out_credits": "0.00011",
        "margin_nanos": 5_500, "margin_credits": "0.0000055",
    }  # fmt: skip
    assert (found["books"]["audited"], found["books"]["agree"], found["books"]["transfers"]) == (True, True, 4)


async def test_what_was_done_outside_its_time_is_not_in_it(alone: Door, own_database: str, sql: Sql) -> None:
    admin = Person(alone, "admin")
    await admin.seed()
    async with over(alone) as client:
        found = await reported(client, admin, **{"from": "2020-01-01T00:00:00Z", "to": "2020-06-01T00:00:00Z"})
    assert (found["from"], found["to"]) == ("2020-01-01T00:00:00.000Z", "2020-06-01T00:00:00.000Z")
    assert found["keys"]["issued"] == 0
    assert found["people"]["done"][0]["actions"] == {}
    assert found["money"]["in_nanos"] == 0


async def test_money_taken_back_and_refunds_lessen_what_came_in(alone: Door, own_database: str, sql: Sql) -> None:
    admin = Person(alone, "admin")
    await admin.seed()
    transfers = [("grant", "funding", "wallet", 100), ("adjustment", "wallet", "funding", 30),
                 ("refund", "revenue", "wallet", 7), ("adjustment", "wallet", "writeoff", 2)]  # fmt: skip
    for number, (kind, debit, credit, nanos) in enumerate(transfers):
        await sql(
            own_database,
            "insert into tollgate.transfers (org_id, debit, credit, amount_nanos, kind, reference, balance_after_nanos)"
            " values ($1, $2, $3, $4, $5, $6, 0)",
            *(admin.org_id, debit, credit, nanos, kind, str(number)),
        )
    async with over(alone) as client:
        found = await reported(client, admin)
    money = found["money"]
    assert (money["in_nanos"], money["refunded_nanos"], money["written_off_nanos"]) == (70, 7, -2)
    assert money["margin_nanos"] == -7
    assert found["books"]["agree"] is False
    assert found["books"]["fault_count"] == len(found["books"]["faults"]) >= 1
    assert "balance" in {fault["fault"] for fault in found["books"]["faults"]}


async def test_a_key_not_used_for_ninety_days_is_named(alone: Door, own_database: str, sql: Sql) -> None:
    admin, old, new, ended = Person(alone, "admin"), Person(alone), Person(alone), Person(alone)
    for each in (admin, old, new, ended):
        await each.seed()
    for each, days in ((old, 91), (new, 89), (ended, 91)):
        await sql(
            own_database,
            "update tollgate.api_keys set last_used_at = now() - make_interval(days => $2) where id = $1",
            each.key_id,
            days,
        )
    await sql(own_database, "update tollgate.api_keys set disabled_at = now() where id = $1", ended.key_id)
    async with over(alone) as client:
        keys = (await reported(client, admin))["keys"]
    assert [key["key_id"] for key in keys["unused"]] == [old.key_id]
    assert (keys["usable"], keys["never_used"], keys["unused_90_days"]) == (3, 0, 1)


async def test_large_books_are_read_only_when_asked_for(alone: Door, own_database: str, sql: Sql) -> None:
    admin = Person(alone, "admin")
    await admin.seed()
    await sql(own_database, "update pg_class set reltuples = 600000 where oid = 'tollgate.requests'::regclass")
    async with over(alone) as client:
        left_out = (await reported(client, admin))["books"]
        asked_for = (await reported(client, admin, books=True))["books"]
        unwanted = (await reported(client, admin, books=False))["books"]
    assert (left_out["audited"], left_out["agree"]) == (False, None)
    assert "python -m tollgate audit" in left_out["reason"]
    assert (asked_for["audited"], asked_for["agree"]) == (True, True)
    assert unwanted["audited"] is False


async def test_it_is_one_call(alone: Door) -> None:
    admin = Person(alone, "admin")
    await admin.seed()
    calls = []

    class Counting:
        async def call(self, function: str, **arguments: Any) -> Any:
            calls.append(function)
            return await alone.call(function, **arguments)

        async def close(self) -> None: ...

    async with over(Counting()) as client:
        await reported(client, admin)
    assert calls == ["tollgate_compliance_report"]


@BOTH_DOORS
async def test_each_form_comes_as_a_file_of_its_kind(client: httpx.AsyncClient, person: Any) -> None:
    admin = await person("admin")
    query = {"from": "2026-01-01T00:00:00Z", "to": "2026-02-01T00:00:00+02:00", "books": False}
    table = await client.get(REPORT, params=query | {"format": "csv"}, headers=bearing(admin))
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    assert table.headers["content-disposition"] == (
        'attachment; filename="tollgate-compliance-2026-01-01-2026-01-31.csv"'
    )
    lines = list(csv.reader(io.StringIO(table.text, newline="")))
    assert lines[:3] == [["section", "item", "field", "value"], ["report", "", "from", "2026-01-01T00:00:00.000Z"],
                         ["report", "", "to", "2026-01-31T22:00:00.000Z"]]  # fmt: skip
    page = await client.get(REPORT, params=query | {"format": "md"}, headers=bearing(admin))
    assert page.headers["content-type"] == "text/markdown; charset=utf-8"
    assert page.text.startswith("# Compliance report\n")
    assert "Not audited. The audit was left out." in page.text


async def test_no_form_shows_a_secret_or_a_digest(client: httpx.AsyncClient, person: Any) -> None:
    admin, someone = await person("admin"), await person()
    for form in ("json", "csv", "md"):
        answer = await client.get(REPORT, params=today(format=form, books=False), headers=bearing(admin))
        for secret in (admin.secret, someone.secret, someone.key["digest"]):
            assert secret not in answer.text


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({}, "from"),
        ({"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "to"),
        ({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "to"),
        ({"from": "2025-01-01T00:00:00Z", "to": "2026-01-02T00:00:01Z"}, "to"),
        ({"from": "2001-01-01T00:00:00Z"}, "to"),
        ({"from": "2026-13-01"}, "from"),
        ({"from": "2026-01-01T00:00:00Z", "format": "pdf"}, "format"),
        ({"from": "2026-01-01T00:00:00Z", "org_id": "org_1"}, "org_id"),
    ],
)
async def test_what_makes_no_sense_is_refused_by_name(
    client: httpx.AsyncClient, person: Any, query: dict[str, Any], param: str
) -> None:
    admin = await person("admin")
    answer = await client.get(REPORT, params=query, headers=bearing(admin))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    if param == "to":
        is_backwards = query.get("to", "9999") <= query["from"]
        told = "must be later than `from`" if is_backwards else "at most 366 days"
        assert told in answer.json()["error"]["message"]


async def test_the_database_bounds_the_span_as_well(alone: Door) -> None:
    admin = Person(alone, "admin")
    await admin.seed()
    with pytest.raises(BadRequest) as refused:
        await admin.at_the_door().call(
            "tollgate_compliance_report", since="2024-01-01T00:00:00Z", until="2026-01-01T00:00:00Z", books=False
        )
    assert (refused.value.param, refused.value.facts["most_days"]) == ("to", 366)


async def test_only_operators_may_ask(client: httpx.AsyncClient, person: Any) -> None:
    someone = await person()
    assert (await client.get(REPORT, params=today(), headers=bearing(someone))).status_code == 403
    assert (await client.get(REPORT)).status_code == 401
