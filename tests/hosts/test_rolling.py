"""A rolling change: the previous version and today's serve the newer schema at once, under load."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from completions.paid import books_agree
from gateway import Upstream
from gateway import running as gateway
from hosts.program import asked, running, settings_of
from hosts.rolling import Load
from sandbox.serving import serving
from tollgate.database import migrations
from tollgate.database.migrations import Migration
from tollgate.database.postgres import PostgresDoor
from tollgate.health import checks
from tollgate.sandbox.app import create_sandbox
from tollgate.sandbox.state import Habits

ROOT = Path(__file__).parents[2]
PREVIOUS = "6064f8d94a1e18cb93ad72d77fff85bda4f60d5d"
"""The tag of the last release; before the first one, a commit."""
OPERATOR = "an-operator-of-the-tests-wxyz"
NEXT = "29990101000000"
HELD_SECONDS = 2.5
"""Longer than `migrate` waits at once, shorter than it waits in all."""

COMPATIBLE = f"""
alter table tollgate.orgs add column of_tomorrow text;
alter table tollgate.requests add column of_tomorrow text not null default 'x';
do $$ begin
  execute pg_get_functiondef('public.tollgate_admit(jsonb)'::regprocedure);
  execute pg_get_functiondef('public.tollgate_settle(jsonb)'::regprocedure);
end $$;
update tollgate.schema_version set version = '{NEXT}';
"""
"""A migration as the next release may bring it: columns that nobody knows yet, functions replaced by their like."""
BAD = "drop function public.tollgate_admit(jsonb)"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    made = create_sandbox(Habits(list_faults=True, generation_delay_seconds=0.0))
    with serving(made) as address:
        yield Upstream(made, address)


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def previous(tmp_path: Path) -> Path:
    """The folder with the previous version's package, as git has it, and with today's migrations: before the first
    release, they are written anew."""
    folder, archive = tmp_path / "previous", tmp_path / "previous.tar"
    try:
        git("archive", f"--output={archive}", PREVIOUS, "src")
    except subprocess.CalledProcessError as error:
        pytest.fail(f"git does not have {PREVIOUS}; fetch it (git fetch --unshallow --tags): {error.stderr}")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    shutil.copytree(ROOT / "supabase/migrations", folder / "supabase/migrations")
    return folder / "src"


@pytest.fixture
def with_next(monkeypatch: pytest.MonkeyPatch) -> Migration:
    """From here on `migrate` has one more."""
    made = Migration(NEXT, "of_tomorrow", COMPATIBLE)
    shipped = migrations.shipped()
    monkeypatch.setattr(migrations, "shipped", lambda: [*shipped, made])
    return made


def tell(environment: dict[str, str], folder: Path, *words: str) -> Any:
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **environment}
    command = [sys.executable, "-m", "tollgate", *words, "--json"]
    told = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert told.returncode == 0, told.stdout + told.stderr
    return json.loads(told.stdout)


def test_a_released_migration_is_never_edited() -> None:
    for tag in git("tag", "--list", "v*").split():
        assert git("diff", "--name-only", "--diff-filter=a", tag, "--", "supabase/migrations") == ""


async def test_old_and_new_code_serve_the_newer_schema_at_once(
    bare_database: str, upstream: Upstream, previous: Path, with_next: Migration, tmp_path: Path
) -> None:
    new = settings_of(upstream, DATABASE_URL=bare_database)
    old = new | {"PYTHONPATH": str(previous)}
    await asyncio.to_thread(tell, old, tmp_path, "migrate")
    await asyncio.to_thread(tell, old, tmp_path, "seed-key", OPERATOR)
    with running(tmp_path, old) as before:
        load = Load(before.address, OPERATOR)
        async with load.going_on():
            assert with_next in await migrated_past_a_lock(bare_database, load)
            await load.has_gone_on()
            with running(tmp_path, new) as after:
                await load.has_gone_on()
                load.address = after.address  # as a load balancer does
                await load.has_gone_on()
                await before.stopped()
                await load.has_gone_on()
                await load.ends()
    assert load.failures == []
    assert "error" not in before.printed + after.printed
    assert await asked(bare_database, "select 1 from tollgate.holds") == []
    await books_agree(bare_database)


async def migrated_past_a_lock(url: str, load: Load) -> list[Migration]:
    """While somebody holds a table that it changes. Those who call meanwhile do not wait for that somebody."""
    busy = await asyncpg.connect(url)
    migrating = None
    try:
        async with busy.transaction():
            await busy.fetchval("select count(*) from tollgate.orgs")
            migrating = asyncio.create_task(migrations.migrate(url))
            await asyncio.sleep(HELD_SECONDS)
            await load.has_gone_on()
            assert not migrating.done()
    finally:
        await busy.close()
    return await migrating


async def test_a_change_that_is_not_compatible_would_be_found(own_database: str, upstream: Upstream) -> None:
    with gateway({"DATABASE_URL": own_database}, upstream) as server:
        await asyncio.to_thread(tell, settings_of(upstream, DATABASE_URL=own_database), Path("/"), "seed-key", OPERATOR)
        load = Load(server.address, OPERATOR)
        async with load.going_on():
            await asked(own_database, BAD)
            await load.has_gone_on(10**6)
    assert "database_unavailable" in load.failures[0]


@pytest.mark.parametrize(
    ("version", "state"), [("20200101000000", "behind"), (NEXT, "connected")], ids=["older", "newer"]
)
async def test_the_code_serves_a_newer_schema_and_says_so_when_it_is_older(
    own_database: str, version: str, state: str
) -> None:
    await asked(own_database, "update tollgate.schema_version set version = $1", version)
    door = PostgresDoor(own_database, pool_size=1, deadline_seconds=30)
    try:
        assert (await checks.database(door))[0] == state
    finally:
        await door.close()
