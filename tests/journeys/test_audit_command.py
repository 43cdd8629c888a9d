"""`python -m tollgate audit`, as an operator runs it."""

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from journeys import commands
from people import Person
from tollgate.audit import chain_heads
from tollgate.credits import store as credits
from tollgate.database.postgres import PostgresDoor
from tollgate.keys.authentication import console

Audit = Callable[..., subprocess.CompletedProcess[str]]

UNBALANCED = "insert into tollgate.orgs (id, name, balance_nanos) values ('org_wrong', 'Wrong', 5)"


@pytest.fixture
def audit(own_database: str, tmp_path: Path) -> Audit:
    def run(*words: str, given: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
        return commands.run(
            "audit", *words, folder=tmp_path, settings={"DATABASE_URL": own_database, **settings}, given=given
        )

    return run


def test_books_that_agree_are_said_to(audit: Audit) -> None:
    audited = audit()
    assert audited.returncode == 0
    assert audited.stdout == "The books agree: orgs 0, transfers 0, requests 0, open holds 0.\n"


async def test_books_that_do_not_agree_end_with_one_and_name_the_row(
    audit: Audit, own_database: str, sql: Callable[..., Any]
) -> None:
    await sql(own_database, UNBALANCED)
    audited = audit()
    assert audited.returncode == 1
    assert 'balance org_wrong: {"transfers": 0, "balance_nanos": 5}' in audited.stdout
    assert audited.stderr == "tollgate: rows of the books that do not agree: 1\n"


async def test_the_report_is_json_when_asked_for(audit: Audit, own_database: str, sql: Callable[..., Any]) -> None:
    assert json.loads(audit("--json").stdout)["faults"] == []
    await sql(own_database, UNBALANCED)
    audited = audit("--json")
    assert audited.returncode == 1
    assert [fault["id"] for fault in json.loads(audited.stdout)["faults"]] == ["org_wrong"]


async def grant(url: str, times: int) -> Person:
    door = PostgresDoor(url, pool_size=1, deadline_seconds=30)
    person = Person(door)
    await person.seed()
    for turn in range(times):
        reference = f"{person.number} {turn}"
        await credits.grant(console(door, "tests"), person.org_id, 5, source="funding", reason="", reference=reference)
    await door.close()
    return person


async def forge(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("set session_replication_role = replica")
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


async def test_a_head_holds_while_the_books_go_on(audit: Audit, own_database: str, tmp_path: Path) -> None:
    await grant(own_database, 2)
    taken = audit("--head")
    assert taken.returncode == 0, taken.stderr
    head = json.loads(taken.stdout)
    assert (head["orgs"], head["transfers"], head["position"]) == (1, 2, 2)
    assert head["events"] == head["event_position"] > 2
    await grant(own_database, 3)
    kept = tmp_path / "head.json"
    kept.write_text(taken.stdout)
    assert audit("--against", str(kept)).returncode == 0
    report = audit("--against", "-", "--json", given=taken.stdout)
    assert (report.returncode, json.loads(report.stdout)["rewritten"]) == (0, [])


THE_LAST_GRANT_GONE = (
    "delete from tollgate.transfers where position = 2",
    "update tollgate.orgs set balance_nanos = 5, chain_head = (select chain from tollgate.transfers)",
    "delete from tollgate.audit_events where target_id = tollgate.transfer_id(2)",
    "delete from tollgate.event_links where event_id not in (select id from tollgate.audit_events)",
)


async def test_an_end_that_was_cut_off_without_a_trace_is_found_by_a_head(audit: Audit, own_database: str) -> None:
    await grant(own_database, 2)
    head = audit("--head").stdout
    await forge(own_database, *THE_LAST_GRANT_GONE)
    assert audit().returncode == 0, "nothing else can tell"
    told = audit("--against", "-", given=head)
    assert told.returncode == 3
    assert told.stderr.startswith("tollgate: the books up to 20")
    assert "transfers, transfers_digest, events, events_digest" in told.stderr


async def test_a_rewritten_chain_is_found_by_a_head(audit: Audit, own_database: str) -> None:
    await grant(own_database, 1)
    head = audit("--head").stdout
    await forge(
        own_database,
        "update tollgate.transfers set reason = 'other'",
        "update tollgate.transfers t set chain = tollgate.chain_after(null, t)",
        "update tollgate.orgs set chain_head = (select chain from tollgate.transfers)",
    )
    assert audit().returncode == 0, "nothing else can tell"
    report = audit("--against", "-", "--json", given=head)
    assert (report.returncode, json.loads(report.stdout)["rewritten"]) == (3, ["transfers_digest"])


async def test_a_head_that_is_none_of_ours_is_refused(audit: Audit, own_database: str, tmp_path: Path) -> None:
    changed = json.dumps(json.loads(audit("--head").stdout) | {"transfers": 7})
    refused = audit("--against", "-", given=changed)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "tollgate: the signature does not match: the head was changed after it was signed\n"
    missing = audit("--against", str(tmp_path / "missing"))
    assert missing.returncode == 2
    assert "cannot read" in missing.stderr


async def test_a_head_waits_for_transactions_that_may_still_add_a_transfer_before_it(own_database: str) -> None:
    door = PostgresDoor(own_database, pool_size=2, deadline_seconds=30)
    slow = await asyncpg.connect(own_database)
    transaction = slow.transaction()
    await transaction.start()
    post = """insert into tollgate.transfers (org_id, debit, credit, amount_nanos, kind, reference, balance_after_nanos)
    values ($1::text, 'funding', 'wallet', 5, 'grant', $1::text, 5)"""
    await slow.execute(post, "org_slow")
    quick = await asyncpg.connect(own_database)
    await quick.execute(post, "org_quick")
    looks = 0

    async def pause(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            await transaction.commit()

    async with asyncio.timeout(60):  # transactions of other databases count as well
        head = await chain_heads.take(door, lambda seconds: asyncio.gather(pause(seconds), asyncio.sleep(seconds)))
    assert looks >= 3
    assert (head["position"], head["transfers"], head["orgs"]) == (2, 2, 2)
    assert await chain_heads.differences(door, head) == []
    for connection in (slow, quick):
        await connection.close()
    await door.close()


async def test_a_head_is_given_up_when_a_transaction_does_not_end(own_database: str) -> None:
    door = PostgresDoor(own_database, pool_size=2, deadline_seconds=30)
    slow = await asyncpg.connect(own_database)
    transaction = slow.transaction()
    await transaction.start()
    await slow.fetchval("select pg_current_xact_id()")

    async def no_pause(seconds: float) -> None:
        pass

    with pytest.raises(chain_heads.Busy):
        await chain_heads.take(door, no_pause)
    await transaction.rollback()
    await slow.close()
    await door.close()
