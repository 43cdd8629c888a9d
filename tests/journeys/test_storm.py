"""The storm: whatever dies in the middle, every request ends once, and what is charged is what is owed.

By hand for longer: `STORM_SECONDS=120 STORM_SEED=7 pytest -s tests/journeys/test_storm.py`.
"""

import asyncio
import json
import os
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from completions.paid import eventually, given, rooms
from conftest import DEADLINE_SECONDS
from gateway import Upstream
from journeys.storm import Mortal, MortalPostgres, Row, Storm, a_server, alive, rows_of
from people import Person
from sandbox.serving import serving
from servers.postgres import AS_SUPABASE_HAS_IT
from servers.process import free_port
from tollgate.completions.late_endings import MOST_LOOKS
from tollgate.credits import store as credits
from tollgate.database import Door, migrations
from tollgate.database.postgres import PostgresDoor
from tollgate.keys.authentication import console
from tollgate.sandbox.app import create_sandbox
from tollgate.sandbox.state import Habits

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("STORM_SECONDS", "8"))
SEED = os.environ.get("STORM_SEED") or secrets.token_hex(4)
HABITS = Habits(
    list_faults=True, generation_delay_seconds=0.2, token_delay_seconds=0.002, gate_seconds=1.0, kept_generations=10**7
)
RICH, POOR, EMPTY = 10**13, 3_000_000, 0
ORGS = [(RICH, "enterprise"), (RICH, "enterprise"), (RICH, "free"), (POOR, "enterprise"), (EMPTY, "enterprise")]


@dataclass
class Ground:
    """Where it rages."""

    postgres: MortalPostgres
    server: Mortal
    upstream: Upstream
    url: str
    address: str
    folder: Path
    environment: dict[str, str]

    async def tell(self, *words: str) -> Any:
        """What a command reports."""
        command = [sys.executable, "-m", "tollgate", *words, "--json"]
        environment = {**self.environment, "DATABASE_TIMEOUT_SECONDS": "5"}
        told = await asyncio.to_thread(
            subprocess.run, command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120
        )
        assert told.returncode == 0, told.stdout + told.stderr
        return json.loads(told.stdout)

    async def ask(self, statement: str) -> list[Row]:
        return await rows_of(self.url, statement)


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    postgres = MortalPostgres(tmp_path / "postgres")
    sandbox = create_sandbox(HABITS)
    with serving(sandbox) as address, alive(postgres):
        upstream = Upstream(sandbox, address)
        postgres.cluster.run(AS_SUPABASE_HAS_IT)
        url = postgres.cluster.create_supabase_project("storm")
        asyncio.run(migrations.migrate(url))
        port = free_port()
        environment = {
            **given(upstream.url), "PATH": os.environ["PATH"], "HOME": str(tmp_path), "PORT": str(port),
            "DATABASE_URL": url, "DATABASE_TIMEOUT_SECONDS": "1", "SANDBOX_BASE_URL": upstream.url,
            "UPSTREAM_TIMEOUT_SECONDS": "5", "HOLD_TTL_SECONDS": "60",
        }  # fmt: skip
        server = a_server(environment, port, tmp_path)
        with alive(server):
            yield Ground(postgres, server, upstream, url, f"http://127.0.0.1:{port}", tmp_path, environment)


async def test_after_a_storm_every_request_has_ended_once_and_is_charged_what_is_owed(ground: Ground) -> None:
    door = PostgresDoor(ground.url, pool_size=4, deadline_seconds=DEADLINE_SECONDS)
    people = [await a_person(ground, door, nanos, plan) for nanos, plan in ORGS]
    storm = Storm(SEED, ground.address, people, [Person(door) for _ in range(3)])
    sys.stdout.write(f"\nThe storm of STORM_SEED={SEED}, STORM_SECONDS={SECONDS:g}\n")
    await storm.rage(SECONDS, ground.server, ground.postgres)
    await asyncio.to_thread(ground.server.start)
    await calm(ground, door)
    await door.close()

    rows = {row["id"]: row for row in await ground.ask("select * from tollgate.requests")}
    theirs = {one["id"]: one for one in ground.upstream.generations()}
    told(ground, storm, rows, theirs)
    assert ground.server.deaths > 0
    assert ground.postgres.deaths > 0
    assert not [told for told in storm.statuses if "internal_error" in told]
    assert "unexpected_error" not in (ground.folder / "server.log").read_text(errors="replace")
    await the_books_agree(ground, rows)
    what_was_promised_is_kept(storm, rows)
    each_generation_is_paid_for_once(rows, theirs)
    what_nobody_knows_is_bounded(rows, theirs)


async def a_person(ground: Ground, door: Door, nanos: int, plan: str) -> Person:
    made = Person(door)
    await made.seed()
    await ground.ask(f"update tollgate.orgs set plan_id = '{plan}' where id = '{made.org_id}'")
    operator = console(door, "tests")
    if nanos:
        await credits.grant(operator, made.org_id, nanos, source="funding", reason="", reference=made.org_id)
    return made


async def calm(ground: Ground, door: Door) -> None:
    """Sweeps until nothing is waiting. Nobody waits for the hour that a sweeper takes: each look is made due by SQL."""

    async def all_is_still() -> bool:
        busy = await ground.ask(
            "select 1 from pg_stat_activity where datname = 'storm' and state <> 'idle' and pid <> pg_backend_pid()"
        )
        return not busy and ground.upstream.all_ended()

    await eventually(all_is_still)
    await hasten(ground)
    await ground.tell("sweep")
    async with rooms(door, ground.upstream.url) as ours:
        for _ in range(2 * MOST_LOOKS):
            if not await ground.ask("select 1 from tollgate.holds"):
                break
            await hasten(ground)
            await ours.sweeper.sweep()


async def hasten(ground: Ground) -> None:
    await ground.ask("update tollgate.holds set next_sweep_at = clock_timestamp()")


async def the_books_agree(ground: Ground, rows: dict[str, Row]) -> None:
    assert {row["state"] for row in rows.values()} <= {"settled", "released"}
    assert await ground.ask("select * from tollgate.holds") == []
    assert await ground.ask("select id from tollgate.orgs where held_nanos <> 0 or balance_nanos < 0") == []
    charges = await ground.ask("select reference, amount_nanos from tollgate.transfers where kind = 'charge'")
    assert sorted((one["reference"], one["amount_nanos"]) for one in charges) == sorted(
        (row["id"], row["charge_nanos"]) for row in rows.values() if row["charge_nanos"]
    )
    assert (await ground.tell("audit"))["faults"] == []


def what_was_promised_is_kept(storm: Storm, rows: dict[str, Row]) -> None:
    """Every charge that a client was told is on the books, and whoever was refused is not."""
    assert storm.served <= rows.keys()
    assert not storm.refused & rows.keys()
    assert storm.promised == {request_id: rows[request_id]["charge_nanos"] for request_id in storm.promised}


def each_generation_is_paid_for_once(rows: dict[str, Row], theirs: dict[str, Row]) -> None:
    known = Counter(row["generation_id"] for row in rows.values() if row["generation_id"])
    assert known.keys() <= theirs.keys()
    assert set(known.values()) <= {1}
    owed = {row["id"]: theirs[row["generation_id"]]["owed_nanos"] for row in rows.values() if row["generation_id"]}
    wrong = [row for row in exact(rows) if row["charge_nanos"] != owed.get(row["id"], 0)]
    assert wrong == []
    asked = Counter(one["external_user"] for one in theirs.values() if one["owed_nanos"])
    assert set(asked.values()) <= {1}  # however often it was sent under its idempotency key


def what_nobody_knows_is_bounded(rows: dict[str, Row], theirs: dict[str, Row]) -> None:
    """A generation that no row knows belongs to a request that died before it heard of it: it is an estimate, and what
    is owed for it is no more than was held."""
    assert all(row["charge_nanos"] <= row["hold_nanos"] for row in rows.values() if row not in exact(rows))
    for org_id, lost in by_org(orphans(rows, theirs)).items():
        estimated = [row for row in rows.values() if row["org_id"] == org_id and row["estimated"]]
        assert len(lost) <= len(estimated)
        assert sum(one["owed_nanos"] for one in lost) <= sum(row["hold_nanos"] for row in estimated)


def exact(rows: dict[str, Row]) -> list[Row]:
    """Those of whom we say that they are charged what is owed for them."""
    return [row for row in rows.values() if not row["estimated"] and not row["quarantined"]]


def orphans(rows: dict[str, Row], theirs: dict[str, Row]) -> list[Row]:
    """What is owed for, and no row knows."""
    known = {row["generation_id"] for row in rows.values()}
    return [one for one in theirs.values() if one["owed_nanos"] and one["id"] not in known]


def by_org(generations: list[Row]) -> dict[str, list[Row]]:
    orgs: dict[str, list[Row]] = {}
    for one in generations:
        orgs.setdefault(one["external_user"].split()[0], []).append(one)
    return orgs


def told(ground: Ground, storm: Storm, rows: dict[str, Row], theirs: dict[str, Row]) -> None:
    """For whoever ran it by hand."""
    estimated = [row for row in rows.values() if row["estimated"]]
    quarantined = [row for row in rows.values() if row["quarantined"]]
    lost = orphans(rows, theirs)
    charged = sum(row["charge_nanos"] or 0 for row in rows.values())
    owed = sum(one["owed_nanos"] for one in theirs.values())
    lines = {
        "killed": f"server {ground.server.deaths} times, Postgres {ground.postgres.deaths} times",
        "calls": f"{storm.statuses.total()}: " + ", ".join(f"{n} {what}" for what, n in sorted(storm.statuses.items())),
        "requests": f"{len(rows)}: {dict(Counter(row['state'] for row in rows.values()))}",
        "promised": f"{len(storm.promised)} charges were told to clients",
        "owed": f"{owed} nanos for {len(theirs)} generations; charged {charged}, which is {charged - owed:+}",
        "estimated": f"{len(estimated)}, charged {_sum(estimated, 'charge_nanos')} of {_sum(estimated, 'hold_nanos')} "
        f"held; for {len(lost)} of them the upstream is owed {_sum(lost, 'owed_nanos')}",
        "quarantined": f"{len(quarantined)}, charged {_sum(quarantined, 'charge_nanos')} for "
        f"{sum(theirs[row['generation_id']]['owed_nanos'] for row in quarantined)} owed",
    }
    sys.stdout.write("".join(f"  {name:12}{line}\n" for name, line in lines.items()))


def _sum(rows: list[Row], name: str) -> int:
    return sum(row[name] for row in rows)
