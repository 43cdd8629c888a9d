"""Three processes sweep at once while every rule fires and is resolved, twice; one more is killed in a round, and
another while it sends."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import asyncpg
import pytest

from alerts import receivers
from alerts.instances import VAULT_KEY, Instance
from alerts.receivers import Receiver, receiver
from alerts.senders import a_sender
from alerts.watch import Watch
from completions.paid import eventually
from people import Person
from tollgate.alerts.channels import Channels
from tollgate.alerts.deliveries import Deliveries
from tollgate.alerts.signals import RULES
from tollgate.upstreams.address_guard import Guard
from tollgate.vault.rules import Vault

pytestmark = pytest.mark.anyio

BEYOND = """
insert into tollgate.readings (process, signal, subject, value, at)
select 'storm', r.signal, 'storm', case r.comparison when 'below' then -1e9 else 1e13 end, now() + interval '1 hour'
from tollgate.alert_rules r
on conflict do nothing
"""
CLEAR = "delete from tollgate.readings where process = 'storm'"
LATER = "update tollgate.alert_scan set scanned_at = scanned_at - interval '10 s'"
LEASES_END = "update tollgate.deliveries set due_at = now() where state = 'waiting'"
BLOCKED = "select count(*) from pg_stat_activity where $1 = any (pg_blocking_pids(pid))"

Change = tuple[str, str]
"""The id of an alert, and its new state."""


def changes_in(messages: Iterable[Any]) -> Counter[Change]:
    return Counter((alert["id"], alert["state"]) for one in messages for alert in one["data"]["alerts"])


class Storm:
    def __init__(self, url: str, watch: Watch, hook: Receiver, pager: Receiver) -> None:
        self.url, self.watch, self.hook, self.pager = url, watch, hook, pager
        self.instances = [Instance(url) for _ in range(5)]

    async def open_channels(self, sender: Callable[[Vault], Deliveries]) -> None:
        admin = Person(self.watch.door, "admin")
        await admin.seed()
        vault = Vault([VAULT_KEY])
        channels = Channels(vault, Guard(allow_private=True), sender(vault), "admin")
        for kind, where, secret in (("webhook", self.hook, None), ("pagerduty", self.pager, "routing-key")):
            body = {
                "name": kind,
                "kind": kind,
                "url": where.url,
                "secret": secret,
                "severity": "info",
                "state": "active",
            }
            await channels.create(admin.at_the_door(), body)

    async def sweep(self, *which: Instance) -> None:
        await self.watch.sql.execute(LATER)
        for one in which:
            one.begin()
        for one in which:
            await one.ended()

    async def one_dies_in_a_round(self, victim: Instance, others: list[Instance]) -> None:
        """It has moved the alerts on, and waits to write what is told. Postgres may go on with its round without it."""
        lock = await asyncpg.connect(self.url)
        await lock.execute("begin; lock table tollgate.deliveries in exclusive mode")

        async def wait(count: int) -> None:
            async def are_blocked() -> bool:
                return bool(await self.watch.sql.fetchval(BLOCKED, lock.get_server_pid()) == count)

            await eventually(are_blocked)

        await self.watch.sql.execute(LATER)
        victim.begin()
        await wait(1)
        for one in others:
            one.begin()
        await wait(1 + len(others))
        victim.kill()
        await lock.execute("rollback")
        await lock.close()
        for one in others:
            await one.ended()

    async def one_dies_while_it_sends(self, victim: Instance) -> None:
        came = len(self.hook.received)
        self.hook.answer = self.pager.answer = receivers.HANGS
        await self.watch.sql.execute(LATER)
        victim.begin()
        await eventually(lambda: len(self.hook.received) > came)
        victim.kill()
        self.hook.answer = self.pager.answer = receivers.OK
        await self.watch.sql.execute(LEASES_END)

    async def changes(self) -> set[Change]:
        found = await self.watch.rows("select alert_id, state from tollgate.alert_changes where state <> 'pending'")
        return {(row["alert_id"], row["state"]) for row in found}

    async def written(self, kind: str) -> Counter[Change]:
        found = await self.watch.rows(
            "select content from tollgate.deliveries d join tollgate.channels c on c.id = channel_id where kind = $1",
            kind,
        )
        return changes_in(row["content"] for row in found)


@pytest.fixture
async def storm(own_database: str, watch: Watch) -> AsyncIterator[Storm]:
    await watch.sql.execute("update tollgate.alert_rules set for_seconds = 0, clear_seconds = 0")
    async with receiver() as hook, receiver() as pager, a_sender(watch.door) as sender:
        made = Storm(own_database, watch, hook, pager)
        await made.open_channels(sender)
        try:
            yield made
        finally:
            for one in made.instances:
                one.kill()


async def test_every_change_is_told_once_to_each_channel(storm: Storm) -> None:
    *three, first_victim, second_victim = storm.instances
    await storm.watch.sql.execute(BEYOND)
    await storm.one_dies_in_a_round(first_victim, three)
    await storm.sweep(*three)
    await storm.watch.sql.execute(CLEAR)
    await storm.one_dies_while_it_sends(second_victim)
    await storm.sweep(*three)
    for readings in (BEYOND, CLEAR):
        await storm.watch.sql.execute(readings)
        await storm.sweep(*three)

    async def is_all_sent() -> bool:
        await storm.watch.sql.execute(LEASES_END)  # a busy machine may have been too late
        await storm.sweep(*three)
        return not await storm.watch.rows("select from tollgate.deliveries where state <> 'sent'")

    await eventually(is_all_sent)
    changes = await storm.changes()
    assert Counter(state for _, state in changes) >= Counter(firing=2 * len(RULES), resolved=2 * len(RULES))
    for kind in ("webhook", "pagerduty"):
        assert await storm.written(kind) == dict.fromkeys(changes, 1), kind
    messages = {got.headers["webhook-id"]: got.json for got in storm.hook.received}
    assert Counter((a["id"], a["state"]) for one in messages.values() for a in one["data"]["alerts"]) == dict.fromkeys(
        changes, 1
    )
    states = {"trigger": "firing", "resolve": "resolved"}
    assert {(got.json["dedup_key"], states[got.json["event_action"]]) for got in storm.pager.received} == changes
