"""Each rule that is on from the start fires by its cause, and is resolved when that is gone."""

import json
import re
from pathlib import Path

import pytest

from alerts.watch import Watch
from people import Person
from tollgate.alerts.signals import RULES, SIGNALS
from tollgate.app import DOCUMENT

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent
SLOW = 301
"""Readings that cost more are taken every five minutes."""

SEVERAL_REQUESTS = """
insert into tollgate.requests (
  id, org_id, key_id, user_id, state, endpoint, model, upstream, hold_nanos, charge_nanos, cost_nanos, markup_ppm,
  output_bound, reserved_tokens, status, duration_ms, first_token_ms, quarantined, created_at, expires_at, settled_at
)
select 'req_' || $1 || n, $2, $3, 'usr_1', 'settled', 'chat', 'm', 'openrouter', 0, $4, $5, 0, 1, 1, $6, $7, $8, $9,
  $10::timestamptz, $10::timestamptz, $10::timestamptz
from generate_series(1, $11::int) n
"""


async def requests(
    watch: Watch,
    name: str,
    *,
    org: str = "org_x",
    key: str = "key_x",
    charge: int = 0,
    cost: int = 0,
    status: int | None = None,
    took: int = 10,
    first: int = 5,
    quarantined: bool = False,
    count: int = 20,
) -> None:
    await watch.sql.execute(
        SEVERAL_REQUESTS, name, org, key, charge, cost, status, took, first, quarantined, watch.now, count
    )


async def clear(watch: Watch) -> None:
    await watch.sql.execute("delete from tollgate.requests where id like 'req_%' and id not like 'req_held%'")


async def test_the_register_says_what_the_rows_are(watch: Watch) -> None:
    rows = {row["id"]: row for row in await watch.rows("select * from tollgate.alert_rules")}
    fields = ("signal", "comparison", "threshold", "clear_threshold", "for_seconds", "clear_seconds", "severity")
    assert {name: [row[field] for field in fields] for name, row in rows.items()} == {
        name: [getattr(rule, field) for field in fields] for name, rule in RULES.items()
    }
    assert {rule.signal for rule in RULES.values()} <= SIGNALS.keys()


def test_the_register_names_paths_that_exist() -> None:
    known = {re.sub(r"{\w+}", "{}", path) for path in json.loads(DOCUMENT.read_text(encoding="utf-8"))["paths"]}
    named = [
        path for rule in RULES.values() for path in re.findall(r"`(?:GET|POST) (/[^`?\s]*)", rule.look + rule.mend)
    ]
    assert len(named) > 20
    assert {re.sub(r"{\w+}", "{}", path) for path in named} <= known


OBSERVED = {
    "breaker_open": ("breaker_open", "openrouter", 1),
    "catalog_stale": ("catalog_age_seconds", "installation", 30_000),
    "database_slow": ("database_answer_ms", "installation", 6000),
    "process_memory": ("process_memory_percent", "web-1", 95),
    "process_disk": ("process_disk_percent", "web-1", 95),
    "backup_old": ("days_since_verified_backup", "installation", 9),
    "reconciliation": ("reconciliation_difference_ppm", "2026-11-29", 2000),
    "database_size": ("database_bytes", "installation", 2e12),
    "database_transaction": ("database_transaction_seconds", "installation", 7200),
    "database_connections": ("database_connections_percent", "installation", 99),
}
"""Rules whose readings come from a process, or from another room, or cannot be had here."""


async def test_what_a_process_observes_fires_and_is_resolved(watch: Watch) -> None:
    watch.observed = {(signal, about): value for signal, about, value in OBSERVED.values()}
    await watch.round()
    waiting = [rule for rule in OBSERVED if RULES[rule].for_seconds]
    for rule in OBSERVED:
        about = OBSERVED[rule][1]
        assert await watch.states(rule) == {about: "pending" if rule in waiting else "firing"}, rule
    for _ in range(4):
        await watch.round(90)
    for rule in OBSERVED:
        assert set((await watch.states(rule)).values()) == {"firing"}, rule
    watch.observed = {}
    for _ in range(5):
        await watch.round(100)
    for rule in OBSERVED:
        assert set((await watch.states(rule)).values()) == {"resolved"}, rule


async def fires(watch: Watch, rule: str, subject: str, seconds: int = 10) -> None:
    await watch.round(seconds)
    state = (await watch.states(rule)).get(subject)
    assert state == ("pending" if RULES[rule].for_seconds else "firing"), (rule, await watch.states(rule))


async def is_resolved(watch: Watch, rule: str, subject: str, seconds: int = 10) -> None:
    await watch.round(seconds)
    if RULES[rule].clear_seconds:
        await watch.round(RULES[rule].clear_seconds)
    assert (await watch.states(rule))[subject] == "resolved", rule


async def test_requests_that_fail_or_are_slow(watch: Watch) -> None:
    await requests(watch, "failed", status=502, count=5)
    await requests(watch, "slow", took=200_000, first=30_000, count=15)
    for rule in ("error_rate", "latency", "first_token"):
        await watch.round()
        assert await watch.states(rule) == {"installation": "pending", "openrouter": "pending"}
    for _ in range(4):
        await clear(watch)
        await requests(watch, "failed", status=502, count=5)
        await requests(watch, "slow", took=200_000, first=30_000, count=15)
        await watch.round(100)
    for rule in ("error_rate", "latency", "first_token"):
        assert await watch.states(rule) == {"installation": "firing", "openrouter": "firing"}
    await clear(watch)
    await watch.round()
    await watch.round(400)
    for rule in ("error_rate", "latency", "first_token"):
        assert set((await watch.states(rule)).values()) == {"resolved"}


async def test_few_requests_say_nothing(watch: Watch) -> None:
    await requests(watch, "failed", status=502, count=19)
    await watch.round()
    assert await watch.states("error_rate") == {}


async def test_what_is_quarantined_held_or_not_in_the_books(watch: Watch) -> None:
    await requests(watch, "odd", quarantined=True, count=1)
    await watch.sql.execute(
        """
        insert into tollgate.audit_events (actor_kind, action, target_id, outcome, details)
        values ('console', 'books.audited', 'books', 'success', '{"fault_count": 2}')
        """
    )
    await watch.sql.execute(
        """
        insert into tollgate.requests (id, org_id, key_id, user_id, state, endpoint, model, hold_nanos, markup_ppm,
          output_bound, reserved_tokens, created_at, expires_at)
        select 'req_held' || n, 'org_x', 'key_x', 'usr_x', case when n = 0 then 'held' else 'unsettled' end, 'chat',
          'm', 0, 0, 1, 1, now() - interval '1 hour', now() - interval '30 minutes'
        from generate_series(0, 100) n
        """
    )
    await watch.sql.execute(
        "insert into tollgate.holds select id, now() from tollgate.requests where id like 'req_held%'"
    )
    await fires(watch, "quarantined", "installation")
    await fires(watch, "books", "installation")
    await fires(watch, "expired_holds", "installation")
    await fires(watch, "unsettled", "installation")
    await watch.round(700)
    assert await watch.states("unsettled") == {"installation": "firing"}
    await watch.sql.execute("delete from tollgate.holds")
    await clear(watch)
    await watch.sql.execute(
        """
        insert into tollgate.audit_events (actor_kind, action, target_id, outcome, details)
        values ('console', 'books.audited', 'books', 'success', '{"fault_count": 0}')
        """
    )
    await is_resolved(watch, "quarantined", "installation", SLOW)
    for rule in ("books", "expired_holds", "unsettled"):
        await is_resolved(watch, rule, "installation")


async def test_upstreams_hosts_and_channels(watch: Watch) -> None:
    await watch.channel("broken", failures=3)
    await watch.sql.execute(
        """
        insert into tollgate.upstreams (id, name, base_url, dialect)
        values ('ups_1', 'gpu', 'http://127.0.0.1:9/v1', 'vllm');
        insert into tollgate.probes (upstream_id, status) values ('ups_1', 'down');
        insert into tollgate.hosts (id, name, last_seen_at) values ('hst_1', 'box', now() - interval '5 minutes');
        """
    )
    await fires(watch, "upstream_down", "ups_1")
    await fires(watch, "host_silent", "hst_1")
    await fires(watch, "channel_failing", "chn_broken")
    await watch.sql.execute("update tollgate.probes set status = 'up'")
    await watch.sql.execute("update tollgate.hosts set last_seen_at = now() + interval '1 day'")
    await watch.sql.execute("update tollgate.channels set failures = 0")
    for rule, about in (("upstream_down", "ups_1"), ("channel_failing", "chn_broken")):
        await is_resolved(watch, rule, about)
    await is_resolved(watch, "host_silent", "hst_1")


async def test_a_pause_of_the_sweeper_is_told_by_the_sweep_after_it(watch: Watch) -> None:
    await watch.round()
    await fires(watch, "sweeper_paused", "installation", 3600)
    await is_resolved(watch, "sweeper_paused", "installation")


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


async def test_spend_beyond_habit_and_a_negative_margin(watch: Watch) -> None:
    watch.now = watch.now.replace(minute=10)  # so that no round is in another hour
    for org, now_nanos in (("org_calm", 3), ("org_busy", 30), ("org_new", 30)):
        if org != "org_new":
            for day in range(4, 9):
                await tallied(watch, org, f"key_of_{org}", 24 * day, 2 * 10**9)
        await tallied(watch, org, f"key_of_{org}", 1, now_nanos * 10**9, cost=10**9)
    await tallied(watch, "org_calm", "key_of_org_calm", 1, 10**8, cost=10**9, model="dear")
    await rolled_up(watch)
    await watch.round()
    assert await watch.states("spend_of_org") == {"org_busy": "firing"}
    assert await watch.states("spend_of_key") == {"key_of_org_busy": "firing"}
    assert await watch.states("margin_negative") == {"dear": "pending"}
    await watch.round(600)
    assert await watch.states("margin_negative") == {"dear": "firing"}
    await watch.sql.execute("update tollgate.tallies set charge_nanos = cost_nanos where cost_nanos > 0")
    for rule, about in (("spend_of_org", "org_busy"), ("spend_of_key", "key_of_org_busy"), ("margin_negative", "dear")):
        await is_resolved(watch, rule, about, SLOW)


async def test_our_credit_at_openrouter(watch: Watch) -> None:
    await tallied(watch, "org_x", "key_x", 2, 10**9, cost=10**9)
    await rolled_up(watch)
    watch.observed = {("openrouter_credit_nanos", "installation"): 2 * 10**9}
    await fires(watch, "openrouter_credit", "installation")
    watch.observed = {("openrouter_credit_nanos", "installation"): 90 * 10**9}
    await is_resolved(watch, "openrouter_credit", "installation", SLOW)


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


EVENTS = """
insert into tollgate.security_events (
  kind, severity, subject_kind, subject, first_seen_at, last_seen_at, count, hour, count_in_hour
)
select e.kind, e.severity, e.about, e.subject, $1, $1, e.count, date_trunc('hour', $1::timestamptz, 'UTC'), e.count
from (values
  ('authentication_failed', 'warning', 'address', '192.0.2.1', 200),
  ('limit_exceeded', 'info', 'key', 'key_x', 2000),
  ('org_overdrawn', 'warning', 'org', 'org_x', 1)
) e (kind, severity, about, subject, count)
"""
NETWORKS = """
insert into tollgate.key_networks (key_id, network, first_seen_at, last_seen_at)
select k.key_id, ('10.' || k.net || '.' || n || '.0/24')::cidr,
  $1::timestamptz - interval '2 days' * (n = 0 and k.known)::int, $1
from (values ('key_x', 0, true, 25), ('key_new', 1, false, 18)) k (key_id, net, known, count),
  generate_series(0, k.count) n
"""


async def test_what_is_suspicious(watch: Watch) -> None:
    watch.now = watch.now.replace(minute=10)
    await watch.sql.execute(EVENTS, watch.now)
    await watch.sql.execute(NETWORKS, watch.now)
    await fires(watch, "refused_address", "192.0.2.1")
    for rule, about in (
        ("limits_hit", "key_x"),
        ("security_event", "org_overdrawn"),
        ("key_networks", "key_x"),
        ("key_new_networks", "key_x"),
    ):
        assert await watch.states(rule) == {about: "firing"}, rule
    await watch.sql.execute("delete from tollgate.security_events; delete from tollgate.key_networks")
    await watch.round(SLOW)
    await watch.round(700)
    for rule in ("refused_address", "limits_hit", "security_event", "key_networks", "key_new_networks"):
        assert set((await watch.states(rule)).values()) == {"resolved"}, rule


def test_each_rule_has_its_test() -> None:
    text = "".join((HERE / name).read_text(encoding="utf-8") for name in ("test_defaults.py", "test_detectors.py"))
    assert [rule for rule in RULES if f'"{rule}"' not in text] == []
