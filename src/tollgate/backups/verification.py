"""Proves a backup: restores it into an embedded Postgres of its own, and looks at the books in it."""

import hashlib
import tempfile
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg

from tollgate.backups import dumps, rules, store
from tollgate.core.errors import TollgateError
from tollgate.database import Door, embedded, migrations
from tollgate.database.postgres import PostgresDoor
from tollgate.database.schema_version import NEEDED
from tollgate.process import signals

DEADLINE_SECONDS = 3600.0
VERSION = "select version from tollgate.schema_version"

Prove = Callable[[Door], Awaitable[dict[str, Any]]]
"""The audit of the books that a door leads to."""


class Verification(NamedTuple):
    faults: list[str]
    schema_version: str | None = None
    as_of: str | None = None
    books: dict[str, Any] | None = None
    """What the audit counted and found."""


def verify(file: Path, prove: Prove, now: datetime, most_days: float) -> Verification:
    with (
        tempfile.TemporaryDirectory(prefix="tollgate-backup-") as folder,
        embedded.running(Path(folder) / "data") as url,
    ):
        if faults := dumps.restore(url, file):
            return Verification(faults)
        return signals.run(look_into(url, prove, now, most_days))


def digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


async def look_into(url: str, prove: Prove, now: datetime, most_days: float) -> Verification:
    """At a database that was restored from a backup."""
    version = await schema_version(url)
    if version is None:
        return Verification(["there is no Tollgate database in it"])
    if version > NEEDED:
        newer = f"its schema is at {version}, newer than this code ({NEEDED}): verify it with the newer code"
        return Verification([newer], version)
    door = PostgresDoor(url, pool_size=1, deadline_seconds=DEADLINE_SECONDS)
    try:
        await migrations.migrate(url)  # as after a restore
        books = await prove(door)
        as_of = await store.moment(door)
    except (migrations.MigrationError, TollgateError) as error:
        return Verification([f"the books in it cannot be read: {error}"], version)
    finally:
        await door.close()
    wrong = [f"a row of the books does not agree: {one['fault']} {one['id']}" for one in books["faults"]]
    old = rules.age_fault(datetime.fromisoformat(as_of) if as_of else None, now, most_days)
    return Verification([*wrong, *([old] if old else [])], version, as_of, books)


async def schema_version(url: str) -> str | None:
    """None where there is no Tollgate."""
    try:
        connection = await asyncpg.connect(url, statement_cache_size=0)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise dumps.BackupError(f"cannot connect to the database: {error}") from None
    try:
        version: str | None = await connection.fetchval(VERSION)
        return version
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        return None
    finally:
        await connection.close()
