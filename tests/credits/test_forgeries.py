"""Forgeries by someone who can write past the triggers, and how the audit finds them.

Each forgery is as careful as the tables allow, except for the hash chains of a later head.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from completions.test_admission import item as an_item
from people import Person
from tollgate.completions import store as completions
from tollgate.credits import store
from tollgate.database.postgres import PostgresDoor
from tollgate.keys.authentication import console
from usage import past

CAPS = {"grant_nanos": 10**12, "day_nanos": 10**12}
PAST_THE_TRIGGERS = "set session_replication_role = replica"
ANSWERED = {"upstream": "openrouter", "generation_id": "gen-1", "usage": {"cost": "0.000001"}, "status": 200}

Fault = tuple[str, str]


@dataclass
class Books:
    """Two orgs: one with a promotion by the console, one with a grant by an operator, a refund and four charges."""

    url: str
    payer: Person
    other: Person
    requests: list[str]
    grants: list[str]
    refund: str
    next_transfer: str
    """The id of the one after all these."""

    async def forge(self, *statements: str) -> None:
        names = {
            "payer": self.payer.org_id,
            "other": self.other.org_id,
            "request": self.requests[-1],
            "granted": self.grants[0],
            "promoted": self.grants[1],
        }
        connection = await asyncpg.connect(self.url)
        async with connection.transaction():
            await connection.execute(PAST_THE_TRIGGERS)
            for statement in statements:
                await connection.execute(statement.format(**names))
        await connection.close()

    async def ask(self, statement: str) -> Any:
        connection = await asyncpg.connect(self.url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    async def faults(self) -> list[Fault]:
        books = json.loads(await self.ask("select public.tollgate_audit_books()"))
        assert books["fault_count"] == len(books["faults"])
        return sorted((fault["fault"], fault["id"]) for fault in books["faults"])


@pytest.fixture
async def books(own_database: str) -> AsyncIterator[Books]:
    door = PostgresDoor(own_database, pool_size=2, deadline_seconds=30.0)
    admin, payer, other = Person(door, "admin"), Person(door), Person(door)
    for person in (admin, payer, other):
        await person.seed()
    operation = {
        "org_id": payer.org_id,
        "amount_nanos": 10**9,
        "source": "funding",
        "reason": "",
        "idempotency_key": "1",
    }
    granted = await store.grant_credits(admin.at_the_door(), operation, CAPS)
    promoted = await store.grant(
        console(door, "tests"), other.org_id, 10**9, source="promotion", reason="", reference="other"
    )
    items = [an_item(payer, id=f"req_{number}00000") for number in range(4)]
    await completions.admit(door, items)
    ending = {"outcome": "settled", "charge_nanos": 1050, "cost_nanos": 1000, **ANSWERED}
    await completions.settle(door, [{"id": one["id"], **ending} for one in items])
    refund = {"request_id": items[0]["id"], "amount_nanos": 5, "reason": "", "idempotency_key": "2"}
    refunded = await store.refund_charge(admin.at_the_door(), refund)
    made = Books(
        own_database,
        payer,
        other,
        requests=[one["id"] for one in items],
        grants=[granted["id"], promoted["transfer_id"]],
        refund=refunded["id"],
        next_transfer="",
    )
    made.next_transfer = await made.ask("select tollgate.transfer_id(max(position) + 1) from tollgate.transfers")
    assert await made.faults() == []
    yield made
    await door.close()


GRANT = """insert into tollgate.transfers (org_id, debit, credit, amount_nanos, kind, reference, balance_after_nanos)
select id, 'funding', 'wallet', 7, 'grant', 'forged', balance_nanos + 7 from tollgate.orgs where id = '{payer}'"""
MORE = "update tollgate.orgs set balance_nanos = balance_nanos + 7 where id = '{payer}'"
ERASED = (
    "delete from tollgate.transfers where kind = 'charge' and reference = '{request}'",
    "update tollgate.transfers t set balance_after_nanos = balance_after_nanos + 1050 "
    "where t.org_id = '{payer}' and t.kind = 'refund'",
    "update tollgate.orgs set balance_nanos = balance_nanos + 1050 where id = '{payer}'",
)

FORGERIES: dict[str, tuple[tuple[str, ...], Callable[[Books], set[Fault]]]] = {
    "a grant without its origin": (
        (GRANT, MORE),
        lambda b: {("audit_event", b.next_transfer), ("chain", b.next_transfer)},
    ),
    "a request in another org": (
        ("update tollgate.requests set org_id = '{other}' where id = '{request}'",),
        lambda b: {("charge", b.requests[-1])},
    ),
    "a charge erased, its request at nothing": (
        (*ERASED, "update tollgate.requests set charge_nanos = 0 where id = '{request}'"),
        lambda b: {("cost", b.requests[-1])},
    ),
    "a charge erased, its request at null": (
        (*ERASED, "update tollgate.requests set charge_nanos = null where id = '{request}'"),
        lambda b: {("charge", b.requests[-1])},
    ),
    "a charge erased, its request released": (
        (*ERASED, "update tollgate.requests set charge_nanos = 0, state = 'released' where id = '{request}'"),
        lambda b: {("cost", b.requests[-1])},
    ),
    "a charge erased, its request without a cost": (
        (
            *ERASED,
            "update tollgate.requests set charge_nanos = 0, cost_nanos = 0, usage = null where id = '{request}'",
        ),
        lambda b: {("chain", b.refund)},
    ),
    "a cost changed": (
        ("update tollgate.requests set cost_nanos = 10 where id = '{request}'",),
        lambda b: {("cost", b.requests[-1])},
    ),
    "a cost and its charge changed": (
        (
            "update tollgate.requests set cost_nanos = 900, charge_nanos = 945 where id = '{request}'",
            "update tollgate.transfers set amount_nanos = 945, balance_after_nanos = balance_after_nanos + 105 "
            "where reference = '{request}'",
            ERASED[1].replace("1050", "105"),
            ERASED[2].replace("1050", "105"),
        ),
        lambda b: {("cost", b.requests[-1])},
    ),
    "funding turned into promotion": (
        ("update tollgate.transfers set debit = 'promotion' where tollgate.transfer_id(position) = '{granted}'",),
        lambda b: {("audit_event", b.grants[0]), ("operation", b.grants[0]), ("chain", b.grants[0])},
    ),
    "an org deleted with its balance": (
        ("delete from tollgate.orgs where id = '{payer}'",),
        lambda b: {("org", b.payer.org_id)},
    ),
    "an org deleted with its ledger": (
        (
            "delete from tollgate.orgs where id = '{other}'",
            "delete from tollgate.users where org_id = '{other}'",
            "delete from tollgate.api_keys where org_id = '{other}'",
            "delete from tollgate.transfers where org_id = '{other}'",
        ),
        lambda b: {("audit_event", b.grants[1])},
    ),
    "the end of a ledger cut off": (
        (
            "delete from tollgate.transfers where tollgate.transfer_id(position) = '{promoted}'",
            "update tollgate.orgs set balance_nanos = 0 where id = '{other}'",
        ),
        lambda b: {("chain", b.other.org_id)},
    ),
    "the audit trail wiped": (
        ("truncate tollgate.audit_events",),
        lambda b: {("audit_event", one) for one in (*b.grants, b.refund)},
    ),
    "the audit trail wiped with its chain": (
        ("truncate tollgate.audit_events, tollgate.event_links",),
        lambda b: {("audit_event", one) for one in (*b.grants, b.refund)},
    ),
    "the operations wiped": (
        ("truncate tollgate.credit_operations",),
        lambda b: {("operation", b.grants[0]), ("operation", b.refund)},
    ),
    "a forged note of retention": (
        ("insert into tollgate.dropped values ('{payer}', 1, 1, 1050)",),
        lambda b: {("dropped", b.payer.org_id), ("dropped_charges", b.payer.org_id)},
    ),
    "a request erased under a forged note of retention": (
        (
            "delete from tollgate.requests where id = '{request}'",
            "insert into tollgate.dropped values ('{payer}', 1, 1, 1050)",
        ),
        lambda b: {("dropped", b.payer.org_id)},
    ),
    "a grant changed everywhere": (
        (
            "update tollgate.transfers set amount_nanos = amount_nanos + 7 "
            "where tollgate.transfer_id(position) = '{promoted}'",
            "update tollgate.transfers set balance_after_nanos = balance_after_nanos + 7 where org_id = '{other}'",
            "update tollgate.orgs set balance_nanos = balance_nanos + 7 where id = '{other}'",
        ),
        lambda b: {("audit_event", b.grants[1]), ("chain", b.grants[1])},
    ),
    "a grant and its event changed": (
        (
            "update tollgate.transfers set amount_nanos = amount_nanos + 7 "
            "where tollgate.transfer_id(position) = '{promoted}'",
            "update tollgate.transfers set balance_after_nanos = balance_after_nanos + 7 where org_id = '{other}'",
            "update tollgate.orgs set balance_nanos = balance_nanos + 7 where id = '{other}'",
            "update tollgate.audit_events set details = details || '{{\"amount_nanos\": 1000000007}}' "
            "where target_id = '{promoted}'",
        ),
        lambda b: {("chain", b.grants[1])},
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_forgery_is_found_and_named(books: Books, forgery: str) -> None:
    statements, named = FORGERIES[forgery]
    await books.forge(*statements)
    faults = set(await books.faults())
    assert named(books) <= faults, faults


ROLLED_UP = {
    "a charge and its link erased, its request without a cost": (
        (
            *ERASED,
            "update tollgate.requests set charge_nanos = 0, cost_nanos = 0, usage = null where id = '{request}'",
            past.LINK_ANEW.replace("{", "{{").replace("}", "}}"),
        ),
        {"tally", "flow", "dropped"},
    ),
    "a cost changed of which nothing else is known": (
        ("update tollgate.requests set cost_nanos = null, usage = null where id = '{request}'",),
        {"tally"},
    ),
    "funding turned into promotion everywhere": (
        (
            "update tollgate.transfers set debit = 'promotion' where tollgate.transfer_id(position) = '{granted}'",
            'update tollgate.credit_operations set asked = asked || \'{{"source": "promotion"}}\' '
            "where tollgate.transfer_id(position) = '{granted}'",
            'update tollgate.audit_events set details = details || \'{{"debit": "promotion"}}\' '
            "where target_id = '{granted}'",
            past.LINK_ANEW.replace("{", "{{").replace("}", "}}"),
        ),
        {"flow", "chain"},  # the chain of the events
    ),
}


@pytest.mark.parametrize("forgery", ROLLED_UP)
async def test_what_was_counted_tells_of_a_forgery_whose_chain_was_made_anew(books: Books, forgery: str) -> None:
    await past.roll_up(books.url)
    async with asyncio.timeout(60):  # transactions of other databases count as well
        while not await books.ask("select flowed_until >= 7 from tollgate.rolled"):
            await books.ask("select public.tollgate_roll_up_usage(1000)")
    assert await books.faults() == []
    statements, named = ROLLED_UP[forgery]
    await books.forge(*statements)
    assert {fault for fault, _ in await books.faults()} == named


async def test_a_broken_chain_names_its_first_broken_row_of_each_org(books: Books) -> None:
    await books.forge("update tollgate.transfers set reason = 'other'")
    assert [one for one in await books.faults() if one[0] == "chain"] == sorted(("chain", one) for one in books.grants)


SETTINGS = [
    "timezone = 'Asia/Tokyo'",
    "datestyle = 'German'",
    "intervalstyle = 'iso_8601'",
    "extra_float_digits = 0",
    "bytea_output = 'escape'",
    "client_encoding = 'LATIN1'",
]


async def test_a_chain_is_the_same_whatever_the_settings_of_a_session(books: Books) -> None:
    connection = await asyncpg.connect(books.url)
    for setting in SETTINGS:
        await connection.execute(f"set {setting}")
        assert json.loads(await connection.fetchval("select public.tollgate_audit_books()"))["faults"] == [], setting
    await connection.close()
