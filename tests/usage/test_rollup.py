"""A roll-up counts every request exactly once, whenever it ends and however many run."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servers.postgres import Cluster
from turns import not_at_the_end_of
from usage import past
from usage.past import NOON, a_request

ORGS = ["org_a", "org_b"]
TURN = NOON.replace(day=1, hour=0) - timedelta(days=2)
"""A little before a month begins."""
MODELS = ["maker/one", "maker/two"]
COUNTED = """
  count(*), count(*) filter (where error_code is not null or status >= 400), count(*) filter (where streamed),
  count(*) filter (where estimated), coalesce(sum(prompt_tokens), 0)::bigint,
  coalesce(sum(completion_tokens), 0)::bigint, coalesce(sum(charge_nanos), 0)::bigint,
  coalesce(sum(cost_nanos), 0)::bigint, max(created_at),
  sum(least(
    coalesce((usage #>> '{prompt_tokens_details,cached_tokens}')::numeric, 0), coalesce(prompt_tokens, 0)
  ))::bigint,
  sum(least(
    coalesce((usage #>> '{completion_tokens_details,reasoning_tokens}')::numeric, 0), coalesce(completion_tokens, 0)
  ))::bigint
"""
MEASURES = (
    "u.requests, u.errors, u.streamed, u.estimated, u.prompt_tokens, u.completion_tokens, u.charge_nanos, "
    "u.cost_nanos, u.last_at, u.cached_tokens, u.reasoning_tokens"
)
SETTLE = """
update tollgate.requests set state = 'settled', charge_nanos = 70, cost_nanos = 60, prompt_tokens = 3,
  usage = '{"prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens_details": {"reasoning_tokens": 1}}',
  completion_tokens = 2, status = 200, duration_ms = 900, settled_at = clock_timestamp()
where id = $1 and settled_at is null
"""

HUGE = {
    "usage": {"prompt_tokens_details": {"cached_tokens": 10**30}, "completion_tokens_details": {"reasoning_tokens": 3}}
}
"""An upstream may state more tokens from its cache than the prompt has."""

hours = st.integers(0, 96 * 60).map(lambda minutes: TURN + timedelta(minutes=minutes))
requests = st.builds(
    lambda at, org, model, upstream, more: a_request(
        at, org_id=org, key_id=org.replace("org", "key"), user_id=org.replace("org", "usr"), model=model,
        upstream=upstream, **more,
    ),
    hours, st.sampled_from(ORGS), st.sampled_from(MODELS), st.sampled_from(["openrouter", "ups_1", None]),
    st.sampled_from([{}, {}, {"streamed": True}, {"estimated": True}, past.failed(), past.still_open(), HUGE]),
)  # fmt: skip
steps = st.lists(
    st.one_of(
        st.tuples(st.just("roll"), hours, st.integers(1, 30)),
        st.tuples(st.just("settle"), st.integers(0, 60)),
    ),
    max_size=8,
)
groups = st.sampled_from(
    [
        [],
        ["org"],
        ["model"],
        ["upstream"],
        ["key", "model"],
        ["day"],
        ["hour", "org"],
        ["minute"],
        ["month"],
        ["month", "user"],
    ]
)
filters = st.fixed_dictionaries(
    {}, optional={"org_id": st.sampled_from([*ORGS, "org_none"]), "model": st.sampled_from(MODELS)}
)
COLUMNS = {
    "org": "org_id", "user": "user_id", "key": "key_id", "model": "model", "upstream": "upstream",
    "minute": "date_trunc('minute', created_at, 'UTC')", "hour": "date_trunc('hour', created_at, 'UTC')",
    "day": "date_trunc('day', created_at, 'UTC')", "month": "date_trunc('month', created_at, 'UTC')",
}  # fmt: skip
CUTS = ("hour", "hour_model", "day", "day_model", "day_key", "month", "month_model", "month_key")
NAMES = {
    "org": "org_id",
    "user": "user_id",
    "key": "key_id",
    "minute": "start",
    "hour": "start",
    "day": "start",
    "month": "start",
}


@pytest.fixture(scope="module")
def playground(postgres: Cluster) -> Iterator[str]:
    """One database for all examples of this file."""
    yield postgres.create("tollgate_rollup", "tollgate_template")
    postgres.drop("tollgate_rollup")


async def rolled(connection: asyncpg.Connection, horizon: datetime, page_size: int) -> Any:
    return json.loads(await connection.fetchval("select tollgate.roll_up($1, $2)", horizon, page_size))


async def by_tallies(connection: asyncpg.Connection, by: list[str], since: Any, until: Any, only: Any) -> list[Any]:
    named = ", ".join(f"u.{NAMES.get(group, group)}" for group in by) or "1"
    found = await connection.fetch(
        f"select {named}, {MEASURES} from tollgate.usage_by($1, $2, $3, $4) u where u.requests > 0",
        by, since, until, json.dumps(only),
    )  # fmt: skip
    return sorted((tuple(row) for row in found), key=str)


async def by_requests(connection: asyncpg.Connection, by: list[str], since: Any, until: Any, only: Any) -> list[Any]:
    named = ", ".join(COLUMNS[group] for group in by) or "1"
    found = await connection.fetch(
        f"select {named}, {COUNTED} from tollgate.requests "
        "where created_at >= coalesce($1, '-infinity'::timestamptz) "
        "and created_at < coalesce($2, 'infinity'::timestamptz) "
        "and ($3::text is null or org_id = $3) and ($4::text is null or model = $4) "
        f"group by {', '.join(COLUMNS[group] for group in by) or '()'} having count(*) > 0",
        since, until, only.get("org_id"), only.get("model"),
    )  # fmt: skip
    return sorted((tuple(row) for row in found), key=str)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    made=st.lists(requests, min_size=1, max_size=60), steps=steps, by=groups,
    since=st.none() | hours, until=st.none() | hours, only=filters,
)  # fmt: skip
def test_what_is_rolled_up_is_what_the_requests_say(
    playground: str, made: list[Any], steps: list[Any], by: list[str], since: Any, until: Any, only: Any
) -> None:
    async def compare() -> None:
        connection = await asyncpg.connect(playground)
        try:
            await connection.execute(
                "truncate tollgate.requests, tollgate.tallies, tollgate.latencies, tollgate.key_latencies, "
                "tollgate.late_requests; "
                "update tollgate.rolled set rolled_until = '-infinity'"
            )
            await connection.execute(past.INSERT, json.dumps(made))
            for what, *details in steps:
                if what == "roll":
                    await rolled(connection, *details)
                else:
                    await connection.execute(SETTLE, made[details[0] % len(made)]["id"])
                expected = await by_requests(connection, by, since, until, only)
                assert await by_tallies(connection, by, since, until, only) == expected
        finally:
            await connection.close()

    asyncio.run(compare())


async def test_four_who_roll_up_at_once_count_everything_once(own_database: str, sql: Any) -> None:
    await past.keep(own_database, [a_request(NOON + timedelta(minutes=number)) for number in range(500)])
    await asyncio.gather(*(past.roll_up(own_database, page_size=37) for _ in range(4)))
    await past.roll_up(own_database)
    for cut in CUTS:
        assert await sql(own_database, "select sum(requests) from tollgate.tallies where cut = $1", cut) == 500
    for cut in ("hour", "day", "day_model"):
        counted = "select sum(requests) from tollgate.latencies where cut = $1 and kind = 'whole'"
        assert await sql(own_database, counted, cut) == 500
    of_keys = "select sum((b.value -> 0)::bigint) from tollgate.key_latencies k, jsonb_each(k.whole) b"
    assert await sql(own_database, of_keys) == 500


async def test_a_page_at_one_moment_moves_on(own_database: str, sql: Any) -> None:
    await past.keep(own_database, [a_request() for _ in range(50)])
    async with asyncio.timeout(60):
        await past.roll_up(own_database, page_size=3)
    assert await sql(own_database, "select sum(requests) from tollgate.tallies where cut = 'hour'") == 50


async def test_a_request_is_late_until_it_ends_and_then_counted_at_its_own_hour(own_database: str, sql: Any) -> None:
    late = a_request(**past.still_open())
    await past.keep(own_database, [late, a_request()])
    await past.roll_up(own_database)
    assert await sql(own_database, "select request_id from tollgate.late_requests") == late["id"]
    assert await sql(own_database, "select requests from tollgate.usage_by('{}')") == 2
    await sql(own_database, SETTLE, late["id"])
    for _ in range(2):
        await past.roll_up(own_database)
        assert (
            await sql(own_database, "select requests from tollgate.tallies where cut = 'hour' and start = $1", NOON)
            == 2
        )
    assert await sql(own_database, "select count(*) from tollgate.late_requests") == 0
    assert await sql(own_database, "select charge_nanos from tollgate.usage_by('{}')") == 1050 + 70


async def test_an_hour_waits_for_transactions_that_may_still_bring_a_request_of_it(own_database: str, sql: Any) -> None:
    roll = "select public.tollgate_roll_up_usage(100)"
    slow = await asyncpg.connect(own_database)
    transaction = slow.transaction()
    await transaction.start()
    await slow.execute(past.INSERT, json.dumps([a_request(datetime.now(UTC) - timedelta(hours=3))]))
    for _ in range(3):
        assert json.loads(await sql(own_database, roll)) == {"requests": 0, "more": False}
    assert await sql(own_database, "select complete_until = '-infinity' from tollgate.rolled")
    await transaction.commit()
    await slow.close()
    counted = 0
    async with asyncio.timeout(60):  # transactions of other databases count as well
        while not counted:
            counted = json.loads(await sql(own_database, roll))["requests"]
    assert counted == 1
    assert await sql(own_database, "select requests from tollgate.tallies where cut = 'day_model'") == 1


async def test_of_the_hour_that_is_running_full_pages_are_counted(own_database: str, sql: Any) -> None:
    await not_at_the_end_of("hour")
    now = datetime.now(UTC)
    await past.keep(own_database, [a_request(now - timedelta(milliseconds=place)) for place in range(25)])
    counted = 0
    async with asyncio.timeout(60):
        while counted < 20:
            counted += json.loads(await sql(own_database, "select public.tollgate_roll_up_usage(10)"))["requests"]
    assert json.loads(await sql(own_database, "select public.tollgate_roll_up_usage(10)"))["requests"] == 0
    assert await sql(own_database, "select sum(requests) from tollgate.tallies where cut = 'hour'") == 20
    assert await sql(own_database, "select requests from tollgate.usage_by('{}')") == 25


async def test_the_hour_that_is_running_is_left_alone_while_few_requests_are_in_it(own_database: str, sql: Any) -> None:
    await not_at_the_end_of("hour")
    await past.keep(own_database, [a_request(datetime.now(UTC)), a_request(datetime.now(UTC) - timedelta(hours=2))])
    async with asyncio.timeout(60):
        while not json.loads(await sql(own_database, "select public.tollgate_roll_up_usage(100)"))["requests"]:
            pass
    assert await sql(own_database, "select sum(requests) from tollgate.tallies where cut = 'hour'") == 1
    assert await sql(own_database, "select requests from tollgate.usage_by('{}')") == 2


@pytest.mark.parametrize("kind", ["whole", "first_token"])
@pytest.mark.parametrize("only", [{}, {"model": "maker/model-1"}, {"org_id": "org_l", "model": "maker/model-1"}])
@pytest.mark.parametrize("roll", [False, True])
async def test_percentiles_are_within_five_percent(
    own_database: str, sql: Any, kind: str, only: dict[str, str], roll: bool
) -> None:
    """Of a day that is rolled up no request is read."""
    person: Any = type("Someone", (), {"org_id": "org_l", "user_id": "usr_l", "key_id": "key_l"})
    rows = list(past.many(person, 2000, hours=60))
    await past.keep(own_database, rows)
    if roll:
        await past.roll_up(own_database, NOON + timedelta(hours=55))
        midnight = NOON + timedelta(hours=12)
        whole_day = "delete from tollgate.requests where created_at >= $1 and created_at < $1 + interval '1 day'"
        await sql(own_database, whole_day, midnight)
    column = {"whole": "duration_ms", "first_token": "first_token_ms"}[kind]
    measured = sorted(
        row[column] for row in rows
        if row["state"] == "settled" and row["model"] == only.get("model", row["model"])
    )  # fmt: skip
    found = json.loads(
        await sql(
            own_database,
            "select to_jsonb(l) from tollgate.latency_between($1, $2, null, $3) l", kind, NOON, json.dumps(only),
        )
    )  # fmt: skip
    assert found["requests"] == len(measured)
    assert found["average_ms"] == pytest.approx(sum(measured) / len(measured), abs=0.1)
    for percent in (50, 90, 95, 99):
        true = measured[-(-len(measured) * percent // 100) - 1]
        assert found[f"p{percent}_ms"] == pytest.approx(true, rel=0.05, abs=1)


async def test_counting_anew_from_a_day_leaves_the_days_before_it_in_their_month(own_database: str, sql: Any) -> None:
    first = NOON.replace(day=1)
    await past.keep(own_database, [a_request(first + timedelta(days=day)) for day in range(10)])
    await past.roll_up(own_database)
    await sql(own_database, "delete from tollgate.requests where created_at < $1", first + timedelta(days=5))
    await sql(own_database, "select tollgate.roll_up_again($1)", first + timedelta(days=5))
    for cut in ("month", "month_model", "month_key"):
        assert await sql(own_database, "select sum(requests) from tollgate.tallies where cut = $1", cut) == 5
    await past.roll_up(own_database)
    for cut in CUTS:
        assert await sql(own_database, "select sum(requests) from tollgate.tallies where cut = $1", cut) == 10
    assert await sql(own_database, "select sum(requests) from tollgate.usage_by('{month,org}')") == 10


async def test_the_flows_are_the_ledger_whoever_sums_it_up_and_however(own_database: str, sql: Any) -> None:
    await sql(
        own_database,
        "insert into tollgate.transfers "
        "(org_id, debit, credit, amount_nanos, kind, reference, balance_after_nanos, created_at) "
        "select 'org_past', 'wallet', 'revenue', i, 'charge', i::text, -i, now() - make_interval(mins => i * 7) "
        "from generate_series(1, 300) i",
    )
    moved = "select to_jsonb(m) from tollgate.moved_since(now() - interval '17 hours 13 minutes') m"
    before = await sql(own_database, moved)
    summed = "select coalesce(sum(transfers), 0)::integer from tollgate.flows"
    async with asyncio.timeout(60):  # transactions of other databases count as well
        while await sql(own_database, summed) < 300:
            await asyncio.gather(*(sql(own_database, "select public.tollgate_roll_up_usage(37)") for _ in range(3)))
            assert await sql(own_database, moved) == before
    flows = "select (sum(transfers), sum(amount_nanos))::text from tollgate.flows"
    assert await sql(own_database, flows) == await sql(
        own_database, "select (count(*), sum(amount_nanos))::text from tollgate.transfers"
    )


async def test_a_transfer_that_is_not_there_to_be_seen_is_summed_up_when_it_is(own_database: str, sql: Any) -> None:
    roll = "select public.tollgate_roll_up_usage(100)"
    post = (
        "insert into tollgate.transfers (org_id, debit, credit, amount_nanos, kind, reference, balance_after_nanos) "
        "values ('org_past', 'funding', 'wallet', 5, 'grant', $1, 5)"
    )
    slow = await asyncpg.connect(own_database)
    transaction = slow.transaction()
    await transaction.start()
    await slow.execute(post, "slow")
    await sql(own_database, post, "quick")  # a later position, seen before
    for _ in range(3):
        await sql(own_database, roll)
    assert await sql(own_database, "select flowed_until from tollgate.rolled") == 0
    await transaction.commit()
    await slow.close()
    async with asyncio.timeout(60):
        while await sql(own_database, "select coalesce(sum(transfers), 0)::integer from tollgate.flows") < 2:
            await sql(own_database, roll)
