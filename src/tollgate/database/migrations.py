"""Applies supabase/migrations, in step with `supabase db push`: the same files and the same history table."""

import asyncio
import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from tollgate.database.schema_version import NEEDED

LOCK = "tollgate_migrate"
TURN_TIMEOUT = "10s"
LOCK_TIMEOUT = "1s"
"""Calls that need a table queue behind a migration that waits for it, so it waits less than a call may take."""
ATTEMPTS = 20
PAUSE_SECONDS = 1.0
"""In which those get their turn who waited behind us."""
CONNECT_SECONDS = 10
FILE_NAME = re.compile(r"^(?P<version>\d{14})_(?P<name>\w+)\.sql$")

HISTORY = """
create schema if not exists supabase_migrations;
create table if not exists supabase_migrations.schema_migrations (version text primary key);
alter table supabase_migrations.schema_migrations add column if not exists statements text[];
alter table supabase_migrations.schema_migrations add column if not exists name text;
"""


class MigrationError(Exception):
    """Why the database was left as it was, in one line for the operator."""


@dataclass(frozen=True)
class Migration:
    version: str
    name: str
    sql: str


def shipped() -> list[Migration]:
    """The migrations of this code, oldest first."""
    return [
        Migration(found["version"], found["name"], path.read_text(encoding="utf-8"))
        for path in sorted(_folder().iterdir())
        if (found := FILE_NAME.match(path.name))
    ]


async def migrate(url: str) -> list[Migration]:
    """Applies what is missing and returns it. Each migration is one transaction with its line of history."""
    try:
        connection = await asyncpg.connect(url, statement_cache_size=0, timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        reason = str(error) or f"no answer within {CONNECT_SECONDS} s"
        raise MigrationError(f"cannot connect to the database: {reason}") from None
    try:
        return [done for migration in shipped() if (done := await _patiently(connection, migration))]
    except asyncpg.LockNotAvailableError:
        raise MigrationError("another migration is running, or a table is in use; try again in a moment") from None
    finally:
        await connection.close()


async def _patiently(connection: asyncpg.Connection, migration: Migration) -> Migration | None:
    """A lock that is not to be had is let go, and tried for again a little later."""
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(asyncpg.LockNotAvailableError):
            return await _apply(connection, migration)
        await asyncio.sleep(PAUSE_SECONDS)
    return await _apply(connection, migration)


async def _apply(connection: asyncpg.Connection, migration: Migration) -> Migration | None:
    async with connection.transaction():
        await connection.execute(f"set local lock_timeout = '{TURN_TIMEOUT}'")
        await connection.fetchval("select pg_advisory_xact_lock(hashtextextended($1, 0))", LOCK)
        await connection.execute(HISTORY)
        # The CLI knows nothing of our lock, but it must insert into this table too.
        await connection.execute("lock table supabase_migrations.schema_migrations in share row exclusive mode")
        await _refuse_when_unreleased(connection, migration)
        await _refuse_when_ahead(connection)
        history = "select exists (select from supabase_migrations.schema_migrations where version = $1)"
        if await connection.fetchval(history, migration.version):
            return None
        await connection.execute(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
        try:
            await connection.execute(migration.sql)
        except asyncpg.LockNotAvailableError:
            raise
        except asyncpg.PostgresError as error:
            file = f"{migration.version}_{migration.name}.sql"
            raise MigrationError(f"{file} failed and was rolled back: {error}") from error
        await connection.execute(
            "insert into supabase_migrations.schema_migrations (version, name, statements) values ($1, $2, $3)",
            migration.version,
            migration.name,
            [migration.sql],
        )
        return migration


async def _refuse_when_unreleased(connection: asyncpg.Connection, migration: Migration) -> None:
    """Before the first release, each migration replaced a function that told the version, and later the baseline was
    written anew. The CLI keeps each statement apart, so what it applied is compared only where it is one."""
    unreleased = r"""
      select to_regprocedure('tollgate.schema_version()') is not null or exists (
        select from supabase_migrations.schema_migrations m
        where m.version = $1 and cardinality(m.statements) = 1 and rtrim(m.statements[1], E'; \n') <> rtrim($2, E'; \n')
      )
    """
    if await connection.fetchval(unreleased, migration.version, migration.sql):
        raise MigrationError(
            "the database was made by Tollgate before its first release, and those migrations are gone: point "
            "DATABASE_URL at an empty database, or move the embedded one away (mv .tollgate .tollgate.old), and run "
            "`python -m tollgate migrate` again; nothing was changed"
        )


async def _refuse_when_ahead(connection: asyncpg.Connection) -> None:
    """Asks the schema itself: the history may hold other people's migrations too."""
    if not await connection.fetchval("select to_regclass('tollgate.schema_version') is not null"):
        return
    present = await connection.fetchval("select version from tollgate.schema_version")
    if present > NEEDED:
        raise MigrationError(
            f"the database is at {present}, newer than this code ({NEEDED}): deploy the newer code; nothing was changed"
        )


def _folder() -> Path:
    """Inside an installed package, or beside the sources."""
    package = Path(__file__).parents[1]
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parents[1] / "supabase" / "migrations"
