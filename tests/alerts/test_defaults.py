"""The rules that are on from the start: as the register says, and sensible where there is little to see, at a start and
when an hour turns. What makes each of them fire is in causes.py."""

import json
import re
from datetime import timedelta

import pytest

from alerts.watch import Watch
from people import Person
from tollgate.alerts.signals import RULES, SIGNALS
from tollgate.app import DOCUMENT
from tollgate.settings import Settings
from tollgate.upstreams import store as upstreams

pytestmark = pytest.mark.anyio

DAY = 86_400
SLOW = 301
"""Readings that cost more are taken every five minutes."""

SEVERAL_REQUESTS = """
insert into tollgate.requests (
  id, org_id, key_id, user_id, state, endpoint, model, upstream, hold_nanos, charge_nanos, cost_nanos, markup_ppm,
  output_bound, reserved_tokens, status, duration_ms, first_token_ms, created_at, expires_at, settled_at
)
select 'req_' || $1 || n, 'org_x', 'key_x', 'usr_1', 'settled', 'chat', 'm', $2, 0, 0, 0, 0, 1, 1, $3, $4, $5,
  $6::timestamptz, $6::timestamptz, $6::timestamptz
from generate_series(1, $7::int) n
"""


async def requests(
    watch: Watch,
    name: str,
    *,
    upstream: str = "openrouter",
    status: int = 200,
    took: int = 10,
    first: int = 5,
    count: int = 20,
) -> None:
    await watch.sql.execute(SEVERAL_REQUESTS, name, upstream, status, took, first, watch.now, count)


async def test_the_register_says_what_the_rows_are(watch: Watch) -> None:
    rows = {row["id"]: row for row in await watch.rows("select * from tollgate.alert_rules")}
    fields = ("signal", "comparison", "threshold", "clear_threshold", "for_seconds", "clear_seconds", "severity")
    assert {name: [row[field] for field in fields] for name, row in rows.items()} == {
        name: [getattr(rule, field) for field in fields] for name, rule in RULES.items()
    }
    assert {rule.signal for rule in RULES.values()} <= SIGNALS.keys()
    longest = Settings.model_fields["database_timeout_seconds"].default * 1000
    assert RULES["database_slow"].threshold <= longest / 2, "a round that takes longer fails"


def test_the_register_names_paths_that_exist() -> None:
    known = {re.sub(r"{\w+}", "{}", path) for path in json.loads(DOCUMENT.read_text(encoding="utf-8"))["paths"]}
    named = [
        path for rule in RULES.values() for path in re.findall(r"`(?:GET|POST) (/[^`?\s]*)", rule.look + rule.mend)
    ]
    assert len(named) > 20
    assert {re.sub(r"{\w+}", "{}", path) for path in named} <= known


async def test_few_calls_and_those_of_test_keys_say_nothing(watch: Watch) -> None:
    await watch.round()
    assert await watch.rows("select * from tollgate.alerts") == [], "of a new installation"
    await requests(watch, "few", status=502, count=19)
    await requests(watch, "test", status=502, upstream="sandbox", count=50)
    await watch.round()
    assert await watch.states("error_rate") == {}
    await requests(watch, "slow", took=200_000, first=30_000, count=1)
    await watch.round()
    assert await watch.states("error_rate") == {"installation": "pending", "openrouter": "pending"}
    assert await watch.states("latency") == await watch.states("first_token") == {}, "one slow call is no percentile"


async def test_a_tollgate_that_was_down_waits_for_its_agents(watch: Watch) -> None:
    await watch.channel()
    last_seen = "update tollgate.hosts set last_seen_at = $1"
    await watch.sql.execute("insert into tollgate.hosts (id, name) values ('hst_1', 'box')")
    await watch.sql.execute(last_seen, watch.now - timedelta(hours=10))
    await watch.round()
    await watch.sql.execute(last_seen, watch.now)
    await watch.round()
    assert await watch.told() == []


async def test_an_installation_without_a_sound_backup_waits_a_week(watch: Watch) -> None:
    await watch.round(8 * DAY)
    assert await watch.states("backup_old") == {}, "there is nothing to lose"
    await Person(watch.door).seed()
    await watch.sql.execute("update tollgate.orgs set created_at = $1", watch.now)
    await watch.round(7 * DAY - 100)
    assert await watch.states("backup_old") == {}
    await watch.round(200)
    assert await watch.states("backup_old") == {"installation": "firing"}


async def test_an_upstream_is_down_after_two_failed_health_checks_in_a_row(watch: Watch) -> None:
    admin = Person(watch.door, "admin")
    await admin.seed()
    made = (
        "insert into tollgate.upstreams (name, base_url, dialect) values ('gpu', 'http://gpu/v1', 'vllm') returning id"
    )
    upstream = await watch.sql.fetchval(made)
    states = []
    for status in ("down", "up", "down", "down", "up", "up"):
        await upstreams.keep_probes(admin.at_the_door(), [{"upstream_id": upstream, "status": status}])
        await watch.round(60)
        states.append((await watch.states("upstream_down")).get(upstream))
    assert states == [None, None, None, "firing", "firing", "resolved"]


async def test_an_attack_that_goes_on_when_the_hour_turns_is_one_alert(watch: Watch) -> None:
    await watch.channel(rules=["refused_address"])
    hour = watch.now.replace(minute=0, second=0)
    for minutes, refused in ((50, 150), (61, 5), (115, 120), (121, 5)):
        watch.now = hour + timedelta(minutes=minutes)
        await watch.sql.execute(REFUSED, watch.now, refused)
        await watch.round()
    assert await watch.listed() == [("refused_address", "192.0.2.1", "firing")]
    await watch.round(3600)
    await watch.round(3600)
    assert await watch.states("refused_address") == {"192.0.2.1": "resolved"}


REFUSED = """
insert into tollgate.security_events as e (
  kind, severity, subject_kind, subject, first_seen_at, last_seen_at, count, hour, count_in_hour
)
select 'authentication_failed', 'warning', 'address', '192.0.2.1', $1, $1, $2,
  date_trunc('hour', $1::timestamptz, 'UTC'), $2
on conflict (kind, subject_kind, subject) where acknowledged_at is null do update set
  last_seen_at = excluded.last_seen_at, hour = excluded.hour, count_in_hour = excluded.count_in_hour
"""


async def tallied(
    watch: Watch, org: str, key: str, hours_ago: int, charge: int, cost: int = 0, model: str = "m"
) -> None:
    """What was used in an hour, in the cuts that readings read."""
    for cut in ("hour", "day_key", "hour_model", "day_model"):
        keeps_people, keeps_model = not cut.endswith("_model"), cut != "day_key"
        unit = "day" if cut.startswith("day") else "hour"
        await watch.sql.execute(
            """
            insert into tollgate.tallies as t (cut, start, org_id, user_id, key_id, model, upstream, requests, errors,
              streamed, estimated, prompt_tokens, completion_tokens, charge_nanos, cost_nanos, last_at)
            values ($1, date_trunc($2, $3::timestamptz - make_interval(hours => $4), 'UTC'), $5, $6, $7, $8, $9, 1, 0,
              0, 0, 0, 0, $10, $11, now())
            on conflict (cut, start, org_id, user_id, key_id, model, upstream) do update set
              charge_nanos = t.charge_nanos + excluded.charge_nanos, cost_nanos = t.cost_nanos + excluded.cost_nanos
            """,
            cut, unit, watch.now, hours_ago, org if keeps_people else "", "usr_x" if keeps_people else "",
            key if keeps_people else "", model if keeps_model else "", "openrouter" if keeps_model else "",
            charge, cost,
        )  # fmt: skip


async def rolled_up(watch: Watch) -> None:
    await watch.sql.execute(
        "update tollgate.rolled set rolled_until = date_trunc('hour', $1::timestamptz, 'UTC')", watch.now
    )


async def test_habit_decides_what_is_much(watch: Watch) -> None:
    watch.now = watch.now.replace(minute=10)  # so that no round is in another hour
    for org, days, was, now in (
        ("org_calm", range(4, 9), 2, 3),
        ("org_busy", range(4, 9), 2, 30),
        ("org_new", range(2, 4), 2, 30),
        ("org_of_days", range(2, 5), 2, 21),
        ("org_that_grows", range(2, 5), 10, 40),
    ):
        for day in days:
            await tallied(watch, org, f"key_of_{org}", 24 * day, was * 10**9)
        await tallied(watch, org, f"key_of_{org}", 1, now * 10**9)
    await rolled_up(watch)
    await watch.round()
    assert await watch.states("spend_of_org") == {"org_busy": "firing", "org_of_days": "firing"}
    assert await watch.states("spend_of_key") == {"key_of_org_busy": "firing"}


async def test_wallets_and_keys_are_told_to_their_owners_alone(watch: Watch) -> None:
    someone, another = Person(watch.door), Person(watch.door)
    for one in (someone, another):
        await one.seed()
        await watch.channel(f"of{one.number}", one.org_id)
    await watch.channel("ops")
    await watch.sql.execute("delete from tollgate.deliveries")  # of the keys that were made
    await tallied(watch, someone.org_id, someone.key_id, 1, 10**9)
    await rolled_up(watch)
    await watch.sql.execute("update tollgate.orgs set balance_nanos = 1000 where id = $1", someone.org_id)
    await watch.sql.execute(
        """
        update tollgate.api_keys set budget_nanos = 100, budget_spent_nanos = 100, budget_reset = 'never',
          last_used_at = now(), budget_period = tollgate.budget_period('never', now()),
          expires_at = now() + interval '3 days', created_at = now() - interval '30 days'
        where id = $1
        """,
        someone.key_id,
    )
    keys_rules = ("key_budget_near", "key_budget_reached", "key_expiring")
    await watch.round()
    assert await watch.states("balance_low") == {someone.org_id: "firing"}
    for rule in keys_rules:
        assert await watch.states(rule) == {someone.key_id: "firing"}, rule
    events = ("balance.low", "key.budget_near", "key.budget_reached", "key.expiring")
    for event in events:
        (told,) = await watch.told(event)
        assert told["channel_id"] == f"chn_of{someone.number}"
        assert told["content"]["data"]["org_id"] == someone.org_id
    assert len(await watch.listed()) == 4
    await watch.sql.execute("update tollgate.orgs set balance_nanos = 100000000000 where id = $1", someone.org_id)
    await watch.sql.execute(
        "update tollgate.api_keys set budget_spent_nanos = 0, expires_at = null where id = $1", someone.key_id
    )
    await watch.round(SLOW)
    for rule in ("balance_low", *keys_rules):
        assert set((await watch.states(rule)).values()) == {"resolved"}, rule
    for event in events:
        assert len(await watch.told(event)) == 1
