"""How well the detectors find what is planted in a generated week of 1,000 orgs: precision and recall.

    DATABASE_URL=… python bench/detectors.py [--seeds 11 12 13] [--orgs 1000] [--days 7] [--history 28]

For each seed it makes a database beside the given one, migrates it, and lets an hour at a time pass: the security
counters count the hour's requests and are written, its usage is added to the tallies, and the rules are evaluated, all
by the functions of the product, with the clock as an argument. Then it drops the database. It lists each incident with
the rules that found it, and each false alarm. Ends with 1 where one was missed or five or more alarms were false.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections import Counter
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from detectors_week import START, Incident, Org, Week

from tollgate.audit.security_counters import SecurityCounters
from tollgate.database import migrations

DETECTORS = (
    *("credential_stuffing", "ids_enumerated", "models_read_widely", "models_asked_widely", "idempotency_keys_reused"),
    *("idempotency_key_shared", "key_networks", "key_new_networks", "spend_of_org", "spend_of_key"),
)
"""The rules. The others are switched off: this measures no other alert."""
MOST_FALSE = 5
LATE_HOURS = 3
"""After its last hour an incident may still be told of: usage is rolled up when an hour is over, and rules see two."""
REQUESTS_A_WRITE = 1000
"""A server remembers no more between two writes."""

PEOPLE = """
with orgs as (
  insert into tollgate.orgs (id, name, plan_id)
  select distinct p ->> 'org_id', 'Org', 'enterprise' from jsonb_array_elements($1::jsonb) p
),
users as (
  insert into tollgate.users (id, org_id, email)
  select distinct p ->> 'user_id', p ->> 'org_id', p ->> 'user_id' || '@week.example'
  from jsonb_array_elements($1::jsonb) p
)
insert into tollgate.api_keys (id, org_id, user_id, name, digest, pepper, prefix, last_four, scopes, created_at)
select p ->> 'id', p ->> 'org_id', p ->> 'user_id', 'Key', sha256((p ->> 'id')::bytea), '00000000', 'tg_live_', 'abcd',
  '{chat}', (p ->> 'created_at')::timestamptz
from jsonb_array_elements($1::jsonb) p
"""
TALLIES = """
select tollgate.add_tallies(array_agg(jsonb_populate_record(null::tollgate.usage, u)))
from jsonb_array_elements($1::jsonb) u
"""
COUNTS = "select public.tollgate_write_security_counts($1::jsonb, $2::jsonb, $3::jsonb, $4::jsonb, $5::jsonb)"
ALARMS = """
select rule_id as rule, subject, pending_at as since, value from tollgate.alerts order by pending_at, rule_id, subject
"""


class Alarm(NamedTuple):
    rule: str
    subject: str
    hour: float
    value: float


class Score(NamedTuple):
    found: list[tuple[Incident, list[str]]]
    false: list[Alarm]
    """Alarms of no incident, each time that one began to fire."""

    @property
    def missed(self) -> list[Incident]:
        return [incident for incident, rules in self.found if not rules]

    def line(self, name: str) -> str:
        """Alarms of one incident count once."""
        hits, false = len(self.found) - len(self.missed), len(self.false)
        return (
            f"{name}: found {hits} of {len(self.found)} incidents, {false} false alarms; "
            f"recall {hits / len(self.found):.2f}, precision {hits / max(hits + false, 1):.2f}"
        )


class Installation:
    """A database in which a generated week passes."""

    def __init__(self, connection: asyncpg.Connection, week: Week) -> None:
        self._sql = connection
        self._week = week
        self._now = START
        self._counters = SecurityCounters(now=lambda: self._now, clock=lambda: self._now.timestamp())

    async def live(self) -> None:
        await self._sql.execute("set jit = off; set synchronous_commit = off")
        await self._sql.execute("update tollgate.alert_rules set state = 'disabled' where id <> all ($1)", DETECTORS)
        keys = [
            {"id": key, "org_id": org.id, "user_id": org.user_id, "created_at": org.since.isoformat()}
            for org in self._week.orgs
            for key in org.keys
        ]
        await self._sql.execute(PEOPLE, json.dumps(keys))
        week = self._week
        for day in range(week.first, 0, 24):
            await self._tally([row for hour in range(day, day + 24) for row in self._usage(hour)])
        await self._sql.execute("analyze")
        for hour in range(week.counted_from, week.hours):
            await self._pass(hour)

    async def _pass(self, hour: int) -> None:
        """One hour: in its first half it is counted, towards its end rules are evaluated, and then it is rolled up."""
        ends_at = START + timedelta(hours=hour + 1)
        for number, request in enumerate(self._week.requests(hour)):
            if number % REQUESTS_A_WRITE == 0:
                await self._write()
                self._now = ends_at - timedelta(minutes=55 - min(number / 1000, 30))
            self._counters.count("GET", "/", request.facts, request.caller)
        await self._write()
        if hour < 0:
            return
        await self._evaluate(ends_at - timedelta(minutes=10))
        await self._tally(self._usage(hour))
        await self._sql.execute("update tollgate.rolled set rolled_until = $1", ends_at)

    def _usage(self, hour: int) -> list[dict[str, Any]]:
        at = (START + timedelta(hours=hour)).isoformat()
        return [_usage(at, *row) for row in self._week.spent(hour)]

    async def _tally(self, rows: list[dict[str, Any]]) -> None:
        if rows:
            await self._sql.execute(TALLIES, json.dumps(rows))

    async def _write(self) -> None:
        if taken := self._counters.take():
            order = ("refusals", "trespasses", "uses", "refused_calls", "spreads")
            await self._sql.execute(COUNTS, *(json.dumps(taken[name]) for name in order))

    async def _evaluate(self, now: datetime) -> None:
        await self._sql.execute("select public.tollgate_alert_round('[]', 'week', $1)", now.isoformat())

    async def score(self) -> Score:
        rows = await self._sql.fetch(ALARMS)
        alarms = [
            Alarm(row["rule"], row["subject"], (row["since"] - START) / timedelta(hours=1), float(row["value"]))
            for row in rows
        ]
        found = [(one, sorted({alarm.rule for alarm in alarms if _tells(alarm, one)})) for one in self._week.incidents]
        false = [alarm for alarm in alarms if not any(_tells(alarm, one) for one in self._week.incidents)]
        return Score(found, false)


def _usage(start: str, org: Org, key: str, model: int, nanos: int) -> dict[str, Any]:
    counts = dict.fromkeys(
        ("errors", "streamed", "estimated", "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens"),
        0,
    )
    return {
        "start": start, "org_id": org.id, "user_id": org.user_id, "key_id": key, "model": f"maker/model-{model}",
        "upstream": "openrouter", "requests": 1, "charge_nanos": nanos, "cost_nanos": nanos, "last_at": start, **counts,
    }  # fmt: skip


def _tells(alarm: Alarm, incident: Incident) -> bool:
    return alarm.subject in incident.subjects and incident.since <= alarm.hour <= incident.until + LATE_HOURS


async def scored(url: str, week: Week) -> Score:
    connection = await asyncpg.connect(url)
    try:
        installation = Installation(connection, week)
        await installation.live()
        return await installation.score()
    finally:
        await connection.close()


def report(seed: int, score: Score) -> None:
    print(score.line(f"seed {seed}"))
    for incident, rules in score.found:
        told = ", ".join(rules) or "MISSED"
        print(f"  {incident.kind} ({incident.strength}) from hour {incident.since}: {told}")
    for alarm in score.false:
        print(f"  false: {alarm.rule} of {alarm.subject} in hour {alarm.hour:.1f}, {alarm.value:g}")


async def of_seed(url: str, week: Week, name: str) -> Score:
    server = await asyncpg.connect(url)
    beside = urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
    await server.execute(f'drop database if exists "{name}"')
    await server.execute(f'create database "{name}"')
    try:
        await migrations.migrate(beside)
        return await scored(beside, week)
    finally:
        await server.execute(f'drop database "{name}" with (force)')
        await server.close()


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13, 14, 15])
    parser.add_argument("--orgs", type=int, default=1000)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--history", type=int, default=28)
    asked = parser.parse_args()
    failed = False
    alarms: Counter[str] = Counter()
    for seed in asked.seeds:
        began = time.monotonic()
        week = Week(seed, orgs=asked.orgs, days=asked.days, history_days=asked.history)
        score = await of_seed(os.environ["DATABASE_URL"], week, f"detectors_{seed}")
        report(seed, score)
        print(f"  {time.monotonic() - began:.0f} s", flush=True)
        alarms.update(alarm.rule for alarm in score.false)
        failed |= bool(score.missed) or len(score.false) >= MOST_FALSE
    print(f"false alarms by rule: {dict(alarms)}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
