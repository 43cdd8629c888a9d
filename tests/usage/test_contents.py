"""LOG_CONTENT, from a call to the page for admins: content is stored once, only where it is on."""

import io
import json
import secrets
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from completions.paid import an_item, database
from completions.test_no_secrets import tables
from gateway import BOTH_DOORS, Gateway, Upstream, running
from people import Person
from sandbox.serving import a_chat
from servers.relay import Relay
from tollgate.completions import store as completions
from tollgate.database import Door
from tollgate.database.postgres import PostgresDoor
from tollgate.process import logs
from tollgate.usage import store
from usage import past

LOGS = "/admin/logs"
CONTENTS = "select coalesce(json_agg(c order by c.created_at, c.request_id), '[]') from tollgate.contents c"
READINGS = """
select coalesce(json_agg(json_build_object('actor', actor_user_id, 'target', target_id, 'details', details)
  order by occurred_at), '[]')
from tollgate.audit_events where action = 'content.read' and org_id = $1
"""


@pytest.fixture
def keeping(wire: Relay, shared_database: str, sandbox: Upstream) -> Iterator[Gateway]:
    """A gateway that stores content."""
    given = {**database(wire, shared_database), "LOG_CONTENT": "redacted"}
    with running(given, sandbox) as made:
        yield made


async def kept(sql: Any, url: str, someone: Person) -> list[dict[str, Any]]:
    return list(json.loads(await sql(url, CONTENTS + " where c.org_id = $1", someone.org_id)))


async def look(gateway: Gateway, someone: Person, path: str = LOGS, expected: int = 200, /, **query: Any) -> Any:
    async with gateway.client(someone) as http:
        answer = await http.get(path, params=query)
    assert answer.status_code == expected, answer.text
    return answer.json()


async def test_what_was_said_is_kept_without_its_secrets(
    keeping: Gateway, customer: Any, shared_database: str, sql: Any
) -> None:
    someone = await customer()
    other = Person(someone.door)
    said = f"I am ada@example.com, {someone.secret}, {other.secret}"
    shown = "I am [hidden: email], [hidden: known], [hidden: api_key]"
    for stream in (False, True):
        assert (await keeping.post(someone, a_chat(said, stream=stream))).status_code == 200
    both = await kept(sql, shared_database, someone)
    assert [(one["prompt"], one["answer"]) for one in both] == [(shown, shown)] * 2


async def test_each_endpoint_has_its_prompt(keeping: Gateway, customer: Any, shared_database: str, sql: Any) -> None:
    someone = await customer()
    await keeping.post(someone, {"model": "sandbox/echo", "prompt": "Once", "stream": True}, "/v1/completions")
    await keeping.post(someone, {"model": "sandbox/embed", "input": ["one", "two"]}, "/api/v1/embeddings")
    first, second = await kept(sql, shared_database, someone)
    assert (first["prompt"], second["prompt"], second["answer"]) == ("Once", "one\ntwo", None)
    assert "Once" in first["answer"]


async def test_a_stream_is_the_same_whether_it_is_kept_or_not(
    keeping: Gateway, gateway: Gateway, customer: Any, shared_database: str, sql: Any
) -> None:
    someone = await customer()
    text = "so many words " * 300
    one, other = [
        (await made.post(someone, a_chat(text, stream=True))).text.split("\n\n") for made in (keeping, gateway)
    ]
    assert len(one) == len(other) > 100
    assert (await kept(sql, shared_database, someone))[0]["answer"] == text[:2000] + "…"


async def test_nothing_is_kept_where_nobody_asked_for_it(
    gateway: Gateway, customer: Any, shared_database: str, sql: Any
) -> None:
    someone = await customer()
    for stream in (False, True):
        await gateway.post(someone, a_chat(stream=stream))
    assert await kept(sql, shared_database, someone) == []


async def test_a_failed_call_keeps_its_prompt_and_a_refused_one_nothing(
    keeping: Gateway, customer: Any, shared_database: str, sql: Any
) -> None:
    someone, poor = await customer(), await customer(nanos=0)
    await keeping.post(someone, a_chat("fails", model="sandbox/fault-moderation"))
    assert (await keeping.post(someone, a_chat("is unknown", model="nobody/knows"))).status_code == 404
    assert (await keeping.post(poor, a_chat("cannot pay"))).status_code == 402
    (only,) = await kept(sql, shared_database, someone)
    assert (only["prompt"], only["answer"]) == ("fails", None)
    assert await kept(sql, shared_database, poor) == []


async def test_a_replay_keeps_nothing_more(keeping: Gateway, customer: Any, shared_database: str, sql: Any) -> None:
    someone = await customer()
    for _ in range(2):
        answer = await keeping.post(someone, a_chat("once"), **{"idempotency-key": "once"})
    assert answer.headers["idempotency-replayed"] == "true"
    assert len(await kept(sql, shared_database, someone)) == 1


async def admitted(door: Door, someone: Person) -> str:
    item = an_item(someone)
    answer = await completions.admit(door, [item])
    assert "granted" in answer[item["id"]]
    return str(item["id"])


async def test_the_first_word_stands_and_a_sweeper_adds_none(
    door: Door, customer: Any, shared_database: str, sql: Any
) -> None:
    someone = await customer()
    request = await admitted(door, someone)
    for said in ("first", "second"):
        ending = {"id": request, "outcome": "unsettled", "content": {"prompt": said}}
        await completions.settle(door, [ending])
    settled = {"id": request, "outcome": "settled", "charge_nanos": 5, "cost_nanos": 5}
    await completions.settle(door, [{**settled, "content": {"answer": "late"}}, settled])
    (only,) = await kept(sql, shared_database, someone)
    assert (only["request_id"], only["prompt"], only["answer"]) == (request, "first", None)


async def test_only_those_of_a_batch_that_tell_of_it_have_it_kept(
    door: Door, customer: Any, shared_database: str, sql: Any
) -> None:
    someone = await customer()
    silent, telling = await admitted(door, someone), await admitted(door, someone)
    released = {"outcome": "released"}
    await completions.settle(
        door, [{"id": silent, **released}, {"id": telling, **released, "content": {"answer": "so"}}]
    )
    assert [one["request_id"] for one in await kept(sql, shared_database, someone)] == [telling]


@pytest.mark.parametrize(
    "content", [None, [], "text", 7, {}, {"prompt": None}, {"prompt": {"a": 1}}, {"prompt": "x" * 9**5}]
)
async def test_nothing_that_was_said_keeps_a_call_from_being_settled(
    door: Door, customer: Any, content: Any, shared_database: str, sql: Any
) -> None:
    someone = await customer()
    requests = [await admitted(door, someone) for _ in range(2)]
    charge = {"outcome": "settled", "charge_nanos": 5, "cost_nanos": 5, "content": content}
    answers = await completions.settle(door, [{"id": request, **charge} for request in [*requests, "req_nobody_made"]])
    assert [answers[request]["settled"]["charge_nanos"] for request in requests] == [5, 5]
    assert all(len(one["prompt"] or "") <= 4000 for one in await kept(sql, shared_database, someone))


async def test_a_settlement_without_content_does_not_look_at_the_table(own_database: str, sql: Any) -> None:
    """Postgres counts no statement and no page read."""
    door = PostgresDoor(own_database, pool_size=1, deadline_seconds=30)
    someone = Person(door)
    await someone.seed()
    await sql(own_database, "update tollgate.api_keys set environment = 'test'")
    items = [an_item(someone, fixed_nanos="0", output_nanos="0") for _ in range(5)]
    await completions.admit(door, items)
    connection = await asyncpg.connect(own_database)
    await connection.execute("set track_functions = 'all'")
    ending = {"outcome": "settled", "charge_nanos": 0, "cost_nanos": 0}
    settle = "select public.tollgate_settle($1::jsonb)"
    looked_at = """
      select (
          select coalesce(sum(pg_stat_get_xact_function_calls(f.oid)), 0) from pg_proc f
          where f.proname = 'keep_contents'
        ) + (select sum(pg_stat_get_xact_numscans(c.oid) + pg_stat_get_xact_tuples_inserted(c.oid))
           from pg_class c where c.relname like 'contents%')
    """
    async with connection.transaction():
        await connection.fetchval(settle, json.dumps([{"id": item["id"], **ending} for item in items[:4]]))
        assert await connection.fetchval(looked_at) == 0
        last = {"id": items[4]["id"], **ending, "content": {"prompt": "said"}}
        await connection.fetchval(settle, json.dumps([last]))
        assert await connection.fetchval(looked_at) > 1
    await connection.close()
    await door.close()


async def test_an_admin_reads_it_when_he_asks_for_it_and_that_is_recorded(
    keeping: Gateway, customer: Any, person: Any, shared_database: str, sql: Any
) -> None:
    admin, someone, silent = await person("admin"), await customer(), await customer()
    await keeping.post(someone, a_chat("hello"))
    await keeping.post(someone, a_chat("again"))
    query = {"key_id": someone.key_id, "limit": 1}

    metadata = await look(keeping, admin, **query)
    assert "prompt" not in metadata["data"][0]
    assert json.loads(await sql(shared_database, READINGS, someone.org_id)) == []

    page = await look(keeping, admin, **query, include="content")
    assert (page["data"][0]["prompt"], page["data"][0]["answer"]) == ("again", "again")
    assert {name: page["data"][0][name] for name in metadata["data"][0]} == metadata["data"][0]
    next_page = await look(keeping, admin, **query, include="content", cursor=page["next_cursor"])
    assert [row["prompt"] for row in next_page["data"]] == ["hello"]

    readings = json.loads(await sql(shared_database, READINGS, someone.org_id))
    assert [(one["actor"], one["target"]) for one in readings] == [(admin.user_id, someone.org_id)] * 2
    assert readings[0]["details"] == {"request_ids": [page["data"][0]["id"]]}
    assert (await look(keeping, admin, key_id=silent.key_id, include="content"))["data"] == []
    assert json.loads(await sql(shared_database, READINGS, silent.org_id)) == []


@BOTH_DOORS
async def test_what_was_not_kept_is_null_and_its_reading_no_event(
    gateway: Gateway, customer: Any, person: Any, shared_database: str, sql: Any
) -> None:
    admin, someone = await person("admin"), await customer()
    await gateway.post(someone, a_chat("hello"))
    (row,) = (await look(gateway, admin, key_id=someone.key_id, include="content"))["data"]
    assert (row["prompt"], row["answer"]) == (None, None)
    assert json.loads(await sql(shared_database, READINGS, someone.org_id)) == []


async def test_nobody_else_reads_it_and_no_other_page_shows_it(keeping: Gateway, customer: Any, person: Any) -> None:
    admin, someone = await person("admin"), await customer()
    word = f"whispered-{secrets.token_hex(8)}"
    await keeping.post(someone, a_chat(word))
    await look(keeping, someone, LOGS, 403, include="content")
    await look(keeping, someone, "/user/usage", 400, include="content")
    await look(keeping, admin, LOGS, 400, include="everything")
    pages = {
        someone: ("/user/usage", "/user/usage/export", "/user/usage/aggregate", "/user/api-keys/audit-logs"),
        admin: (LOGS, "/admin/usage", "/admin/usage/export", "/admin/audit-logs", "/admin/monitor"),
    }
    for asking, paths in pages.items():
        async with keeping.client(asking) as http:
            for path in paths:
                answer = await http.get(path)
                assert answer.status_code == 200, path
                assert word not in answer.text, path


async def test_no_log_line_and_no_other_table_has_it(
    keeping: Gateway, customer: Any, person: Any, shared_database: str
) -> None:
    log = io.StringIO()
    logs.configure("debug", [], log)
    admin, someone = await person("admin"), await customer()
    word = f"whispered-{secrets.token_hex(8)}"
    for stream in (False, True):
        await keeping.post(someone, a_chat(word, stream=stream))
        await keeping.post(someone, a_chat(word, model="sandbox/fault-cut", stream=stream))
    await look(keeping, admin, key_id=someone.key_id, include="content")
    assert "paid_request_id" in log.getvalue()
    assert word not in log.getvalue()
    connection = await asyncpg.connect(shared_database)
    having = {name async for name, rows in tables(connection) if any(word in row for row in rows)}
    await connection.close()
    assert having == {"tollgate.contents"}


async def test_a_page_with_content_is_no_longer_than_it_should_be(
    door: Door, person: Any, gateway: Gateway, shared_database: str
) -> None:
    admin, someone = await person("admin"), await person()
    await past.keep(shared_database, [past.of(someone, past.NOON + timedelta(seconds=second)) for second in range(130)])
    page = await look(gateway, admin, key_id=someone.key_id, include="content", limit=1000)
    assert len(page["data"]) == 100
    rest = await look(gateway, admin, key_id=someone.key_id, include="content", limit=1000, cursor=page["next_cursor"])
    assert len(rest["data"]) == 30


@pytest.fixture
async def own_door(own_database: str) -> Any:
    made = PostgresDoor(own_database, pool_size=2, deadline_seconds=30.0)
    yield made
    await made.close()


SAY = "insert into tollgate.contents (request_id, org_id, prompt) select id, org_id, 'said' from tollgate.requests"


async def test_it_goes_with_its_request(own_database: str, own_door: Door, sql: Any) -> None:
    old, young = past.a_request(past.NOON - timedelta(days=40)), past.a_request()
    await past.keep(own_database, [old, young])
    await sql(own_database, SAY)
    await past.roll_up(own_database)
    assert (await store.drop_old_requests(own_door, 30, 100))["requests"] == 1
    assert await sql(own_database, "select array_agg(request_id) from tollgate.contents") == [young["id"]]


async def test_it_goes_before_its_request_when_its_own_days_are_over(
    own_database: str, own_door: Door, sql: Any
) -> None:
    rows = [past.a_request() for _ in range(7)]
    await past.keep(own_database, rows)
    await sql(own_database, SAY)
    age = "update tollgate.contents set created_at = now() - interval '3 days' where request_id <> $1"
    await sql(own_database, age, rows[0]["id"])
    assert await store.drop_old_contents(own_door, 4, 5) == {"contents": 0, "more": False}
    assert await store.drop_old_contents(own_door, 3, 5) == {"contents": 5, "more": True}
    assert await store.drop_old_contents(own_door, 3, 5) == {"contents": 1, "more": False}
    assert await sql(own_database, "select array_agg(request_id) from tollgate.contents") == [rows[0]["id"]]
    assert await sql(own_database, "select count(*) from tollgate.requests") == 7
