"""Alerts move from state to state by their rule, and each change is told once."""

import json
import random
from datetime import timedelta
from typing import Any

import pytest

from alerts.watch import Watch

pytestmark = pytest.mark.anyio

MEMORY = ("process_memory_percent", "web-1")
BOOKS = ("books_faults", "installation")
"""Fires at once and clears at once."""


async def rule(watch: Watch, **fields: Any) -> None:
    await watch.sql.execute(
        "update tollgate.alert_rules r set (clear_threshold, for_seconds, clear_seconds, threshold, state) = "
        "(select n.clear_threshold, n.for_seconds, n.clear_seconds, n.threshold, n.state "
        "from jsonb_populate_record(r, $1::jsonb) n) where id = 'process_memory'",
        json.dumps(fields),
    )


async def test_states_follow_the_rule_through_any_readings(watch: Watch) -> None:
    """Against a model of the same words, on a walk that crosses both thresholds again and again."""
    await rule(watch, threshold=10, clear_threshold=5, for_seconds=25, clear_seconds=35)
    chance = random.Random(16)  # noqa: S311  # the same walk each time
    state, since, clear_since = "ok", 0, None
    seen = set()
    for now in range(0, 1000, 10):
        value = chance.choice([2, 4, 7, 9, 12, 15]) if now % 200 else 20
        if now % 250 > 130:
            value = 12 if now % 500 > 250 else 3
        watch.observed = {MEMORY: value}
        await watch.round()
        if state in ("ok", "resolved") and value >= 10:
            state, since = "pending", now
        elif state == "pending" and value < 10:
            state = "ok"
        if state == "pending" and now - since >= 25:
            state, clear_since = "firing", None
        elif state == "firing":
            clear_since = None if value >= 5 else now if clear_since is None else clear_since
            if clear_since is not None and now - clear_since >= 35:
                state = "resolved"
        found = (await watch.states("process_memory")).get("web-1", "ok")
        assert found == state or (state, found) == ("ok", "resolved"), (now, value)
        seen.add(state)
    assert seen == {"ok", "pending", "firing", "resolved"}


async def test_a_reading_of_one_process_is_not_cleared_by_another(watch: Watch) -> None:
    watch.observed = {("breaker_open", "openrouter"): 1}
    await watch.round(process="a")
    watch.observed = {("breaker_open", "openrouter"): 0}
    for _ in range(6):
        await watch.round(process="b")
    assert await watch.states("breaker_open") == {"openrouter": "firing"}
    for _ in range(4):  # `a` has ended and reports no more
        await watch.round(70, process="b")
    assert await watch.states("breaker_open") == {"openrouter": "resolved"}


async def test_a_silence_holds_back_and_what_still_fires_is_told_when_it_ends(watch: Watch) -> None:
    await watch.channel()
    await watch.sql.execute(
        "insert into tollgate.silences (reason, rules, starts_at, ends_at) "
        "values ('moved', '{books}', $1::timestamptz + interval '15 s', $1::timestamptz + interval '1 hour')",
        watch.now,
    )
    watch.observed = {BOOKS: 1}
    await watch.round()
    watch.observed = {}
    await watch.round()
    assert await watch.listed() == [("books", "installation", "firing"), ("books", "installation", "resolved")]
    watch.observed = {BOOKS: 1}
    await watch.round()
    watch.observed = {}
    await watch.round()  # fired and was resolved in silence
    watch.observed = {BOOKS: 1}
    await watch.round()
    assert len(await watch.told()) == 2
    await watch.sql.execute("update tollgate.silences set ends_at = $1", watch.now)
    await watch.round()
    assert (await watch.listed())[2:] == [("books", "installation", "firing")]


async def test_a_round_is_one_message_of_what_concerns_the_channel(watch: Watch) -> None:
    for name, fields in {
        "all": {},
        "critical": {"severity": "critical"},
        "one": {"rules": ["process_disk"]},
        "pager": {"kind": "pagerduty"},
        "org": {"org_ids": ["org_a"]},
        "off": {"state": "disabled"},
    }.items():
        await watch.channel(name, **fields)
    watch.observed = {BOOKS: 1, ("process_disk_percent", "web-1"): 95, ("balance_days_left", "org_a"): 0}
    await watch.round()
    told: dict[str, list[list[str]]] = {}
    for one in await watch.told():
        told.setdefault(one["channel_id"], []).append([alert["rule"] for alert in one["content"]["data"]["alerts"]])
    paged = told.pop("chn_pager")
    assert {name: [sorted(rules) for rules in messages] for name, messages in told.items()} == {
        "chn_all": [["balance_low", "books", "process_disk"]],
        "chn_critical": [["books", "process_disk"]],
        "chn_one": [["process_disk"]],
        "chn_org": [["balance_low"]],
    }
    assert sorted(paged) == [["balance_low"], ["books"], ["process_disk"]]
    incidents = await watch.rows("select distinct incident_id from tollgate.alerts")
    assert len(incidents) == 1


async def test_a_clock_that_was_a_day_ahead_stops_no_rounds(watch: Watch) -> None:
    await watch.round(86_400)
    watch.now -= timedelta(days=1)
    watch.observed = {BOOKS: 1}
    await watch.round()
    assert await watch.states("books") == {"installation": "firing"}


async def test_a_disabled_rule_resolves_its_alerts_and_keeps_the_history(watch: Watch) -> None:
    watch.observed = {MEMORY: 95}
    for _ in range(4):
        await watch.round(100)
    await rule(watch, state="disabled")
    await watch.round()
    history = await watch.rows("select state from tollgate.alert_changes order by position")
    assert [row["state"] for row in history] == ["pending", "firing", "resolved"]
