"""What keeps admitting and settling fast, in counts that are the same on every machine."""

import json
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import asyncpg
import pytest

OTHERS = 2000

CROWD = f"""
insert into tollgate.orgs (id, name, plan_id, balance_nanos)
select 'org_' || i, 'Org', 'pro', 1000000000 from generate_series(1, {OTHERS}) i;
insert into tollgate.users (id, org_id, email)
select 'usr_' || i, 'org_' || i, i || '@example.com' from generate_series(1, {OTHERS}) i;
insert into tollgate.api_keys (
  org_id, user_id, name, digest, pepper, prefix, last_four, scopes, last_used_at
)
select 'org_' || i, 'usr_' || i, 'Key', sha256(i::text::bytea), '00000000', 'tg_live_', 'abcd', '{{chat}}', now()
from generate_series(1, {OTHERS}) i;
insert into tollgate.requests (
  id, org_id, key_id, user_id, state, endpoint, model, hold_nanos, markup_ppm, output_bound, reserved_tokens, expires_at
)
select 'req_of_' || i, 'org_' || i, 'key_1', 'usr_' || i, 'held', 'chat', 'm', 0, 0, 1, 1, now()
from generate_series(1, {OTHERS}) i;
insert into tollgate.secrets (kind, org_id, name, address, sealed, sealed_with, last_four)
select 'upstream_key', 'org_' || i, 'ups_1', 'https://gpu.test', sha256('')::bytea, '00000000', 'abcd'
from generate_series(1, {OTHERS}) i;
insert into tollgate.holds (request_id, next_sweep_at)
select 'req_of_' || i, now() from generate_series(1, {OTHERS}) i;
"""

SCANNED = "select array_agg(relname) from pg_stat_xact_user_tables where schemaname = 'tollgate' and seq_scan > 0"
ENTRIES = "select sum(pg_stat_get_xact_tuples_returned(i.indexrelid))::int from pg_stat_user_indexes i"
UPDATES = "select n_tup_upd::int from pg_stat_xact_user_tables where relid = 'tollgate.{}'::regclass"
REWRITTEN = "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where schemaname = 'tollgate' and relname = $1"


def asked(place: int, org: int) -> dict[str, Any]:
    caller = {"digests": [sha256(str(org).encode()).hexdigest()], "pepper": "00000000", "ip": "192.0.2.1"}
    return {
        "id": f"req_{place:08}",
        "caller": caller,
        "scope": "chat",
        "endpoint": "chat",
        "model": "maker/model",
        "models": ["maker/model"],
        "streamed": False,
        "fixed_nanos": "5000",
        "output_nanos": "1000",
        "output_bound": 10,
        "least_output": 16,
        "most_output": 100,
        "choices": 1,
        "prompt_tokens": 10,
        "markup_ppm": 50_000,
        "ttl_seconds": 600,
        "price": {"prompt": "500", "completion": "1000"},
        "upstreams": [["openrouter"]],
        "byok_fee_nanos": 1,
    }


def settled(place: int) -> dict[str, Any]:
    return {"id": f"req_{place:08}", "outcome": "settled", "charge_nanos": 10, "cost_nanos": 9, "prompt_tokens": 10}


@pytest.fixture
async def connection(own_database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection whose plans were made when every table was empty, and a crowd that came after that."""
    made = await asyncpg.connect(own_database)
    for _ in range(2):
        await call(made, "admit", [asked(0, 1)])
        await call(made, "settle", [settled(0)])
    await made.execute(CROWD)
    yield made
    await made.close()


async def call(connection: asyncpg.Connection, function: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    answers: dict[str, Any] = json.loads(
        await connection.fetchval(f"select public.tollgate_{function}($1)", json.dumps(items))
    )
    return answers


async def counted(connection: asyncpg.Connection, orgs: list[int], *counts: str) -> list[list[int]]:
    """What admitting and then settling a request of each of these orgs adds to the counts of Postgres."""
    found = []
    for function, items in (
        ("admit", [asked(place, org) for place, org in enumerate(orgs)]),
        ("settle", [settled(place) for place in range(len(orgs))]),
    ):
        await connection.execute("select pg_stat_force_next_flush()")  # else what came before is counted too
        async with connection.transaction():
            answers = await call(connection, function, items)
            assert all("refusal" not in answer for answer in answers.values())
            found.append([await connection.fetchval(count) or 0 for count in counts])
            assert await connection.fetchval(SCANNED) is None, function
    return found


@pytest.mark.parametrize("items", [1, 64])
async def test_plans_made_on_empty_tables_read_little_of_full_ones(connection: asyncpg.Connection, items: int) -> None:
    """A few index entries for each request, none of them anyone else's."""
    for (entries,) in await counted(connection, list(range(1, items + 1)), ENTRIES):
        assert entries <= 12 * items


async def test_a_batch_of_one_org_writes_it_once(connection: asyncpg.Connection) -> None:
    for orgs, _ in await counted(connection, [7] * 64, UPDATES.format("orgs"), UPDATES.format("requests")):
        assert orgs == 1


async def test_what_is_rewritten_stays_on_its_page(connection: asyncpg.Connection) -> None:
    """So that no index is written for it."""
    orgs = list(range(1, OTHERS, OTHERS // 64))[:64]
    for start in range(0, 64, 8):
        await call(connection, "admit", [asked(place, orgs[place]) for place in range(start, start + 8)])
    for start in range(8):
        await call(connection, "settle", [settled(place) for place in range(start, 64, 8)])
    await connection.execute("select pg_stat_force_next_flush()")
    for table in ("orgs", "requests"):
        rewritten, in_place = await connection.fetchrow(REWRITTEN, table)
        assert rewritten >= 64, table
        assert in_place >= 0.8 * rewritten, table


async def test_keys_in_use_and_users_without_limits_are_not_written(connection: asyncpg.Connection) -> None:
    updates = UPDATES.format("api_keys"), UPDATES.format("users")
    assert await counted(connection, list(range(1, 17)), *updates) == [[0, 0], [0, 0]]
