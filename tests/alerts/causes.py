"""What makes each rule fire: something that really happens, until its block ends."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, time, timedelta
from functools import partial
from typing import NamedTuple

from alerts import receivers
from alerts.receivers import receiver
from alerts.scene import HERE, Scene
from completions.paid import admit, an_item, eventually, released, settle, settled
from fleet.agent import enrolled
from tollgate.backups import store as backups
from tollgate.process import clock, machine

Subjects = Mapping[str, str]
"""By rule: what the alert is about."""
INSTALLATION = "installation"


class Cause(NamedTuple):
    rules: tuple[str, ...]
    happening: Callable[[Scene], AbstractAsyncContextManager[Subjects]]


CAUSES: list[Cause] = []
"""In the order in which they begin: the last ones end when the clock of the processes moves on."""


def cause(*rules: str) -> Callable[[Callable[[Scene], AsyncIterator[Subjects]]], None]:
    def register(happening: Callable[[Scene], AsyncIterator[Subjects]]) -> None:
        CAUSES.append(Cause(rules, asynccontextmanager(happening)))

    return register


@cause("books")
async def a_balance_changed_by_hand(scene: Scene) -> AsyncIterator[Subjects]:
    someone = await scene.customer()
    change = "update tollgate.orgs set balance_nanos = balance_nanos + $2 where id = $1"
    await scene.sql(change, someone.org_id, 1)
    assert (await scene.operator.ask("POST", "/admin/audit"))["fault_count"] == 1
    yield {"books": INSTALLATION}
    await scene.sql(change, someone.org_id, -1)
    faults = (await scene.operator.ask("POST", "/admin/audit"))["faults"]
    assert faults == [], faults


@cause("database_connections", "database_size", "process_disk")
async def thresholds_below_what_is_used(scene: Scene) -> AsyncIterator[Subjects]:
    """No test may use up what its neighbours need, so it is the threshold that moves."""
    rules = {
        "database_connections": INSTALLATION,
        "database_size": INSTALLATION,
        "process_disk": f"{HERE}:{os.getpid()}",
    }
    for rule in rules:
        await scene.change_rule(rule, threshold=0.1, clear_threshold=None)
    yield rules
    for rule in rules:
        await scene.change_rule(rule, threshold=10**15, clear_threshold=None)


@cause("unsettled")
async def openrouter_does_not_say_what_calls_cost(scene: Scene) -> AsyncIterator[Subjects]:
    await scene.change_rule("unsettled", threshold=3, clear_threshold=1)
    someone = await scene.customer()
    await scene.call(someone, fault="no-usage,no-generation", times=3)
    await scene.earlier("requests", "11 minutes", "state = 'unsettled'")
    yield {"unsettled": INSTALLATION}
    await scene.sql("update tollgate.holds set sweeps = 12, next_sweep_at = now()")


@cause("quarantined")
async def an_upstream_reports_a_trillion_tokens(scene: Scene) -> AsyncIterator[Subjects]:
    someone, model = await scene.customer(), await scene.dear_model()
    await scene.call(someone, model, fault="absurd-usage")
    yield {"quarantined": INSTALLATION}
    await scene.earlier("requests", "25 hours", "org_id = $1", someone.org_id)
    await scene.rolled_up()


@cause("security_event")
async def a_call_costs_more_than_its_hold(scene: Scene) -> AsyncIterator[Subjects]:
    await scene.call(await scene.customer(), fault="cost-differs=10")
    yield {"security_event": "org_overdrawn"}
    events = await scene.operator.ask("GET", "/admin/security-events", params={"kind": "org_overdrawn"})
    await scene.operator.ask("POST", f"/admin/security-events/{events['data'][0]['id']}/acknowledge")


@cause("margin_negative")
async def a_late_settlement_above_the_hold(scene: Scene) -> AsyncIterator[Subjects]:
    """The sweeper ended the request before its answer came; the org pays at most the hold, and we pay it all."""
    someone = await scene.customer()
    asked = an_item(someone, model="sandbox/words", models=["sandbox/words"])
    await admit(scene.door, asked)
    await settle(scene.door, released(asked))
    await settle(scene.door, settled(asked, 2 * 10**8))
    yield {"margin_negative": "sandbox/words"}
    await scene.earlier("requests", "3 hours", "org_id = $1", someone.org_id)
    await scene.rolled_up()


@cause("reconciliation")
async def a_call_that_our_books_lost(scene: Scene) -> AsyncIterator[Subjects]:
    noon = datetime.combine(clock.now().date() - timedelta(days=1), time(12), UTC)
    someone = await scene.customer()
    scene.openrouter.now = noon.timestamp()
    await scene.call(someone)
    scene.openrouter.now = None

    async def move(moment: datetime) -> None:
        change = "update tollgate.requests set created_at = $2::timestamptz, settled_at = $2 where org_id = $1"
        await scene.sql(change, someone.org_id, moment)
        await scene.rolled_up()
        await scene.operator.ask("POST", f"/admin/reconciliation/{noon.date()}/run")

    await move(noon - timedelta(days=3))
    yield {"reconciliation": noon.date().isoformat()}
    await move(noon)


@cause("spend_of_org", "spend_of_key")
async def twelve_calls_where_one_is_usual(scene: Scene) -> AsyncIterator[Subjects]:
    someone, model = await scene.customer(), await scene.dear_model()
    for day in (1, 3, 5, 9):
        assert await scene.call(someone, model) == [200]
        recent = "org_id = $1 and created_at > now() - interval '2 hours'"
        await scene.earlier("requests", f"{day} days", recent, someone.org_id)
    await scene.rolled_up()
    assert set(await scene.call(someone, model, times=12)) == {200}
    yield {"spend_of_org": someone.org_id, "spend_of_key": someone.key_id}
    await scene.earlier("requests", "3 hours", "org_id = $1", someone.org_id)
    await scene.rolled_up()


@cause("balance_low", "key_budget_near", "key_budget_reached")
async def an_org_and_a_key_spend_all_that_they_have(scene: Scene) -> AsyncIterator[Subjects]:
    someone, model = await scene.customer(30), await scene.dear_model()
    key = f"/admin/keys/{someone.key_id}"
    await scene.operator.ask("PATCH", key, json={"budget_credits": 30})
    while await scene.call(someone, model) == [200]:
        pass
    spent = (await scene.operator.ask("GET", key))["budget_spent_nanos"]
    await scene.operator.ask("PATCH", key, json={"budget_nanos": spent})
    yield {
        "balance_low": someone.org_id,
        "key_budget_near": someone.key_id,
        "key_budget_reached": someone.key_id,
    }
    await scene.grant(someone, 1000)
    await scene.operator.ask("PATCH", key, json={"budget_nanos": None})


@cause("expired_holds", "database_transaction")
async def a_session_left_open_that_locks_a_hold(scene: Scene) -> AsyncIterator[Subjects]:
    await scene.change_rule("database_transaction", threshold=1)
    someone = await scene.customer()
    (granted,) = await admit(scene.door, an_item(someone))
    hold = granted["granted"]["id"]
    await scene.sql("update tollgate.requests set expires_at = now() - interval '11 minutes' where id = $1", hold)
    async with scene.session(f"select from tollgate.holds where request_id = '{hold}' for update") as pid:

        async def is_old() -> bool:
            age = "select clock_timestamp() - xact_start > interval '1 s' from pg_stat_activity where pid = $1"
            return bool(await scene.sql(age, pid))

        await eventually(is_old)
        yield {"expired_holds": INSTALLATION, "database_transaction": INSTALLATION}
    await scene.change_rule("database_transaction", threshold=3600)


@cause("key_expiring")
async def a_key_of_three_weeks_is_sixteen_days_old(scene: Scene) -> AsyncIterator[Subjects]:
    someone = await scene.customer()
    ends_at = (clock.now() + timedelta(days=21)).isoformat()
    await scene.operator.ask("PATCH", f"/admin/keys/{someone.key_id}", json={"expires_at": ends_at})
    await scene.earlier("api_keys", "16 days", "id = $1", someone.key_id)
    yield {"key_expiring": someone.key_id}
    await scene.operator.ask("PATCH", f"/admin/keys/{someone.key_id}", json={"expires_at": None})


@cause("key_networks", "key_new_networks")
async def a_key_is_used_from_twenty_more_networks(scene: Scene) -> AsyncIterator[Subjects]:
    someone = await scene.customer()
    assert await scene.asked_from("192.0.2.1", someone.secret) == 200
    counted = "select count(*) >= $2 from tollgate.key_networks where key_id = $1"
    await scene.is_counted(counted, someone.key_id, 1)
    await scene.earlier("key_networks", "5 days", "key_id = $1", someone.key_id)
    await scene.earlier("api_keys", "5 days", "id = $1", someone.key_id)
    for network in range(21):
        await scene.asked_from(f"198.18.{network}.1", someone.secret)
    await scene.is_counted(counted, someone.key_id, 22)
    yield {"key_networks": someone.key_id, "key_new_networks": someone.key_id}
    await scene.earlier("key_networks", "25 hours")


@cause("refused_address")
async def an_address_guesses_keys(scene: Scene) -> AsyncIterator[Subjects]:
    await scene.change_rule("refused_address", threshold=20, clear_threshold=10)
    guesser = "198.51.100.7"
    for number in range(20):
        assert await scene.asked_from(guesser, f"sk-guess-{number}") == 401
    await scene.is_counted(COUNTED, guesser, 20)
    yield {"refused_address": guesser}
    await scene.earlier("security_events", "2 hours", "subject = $1", guesser)


@cause("limits_hit")
async def a_client_that_does_not_wait(scene: Scene) -> AsyncIterator[Subjects]:
    await scene.change_rule("limits_hit", threshold=20, clear_threshold=10)
    someone = await scene.customer()
    limits = {"limits": {"requests_per_day": 1}}
    await scene.operator.ask("PATCH", f"/admin/keys/{someone.key_id}", json=limits)
    assert await scene.call(someone, times=21) == [200, *[429] * 20]
    await scene.is_counted(COUNTED, someone.key_id, 20)
    yield {"limits_hit": someone.key_id}
    await scene.earlier("security_events", "2 hours", "subject = $1", someone.key_id)


COUNTED = "select sum(count) >= $2 from tollgate.security_events where subject = $1"


@cause("backup_old")
async def eight_days_with_a_backup_that_nobody_verified(scene: Scene) -> AsyncIterator[Subjects]:
    door = scene.admin.at_the_door()
    backup = {"digest": "ab" * 32, "file": "nightly.dump", "bytes": 1, "as_of": clock.now().isoformat()}
    await scene.earlier("orgs", "8 days", "id = $1", scene.admin.org_id)
    await backups.note(door, backup)
    yield {"backup_old": INSTALLATION}
    await backups.note_verification(door, {**backup, "is_sound": True, "faults": []})


@cause("channel_failing")
async def a_receiver_that_answers_500(scene: Scene) -> AsyncIterator[Subjects]:
    async with receiver(receivers.ERROR) as broken:
        body = {"name": "broken", "kind": "webhook", "url": broken.url, "org_ids": ["org_of_nobody"]}
        made = await scene.operator.ask("POST", "/admin/alerts/channels", 201, json=body)
        test = f"/admin/alerts/channels/{made['id']}/test"
        for _ in range(3):
            assert (await scene.operator.ask("POST", test))["state"] == "waiting"
        yield {"channel_failing": made["id"]}
        broken.answer = receivers.OK
        assert (await scene.operator.ask("POST", test))["state"] == "sent"


@cause("upstream_down")
async def a_server_where_nothing_listens(scene: Scene) -> AsyncIterator[Subjects]:
    made = await scene.operator.upstream()
    look = {"json": {"ids": [made["id"]]}}
    for _ in range(2):
        await scene.operator.ask("POST", "/admin/upstreams/refresh-health", **look)
    yield {"upstream_down": made["id"]}
    there = {"base_url": scene.upstream_url}
    await scene.operator.ask("PATCH", f"/admin/upstreams/{made['id']}", json=there)
    await scene.operator.ask("POST", "/admin/upstreams/refresh-health", **look)


@cause("host_silent")
async def an_agent_that_does_not_call_for_three_minutes(scene: Scene) -> AsyncIterator[Subjects]:
    agent = await enrolled(scene.operator)
    await agent.sync()
    await scene.earlier("hosts", "3 minutes")
    yield {"host_silent": agent.host_id}
    await agent.sync()


@cause("latency", "first_token")
async def an_upstream_that_thinks_for_two_minutes(scene: Scene) -> AsyncIterator[Subjects]:
    someone = await scene.customer()
    scene.openrouter.takes_seconds = 130
    assert set(await scene.call(someone, times=20, stream=True)) == {200}
    scene.openrouter.takes_seconds = 0
    yield {"latency": "openrouter", "first_token": "openrouter"}
    await scene.earlier("requests", "1 hour")


@cause("database_slow")
async def a_round_that_waits_for_a_lock(scene: Scene) -> AsyncIterator[Subjects]:
    async with scene.session("lock table tollgate.readings in access exclusive mode") as pid:
        sweeping = asyncio.create_task(scene.scheduled(scene.instances[0]))

        async def waits() -> bool:
            blocked = "select exists (select from pg_stat_activity where $1 = any (pg_blocking_pids(pid)))"
            return bool(await scene.sql(blocked, pid))

        await eventually(waits)
        scene.clock.now += 3  # less than DATABASE_TIMEOUT_SECONDS, after which a round fails
    await sweeping
    yield {"database_slow": INSTALLATION}


@cause("process_memory")
async def a_container_that_is_nearly_full(scene: Scene) -> AsyncIterator[Subjects]:
    def use(used: int) -> None:
        (scene.folder / "memory.current").write_text(f"{used}\n")
        scene.clock.now += machine.SAMPLE_SECONDS

    (scene.folder / "memory.max").write_text("1000000\n")
    use(950_000)
    scene.patch.setattr(machine, "memory_of_cgroup", partial(machine.memory_of_cgroup, scene.folder))
    await scene.earlier("process_samples", "1 minute")
    yield {"process_memory": f"{HERE}:{os.getpid()}"}
    use(100_000)
    await scene.earlier("process_samples", "1 minute")


@cause("openrouter_credit")
async def our_account_is_empty(scene: Scene) -> AsyncIterator[Subjects]:
    await scene.call(await scene.customer())
    scene.openrouter.has_credit = False
    scene.clock.now += 301
    yield {"openrouter_credit": INSTALLATION}
    scene.openrouter.has_credit = True
    scene.clock.now += 301


@cause("catalog_stale")
async def openrouter_has_no_list_for_seven_hours(scene: Scene) -> AsyncIterator[Subjects]:
    scene.openrouter.has_list = False
    scene.clock.now += 7 * 3600
    await scene.operator.ask("POST", "/admin/refresh-models", 503)
    yield {"catalog_stale": INSTALLATION}
    scene.openrouter.has_list = True
    await scene.operator.ask("POST", "/admin/refresh-models")


@cause("error_rate", "breaker_open")
async def openrouter_answers_500_to_two_orgs(scene: Scene) -> AsyncIterator[Subjects]:
    first, second = await scene.customer(), await scene.customer()
    for someone in (first, second):
        assert min(await scene.call(someone, fault="status", times=6)) >= 500
    scene.clock.now += 10  # it is half open: rounds are seldom in the seconds that one of OpenRouter is open
    yield {"error_rate": "openrouter", "breaker_open": "openrouter"}
    scene.clock.now += 60
    assert await scene.call(first) == [200]
    await scene.earlier("requests", "1 hour")


@cause("sweeper_paused")
async def nothing_swept_for_eleven_minutes(scene: Scene) -> AsyncIterator[Subjects]:
    await scene.earlier("alert_scan", "11 minutes")
    yield {"sweeper_paused": INSTALLATION}
