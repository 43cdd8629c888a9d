"""The figures of the monitors in SQL, which are the same before a roll-up, after it, and after retention."""

import json
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import asyncpg
import pytest

from turns import not_at_the_end_of

CONSOLE = json.dumps({"console": "tests"})

PEOPLE = """
insert into tollgate.orgs (id, name) select 'org_' || i, 'Org ' || i from generate_series(1, 4) i;
insert into tollgate.users (id, org_id, email)
select 'usr_' || i, 'org_' || i, i || '@example.com' from generate_series(1, 4) i;
insert into tollgate.api_keys (id, org_id, user_id, name, digest, pepper, prefix, last_four, scopes)
select 'key_' || i, 'org_' || i, 'usr_' || i, 'Key', sha256(i::text::bytea), '00000000', 'tg_live_', 'abcd', '{usage}'
from generate_series(1, 4) i;
"""
CALLS = """
insert into tollgate.requests (
  id, org_id, key_id, user_id, state, endpoint, model, upstream, streamed, hold_nanos, charge_nanos, cost_nanos,
  markup_ppm, output_bound, reserved_tokens, prompt_tokens, completion_tokens, status, error_code, duration_ms,
  first_token_ms, created_at, expires_at, settled_at
)
select
  'req_' || i || '_of_the_tests', 'org_' || 1 + i % 3, 'key_' || 1 + i % 3, 'usr_' || 1 + i % 3, 'settled', 'chat',
  'model-' || i % 5, case when i % 4 > 0 then 'openrouter' end, i % 2 = 0, 100, i * 10, i * 9,
  0, 10, 10, i, i * 2, case when i % 7 = 0 then 502 else 200 end, case when i % 7 = 0 then 'upstream_cut' end, i, i / 2,
  now() - make_interval(hours => i), now(), now()
from generate_series(0, 24 * 40) i
"""


@pytest.fixture
async def connection(own_database: str) -> AsyncIterator[asyncpg.Connection]:
    await not_at_the_end_of("hour")
    made = await asyncpg.connect(own_database)
    await made.execute(PEOPLE)
    yield made
    await made.close()


async def told(connection: asyncpg.Connection, function: str, caller: str = CONSOLE) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await connection.fetchval(f"select public.tollgate_{function}($1)", caller))
    return found


def key(number: int) -> str:
    """The caller with the key of this number."""
    digest = sha256(str(number).encode()).hexdigest()
    return json.dumps({"digests": [digest], "pepper": "00000000", "ip": "192.0.2.1"})


async def roll_up(connection: asyncpg.Connection) -> None:
    roll = "select tollgate.roll_up(date_trunc('hour', now(), 'UTC'), 100)"
    while json.loads(await connection.fetchval(roll))["more"]:
        pass


def without_clock(page: dict[str, Any]) -> dict[str, Any]:
    """The monitor without its clock and the size of the database, for comparison."""
    return {name: value for name, value in page.items() if name not in {"at", "database"}}


@pytest.mark.parametrize(("function", "caller"), [("monitor", CONSOLE), ("own_monitor", key(1)), ("key_usage", key(2))])
async def test_rolled_up_or_not_they_say_the_same(connection: asyncpg.Connection, function: str, caller: str) -> None:
    await connection.execute(CALLS)
    before = without_clock(await told(connection, function, caller))
    await roll_up(connection)
    assert await connection.fetchval("select count(*) from tollgate.tallies") > 0
    assert without_clock(await told(connection, function, caller)) == before


async def test_a_span_is_whole_days_in_utc_and_today_is_one_of_them(connection: asyncpg.Connection) -> None:
    await connection.execute("set timezone = 'Asia/Kolkata'")  # where midnight is another
    await connection.execute(CALLS)
    since_midnight = (
        "select count(*), sum(charge_nanos)::bigint, sum(cost_nanos)::bigint from tollgate.requests "
        "where created_at >= date_trunc('day', now(), 'UTC') - make_interval(days => $1)"
    )
    usage = (await told(connection, "monitor"))["usage"]
    for span, days in (("today", 0), ("last_7_days", 6), ("last_30_days", 29)):
        expected = tuple(await connection.fetchrow(since_midnight, days))
        found = usage[span]
        assert (found["requests"], found["charge_nanos"], found["cost_nanos"]) == expected, span


async def test_the_last_day_is_24_hours_and_knows_where_requests_went(connection: asyncpg.Connection) -> None:
    await connection.execute(CALLS)
    day = (await told(connection, "monitor"))["last_24_hours"]
    assert (day["requests"], day["errors"]) == (24, 4)  # the hours 0 to 23
    shares = {share["upstream"]: (share["requests"], share["cost_nanos"]) for share in day["upstreams"]}
    to_openrouter = [hour for hour in range(24) if hour % 4]
    assert shares == {"openrouter": (18, sum(to_openrouter) * 9), None: (6, (276 - sum(to_openrouter)) * 9)}
    assert day["latency"]["requests"] == 20


async def test_leaders_are_those_of_30_days(connection: asyncpg.Connection) -> None:
    await connection.execute(CALLS)
    await connection.execute(
        "update tollgate.requests set charge_nanos = 1000000000 where created_at < now() - interval '31 days' "
        "and org_id = 'org_2'"
    )
    page = await told(connection, "monitor")
    charges = await connection.fetch(
        "select org_id, sum(charge_nanos)::bigint from tollgate.requests "
        "where created_at >= date_trunc('day', now(), 'UTC') - interval '29 days' group by 1 order by 2 desc"
    )
    assert [(one["org_id"], one["charge_nanos"]) for one in page["top_orgs"]] == [tuple(row) for row in charges]
    assert [one["key_id"][4:] for one in page["top_keys"]] == [one["org_id"][4:] for one in page["top_orgs"]]


async def test_leaders_are_the_same_however_long_ago_they_were_renewed(connection: asyncpg.Connection) -> None:
    parts = ("top_orgs", "top_keys", "top_models")
    await connection.execute(CALLS)
    before = await told(connection, "monitor")
    await roll_up(connection)
    await connection.fetchval("select public.tollgate_renew_leaders()")
    assert await connection.fetchval("select count(*) from tollgate.top_keys") == 3
    assert [(await told(connection, "monitor"))[part] for part in parts] == [before[part] for part in parts]

    # As it was two days and five hours ago.
    await connection.execute(
        "truncate tollgate.top_keys; update tollgate.top_keys_period "
        "set since = tollgate.top_since() - interval '2 days', "
        "until = date_trunc('hour', now(), 'UTC') - interval '5 hours'"
    )
    await connection.execute(
        "insert into tollgate.top_keys "
        "select u.org_id, u.key_id, u.requests, u.prompt_tokens + u.completion_tokens, u.charge_nanos, u.cost_nanos "
        "from tollgate.top_keys_period l, tollgate.usage_by('{org,key}', l.since, l.until) u"
    )
    assert [(await told(connection, "monitor"))[part] for part in parts] == [before[part] for part in parts]
    await connection.fetchval("select public.tollgate_renew_leaders()")
    assert await connection.fetchval("select since = tollgate.top_since() from tollgate.top_keys_period")
    assert [(await told(connection, "monitor"))[part] for part in parts] == [before[part] for part in parts]


async def test_leaders_are_read_from_what_was_summed_up(connection: asyncpg.Connection) -> None:
    await connection.execute(CALLS)
    await roll_up(connection)
    await connection.fetchval("select public.tollgate_renew_leaders()")
    await connection.execute("update tollgate.top_keys set charge_nanos = 10 ^ 15 where key_id = 'key_2'")
    page = await told(connection, "monitor")
    assert (page["top_keys"][0]["key_id"], page["top_orgs"][0]["org_id"]) == ("key_2", "org_2")


async def test_what_retention_dropped_stays_counted(connection: asyncpg.Connection) -> None:
    await connection.execute(CALLS)
    await connection.execute("update tollgate.requests set settled_at = created_at")
    await roll_up(connection)
    before, own = await told(connection, "monitor"), await told(connection, "own_monitor", key(1))
    used = await told(connection, "key_usage", key(1))
    await connection.fetchval("select public.tollgate_drop_old_requests(5, 10000)")
    assert await connection.fetchval("select count(*) from tollgate.requests") < 24 * 7
    after = await told(connection, "monitor")
    assert [after[part] for part in ("usage", "top_orgs", "top_models")] == [
        before[part] for part in ("usage", "top_orgs", "top_models")
    ]
    assert (await told(connection, "own_monitor", key(1)))["usage"] == own["usage"]
    later = await told(connection, "key_usage", key(1))
    assert later["total"] == used["total"]
    assert later["first_request_at"] == used["first_request_at"][:10] + "T00:00:00.000Z"


async def test_only_the_worst_debtors_are_named(connection: asyncpg.Connection) -> None:
    await connection.execute(
        "insert into tollgate.orgs (id, name, balance_nanos) "
        "select 'org_poor' || i, 'Poor', -i from generate_series(1, 15) i"
    )
    overdrawn = (await told(connection, "monitor"))["overdrawn"]
    assert (overdrawn["count"], overdrawn["overdrawn_nanos"]) == (15, 120)
    assert [one["credits_nanos"] for one in overdrawn["orgs"]] == [-debt for debt in range(15, 5, -1)]


async def test_an_empty_house_is_a_page_of_zeros(connection: asyncpg.Connection) -> None:
    page = await told(connection, "monitor")
    assert page["usage"]["last_30_days"]["requests"] == 0
    assert page["last_24_hours"]["latency"]["p50_ms"] is None
    assert [page[part] for part in ("top_orgs", "top_keys", "top_models", "recent_requests")] == [[], [], [], []]
    assert page["open_holds"] == {"count": 0, "held_nanos": 0, "oldest_at": None, "unsettled": 0}
    assert page["overdrawn"] == {"count": 0, "overdrawn_nanos": 0, "orgs": []}
