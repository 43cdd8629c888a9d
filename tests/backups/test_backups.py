"""`python -m tollgate backup`: a backup is made, proven and restored, and a bad one is told from a good one."""

import asyncio
import gzip
import json
import secrets
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from completions.paid import admit, an_item, settle, settled
from journeys import commands
from operators import operating
from people import PEPPER, Person
from servers.postgres import Cluster, binaries
from tollgate.__main__ import _proof_of_backup
from tollgate.audit import chain_heads
from tollgate.backups import dumps, rules, verification
from tollgate.backups.dumps import BackupError
from tollgate.credits import store as credits
from tollgate.database.postgres import PostgresDoor
from tollgate.database.schema_version import NEEDED
from tollgate.keys.authentication import console

CHANGED = "update tollgate.transfers set amount_nanos = 2099 where kind = 'charge'"
REWRITTEN = (
    "update tollgate.transfers set reason = 'other'",
    "update tollgate.transfers t set chain = tollgate.chain_after(null, t) where t.position = 1",
    "update tollgate.transfers t set chain = tollgate.chain_after("
    "(select f.chain from tollgate.transfers f where f.position = 1), t) where t.position = 2",
    "update tollgate.orgs set chain_head = (select t.chain from tollgate.transfers t where t.position = 2)",
)

Run = Callable[..., subprocess.CompletedProcess[str]]


async def used(url: str) -> None:
    """A database with an org, a grant and a charge."""
    door = PostgresDoor(url, pool_size=1, deadline_seconds=30)
    someone = Person(door)
    await someone.seed()
    await credits.grant(console(door, "tests"), someone.org_id, 10**9, source="funding", reason="", reference="tests")
    item = an_item(someone)
    await admit(door, item)
    await settle(door, settled(item, 2100))
    await door.close()


async def forge(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("set session_replication_role = replica")
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


@pytest.fixture(scope="module")
def database(postgres: Cluster) -> Iterator[str]:
    name = f"tollgate_{secrets.token_hex(6)}"  # each worker that has a test of this module makes one
    url = postgres.create(name, "tollgate_template")
    asyncio.run(used(url))
    yield url
    postgres.drop(name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("backups")


@pytest.fixture(scope="module")
def run(database: str, folder: Path) -> Run:
    def ran(*words: str) -> subprocess.CompletedProcess[str]:
        settings = {"DATABASE_URL": database, "KEY_PEPPER": PEPPER, "LOG_LEVEL": "error"}
        return commands.run(*words, folder=folder, settings=settings)

    return ran


@pytest.fixture(scope="module")
def head(run: Run, folder: Path) -> str:
    """Of the books before any backup."""
    (folder / "head.json").write_text(run("audit", "--head").stdout)
    return "head.json"


@pytest.fixture(scope="module")
def sound(run: Run, folder: Path, head: str) -> Path:
    made = run("backup", "create", "--to", "sound.dump", "--json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["noted"]
    assert (folder / "sound.dump").stat().st_mode & 0o777 == 0o600
    return folder / "sound.dump"


def test_a_sound_backup_is_proven_and_noted(run: Run, sound: Path, head: str, database: str) -> None:
    told = run("backup", "verify", "sound.dump", "--against", head)
    assert told.returncode == 0, told.stderr
    first, second = told.stdout.splitlines()
    assert first.startswith("sound.dump is sound: ")
    assert second.endswith("orgs 1, transfers 2, requests 1.")
    assert run("backup", "restore", "sound.dump").stderr.startswith("tollgate: the database holds a Tollgate already")

    async def seen() -> tuple[Any, Any, Any]:
        door = PostgresDoor(database, pool_size=2, deadline_seconds=30)
        admin = Person(door, "admin")
        await admin.seed()
        async with operating(door, admin) as client:
            listed = (await client.get("/admin/backups", params={"is_sound": True})).json()
            same = (await client.get(f"/admin/backups/{listed['data'][0]['digest']}")).json()
            assert (await client.get("/admin/backups/none")).status_code == 404
        await door.close()
        connection = await asyncpg.connect(database)
        later = datetime.fromisoformat(listed["data"][0]["taken_at"]) + timedelta(days=3)
        days = await connection.fetchval("select value from tollgate.backup_readings($1)", later)
        await connection.close()
        return listed, same, days

    listed, same, days = asyncio.run(seen())
    (one,) = listed["data"]
    assert (listed["total"], one["file"], one["made_here"], one["faults"]) == (1, "sound.dump", True, [])
    assert (one["bytes"], one["schema_version"], days) == (sound.stat().st_size, NEEDED, 3)
    assert (one["counts"], same) == ({"orgs": 1, "transfers": 2, "requests": 1}, one)


def test_a_changed_row_of_the_ledger_and_its_age_are_told(run: Run, own_database: str, tmp_path: Path) -> None:
    asyncio.run(used(own_database))
    asyncio.run(forge(own_database, CHANGED))
    file = tmp_path / "forged.dump"
    dumps.create(own_database, file)
    told = run("backup", "verify", str(file), "--max-age-days", "0")
    assert told.returncode == 1
    assert told.stderr == f"tollgate: {file} cannot be relied on\n"
    assert "forged.dump is not sound: " in told.stdout
    assert "\na row of the books does not agree: chain trf_" in told.stdout
    assert told.stdout.endswith("it is 0.0 days old, and may be 0 (--max-age-days)\n")


def test_a_truncated_one_is_told(sound: Path, tmp_path: Path, bare_database: str) -> None:
    whole, cut = sound.read_bytes(), tmp_path / "cut.dump"
    for share in (0.1, 0.9):
        cut.write_bytes(whole[: int(len(whole) * share)])
        assert any("end of file" in fault for fault in dumps.restore(bare_database, cut)), share


def test_a_plain_dump_beside_what_we_cannot_restore_is_taken(
    own_database: str, bare_database: str, tmp_path: Path
) -> None:
    """As Supabase's backups are: of a whole cluster, with roles and extensions that are nowhere else."""
    asyncio.run(used(own_database))
    command = [binaries("18") / "pg_dump", "--schema=tollgate", "--schema=public", "--schema=supabase_migrations"]
    text = subprocess.run([*command, own_database], check=True, capture_output=True).stdout
    others = b"create extension pgsodium;\ncopy auth.users (id) from stdin;\n1\n\\.\n"
    file = tmp_path / "cluster.sql.gz"
    file.write_bytes(gzip.compress(others + text))
    assert dumps.restore(bare_database, file) == []
    assert asyncio.run(verification.schema_version(bare_database)) == NEEDED
    file.write_bytes(gzip.compress(others + text)[:-2000])
    assert dumps.restore(bare_database, file) == ["the file ends too early: it was not written or copied completely"]
    file.write_bytes(text[: len(text) // 2])
    assert "the file ends too early: no line says" in dumps.restore(bare_database, file)[0]


def test_what_keeps_a_backup_from_being_made_is_told(own_database: str, tmp_path: Path) -> None:
    file = tmp_path / "made.dump"
    with pytest.raises(BackupError, match=r"the server is Postgres 18\S*, and pg_dump is 16"):
        dumps.create(own_database, file, binaries("16"))
    with pytest.raises(BackupError, match="does not exist"):
        dumps.create(f"{own_database}_gone", file)
    with pytest.raises(BackupError, match=r"cannot connect .* does not exist"):
        asyncio.run(verification.schema_version(f"{own_database}_gone"))
    assert list(tmp_path.iterdir()) == []
    file.touch()
    with pytest.raises(BackupError, match="is there already"):
        dumps.create(own_database, file)
    with pytest.raises(BackupError, match="cannot read"):
        dumps.restore(own_database, tmp_path / "missing")


def test_a_password_is_no_argument_of_a_program() -> None:
    url, password = rules.without_password("postgresql://me:p%40ss@db.example:6543/tollgate?sslmode=require")
    assert (url, password) == ("postgresql://me@db.example:6543/tollgate?sslmode=require", "p@ss")
    assert rules.without_password("postgresql://me@db/x") == ("postgresql://me@db/x", None)


def test_what_a_restore_says_is_taken_apart() -> None:
    said = (
        'pg_restore: error: could not execute query: ERROR:  schema "public" already exists\n'
        'pg_restore: error: could not execute query: ERROR:  role "service_role" does not exist\n'
        "pg_restore: warning: errors ignored on restore: 2\n"
    )
    assert rules.faults_of_restore("", 0, plain=False) == rules.faults_of_restore(said, 1, plain=False) == []
    assert rules.faults_of_restore("", -9, plain=False) == ["the restore ended with status -9"]
    others = 'psql:<stdin>:3: ERROR:  relation "auth.users" does not exist\n'
    assert rules.faults_of_restore(others, 0, plain=True) == []
    ours = 'psql:<stdin>:3: ERROR:  relation "tollgate.orgs" does not exist\n'
    assert rules.faults_of_restore(others + ours, 0, plain=True) == ['relation "tollgate.orgs" does not exist']


def test_an_age_is_told_in_days() -> None:
    now = datetime(2026, 11, 30, tzinfo=UTC)
    assert rules.age_fault(now - timedelta(days=7), now, 7) is None
    assert rules.age_fault(now - timedelta(days=9), now, 7) == "it is 9.0 days old, and may be 7 (--max-age-days)"
    assert rules.age_fault(None, now, 7) == "no row in it says when it was taken"


async def test_books_that_were_rewritten_and_heads_that_are_too_new_are_told(own_database: str) -> None:
    await used(own_database)
    door = PostgresDoor(own_database, pool_size=1, deadline_seconds=30)
    head = await chain_heads.take(door)
    await door.close()
    await forge(own_database, *REWRITTEN)
    now = datetime.now(UTC)
    found = await verification.look_into(own_database, _proof_of_backup(head), now, 7)
    assert found.faults == []
    assert found.books
    assert found.books["rewritten"] == ["transfers_digest"]
    newer = {**head, "event_position": head["event_position"] + 1}
    with pytest.raises(chain_heads.UnusableHead, match="newer than the backup"):
        await verification.look_into(own_database, _proof_of_backup(newer), now, 7)
