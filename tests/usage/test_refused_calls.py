"""Refused paid calls: counted by hour, key, model and code, and listed for operators and the org."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from gateway import BOTH_DOORS, Upstream, running
from operators import bearing, operating
from people import Person
from sandbox.serving import a_chat
from tollgate.audit import store
from tollgate.database import Door

HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)


def at(seconds: int) -> str:
    """A moment after the beginning of an hour not long ago."""
    return (HOUR + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.000Z")


@pytest.fixture
async def operator(door: Door, person: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with operating(door, await person("admin")) as made:
        yield made


def refused(someone: Person, times: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "code": "rate_limit_exceeded",
        "key_id": None,
        "digest": someone.key["digest"],
        "model": "maker/model",
        "times": times,
        "first_seen": at(0),
        "last_seen": at(0),
        "request_id": "req_1",
        "facts": {"of": "org"},
        **more,
    }


async def count(door: Door, *calls: dict[str, Any]) -> None:
    await store.write_security_counts(door, [], [], [], list(calls))


async def listed(operator: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    answer = await operator.get("/admin/usage/refused", params={"limit": 1000, **query})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


@BOTH_DOORS
async def test_counts_of_an_hour_add_up_and_show_the_last_call(
    operator: httpx.AsyncClient, door: Door, person: Any
) -> None:
    someone, other = await person(), await person()
    late = {"first_seen": at(3599), "last_seen": at(3599)}
    await count(door, refused(someone, 2), refused(other))
    await count(
        door,
        refused(someone, 3, key_id=someone.key_id, digest=None, request_id="req_2", facts={"needed": 9}, **late),
        refused(someone, first_seen=at(3600), last_seen=at(3600)),
        refused(someone, code="insufficient_credits"),
        refused(someone, digest="00" * 32),  # of a key that there is not
    )
    found = await listed(operator, org_id=someone.org_id)
    assert [row["start"] for row in found] == [at(3600), at(0), at(0)]
    (row,) = await listed(operator, key_id=someone.key_id, code="rate_limit_exceeded", to=at(3600), model="maker/model")
    assert (row["count"], row["first_seen_at"], row["last_seen_at"]) == (5, at(0), at(3599))
    assert row["last"] == {"request_id": "req_2", "facts": {"needed": 9}}
    assert (row["org_id"], row["user_id"], row["model"]) == (someone.org_id, someone.user_id, "maker/model")
    only = {"key_id": someone.key_id, "code": "rate_limit_exceeded", "to": at(3600)}
    file = await operator.get("/admin/usage/refused/export", params=only)
    (line,) = csv.DictReader(io.StringIO(file.text))
    assert (line["count"], line["model"], json.loads(line["last"])["facts"]) == ("5", "maker/model", {"needed": 9})
    assert (await operator.get(f"/admin/usage/refused/{row['id']}")).json() == row
    assert (await operator.get("/admin/usage/refused/ref_none")).status_code == 404


async def test_an_org_sees_its_own_and_nobody_else_s(operator: httpx.AsyncClient, door: Door, person: Any) -> None:
    someone, other = await person(), await person()
    await count(door, refused(someone), refused(other))
    answer = await operator.get("/user/usage/refused", headers=bearing(someone))
    assert [row["org_id"] for row in answer.json()["data"]] == [someone.org_id]
    answer = await operator.get("/user/usage/refused", params={"org_id": other.org_id}, headers=bearing(someone))
    assert answer.status_code == 400
    file = await operator.get("/user/usage/refused/export", params={"format": "jsonl"}, headers=bearing(someone))
    assert [json.loads(line)["org_id"] for line in file.text.splitlines()] == [someone.org_id]
    for path in ("/admin/usage/refused", "/admin/usage/refused/export"):
        assert (await operator.get(path, headers=bearing(someone))).status_code == 403


async def test_rows_are_bounded_however_many_models_are_named_and_servers_write(
    operator: httpx.AsyncClient, door: Door, person: Any
) -> None:
    someone = await person()
    batches = [[refused(someone, model=f"maker/{batch}-{number}") for number in range(40)] for batch in range(4)]
    await asyncio.gather(*(count(door, *batch) for batch in batches))
    rows = await listed(operator, org_id=someone.org_id)
    assert len(rows) == 101
    assert sum(row["count"] for row in rows) == 160
    (others,) = [row for row in rows if row["key_id"] is None]
    assert (others["model"], others["user_id"], others["count"]) == (None, None, 60)


async def test_rows_older_than_thirty_days_are_deleted_when_others_are_written(
    own_database: str, sql: Callable[..., Any]
) -> None:
    row = """
        insert into tollgate.refused_calls
          (hour, org_id, user_id, key_id, model, code, count, first_seen_at, last_seen_at)
        select at, 'org_1', 'usr_1', 'key_1', 'm', 'quota_exhausted', 1, at, at
        from (values (now() - interval '31 days'), (now() - interval '29 days')) v (at)
    """
    await sql(own_database, row)
    await sql(own_database, "select tollgate.count_refused_calls('[]')")
    assert await sql(own_database, "select count(*) from tollgate.refused_calls") == 1


async def test_a_refused_call_appears_with_what_it_needed_and_what_was_available(
    operator: httpx.AsyncClient, door: Door, customer: Any, shared_database: str, sandbox: Upstream
) -> None:
    someone = await customer(nanos=500_000)
    with running({"DATABASE_URL": shared_database}, sandbox) as gateway:  # it writes its counts when it stops
        answers = [await gateway.post(someone, a_chat(max_tokens=1_000)) for _ in range(2)]
    error = answers[-1].json()["error"]
    (row,) = await listed(operator, org_id=someone.org_id)
    assert (row["code"], row["count"], row["model"]) == (error["code"], 2, "sandbox/echo")
    assert (row["key_id"], row["user_id"]) == (someone.key_id, someone.user_id)
    assert row["last"]["request_id"] == answers[-1].headers["x-request-id"]
    needed = {name: error[name] for name in ("available_nanos", "required_nanos", "affordable_output_tokens")}
    assert row["last"]["facts"].items() >= needed.items()
