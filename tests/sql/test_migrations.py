"""Our `migrate` and `supabase db push` agree on one history."""

import asyncio
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from servers.postgres import Cluster, cluster
from servers.supabase_cli import supabase
from tollgate.database import migrations
from tollgate.database.migrations import MigrationError
from tollgate.database.schema_version import NEEDED

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "supabase" / "migrations").glob("*.sql"))
VERSIONS = [file.name[:14] for file in FILES]
LATER = "29990101000000"
UNRELEASED = """do $do$ begin
create schema tollgate;
create function tollgate.schema_version() returns text language sql as $$ select '20261129000300' $$;
create schema supabase_migrations;
create table supabase_migrations.schema_migrations (version text primary key);
insert into supabase_migrations.schema_migrations values ('20261129000300');
end $do$"""
"""What `migrate` sees of a database that was made before the first release."""


async def ask(url: str, sql: str, *arguments: object) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql, *arguments)
    finally:
        await connection.close()


async def history(url: str) -> object:
    return await ask(url, "select array_agg(version order by version) from supabase_migrations.schema_migrations")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with our supabase/ in it."""
    shutil.copytree(ROOT / "supabase", tmp_path / "supabase")
    return tmp_path


def push(project: Path, url: str) -> str:
    pushed = supabase(project, "db", "push", f"--remote={url}?sslmode=disable", "--yes")
    assert pushed.returncode == 0, pushed.stderr
    return pushed.stdout + pushed.stderr


def test_file_names_and_headers_follow_the_form() -> None:
    for file in FILES:
        assert migrations.FILE_NAME.match(file.name), file.name
        text = file.read_text()
        assert re.match(r"-- Why:  .+\n(--       .+\n)*-- What: .+\n(--       .+\n)*-- Care: .+\n", text), file.name
        assert "TODO" not in text, file.name
        assert re.search(rf"tollgate\.schema_version .*'{file.name[:14]}'", text), (
            f"{file.name} does not set its version"
        )
        assert "revoke execute on all functions in schema tollgate from public;" in text, file.name


def test_the_code_needs_the_newest_migration() -> None:
    assert VERSIONS[-1] == NEEDED


async def test_migrate_applies_everything_once(bare_database: str) -> None:
    assert [done.version for done in await migrations.migrate(bare_database)] == VERSIONS
    assert await migrations.migrate(bare_database) == []
    assert await history(bare_database) == VERSIONS
    assert await ask(bare_database, "select version from tollgate.schema_version") == NEEDED


async def test_two_starters_at_once_apply_everything_once(bare_database: str) -> None:
    both = await asyncio.gather(*(migrations.migrate(bare_database) for _ in range(4)))
    assert sorted(done.version for applied in both for done in applied) == VERSIONS


async def test_what_supabase_pushed_is_ours_already(bare_database: str, project: Path) -> None:
    push(project, bare_database)
    assert await history(bare_database) == VERSIONS
    assert await migrations.migrate(bare_database) == []
    assert "up to date" in push(project, bare_database)


async def test_what_we_migrated_is_supabase_s_already(bare_database: str, project: Path) -> None:
    await migrations.migrate(bare_database)
    assert "up to date" in push(project, bare_database)


async def test_each_goes_on_where_the_other_stopped(
    bare_database: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [migrations.Migration(str(int(LATER) + number), f"step_{number}", "select 1;") for number in range(2)]
    shipped = migrations.shipped()
    push(project, bare_database)
    monkeypatch.setattr(migrations, "shipped", lambda: [*shipped, steps[0]])
    assert await migrations.migrate(bare_database) == steps[:1]
    for step in steps:
        (project / "supabase" / "migrations" / f"{step.version}_{step.name}.sql").write_text(step.sql)
    push(project, bare_database)
    assert await history(bare_database) == [*VERSIONS, *(step.version for step in steps)]
    monkeypatch.setattr(migrations, "shipped", lambda: [*shipped, *steps])
    assert await migrations.migrate(bare_database) == []


async def test_history_of_other_things_in_the_project_is_left_alone(bare_database: str) -> None:
    await migrations.migrate(bare_database)
    await ask(bare_database, "insert into supabase_migrations.schema_migrations (version) values ('29990101000000')")
    assert await migrations.migrate(bare_database) == []


async def test_a_database_ahead_of_the_code_is_refused_and_left_alone(bare_database: str) -> None:
    await migrations.migrate(bare_database)
    await ask(bare_database, "update tollgate.schema_version set version = '29990101000000'")
    with pytest.raises(MigrationError, match=r"29990101000000, newer than this code \(\d{14}\): deploy the newer code"):
        await migrations.migrate(bare_database)


async def test_a_database_from_before_the_first_release_is_refused_and_left_alone(bare_database: str) -> None:
    await ask(bare_database, UNRELEASED)
    with pytest.raises(MigrationError, match=r"before its first release.* point DATABASE_URL at an empty database"):
        await migrations.migrate(bare_database)
    assert await history(bare_database) == ["20261129000300"]
    assert await ask(bare_database, "select to_regclass('tollgate.orgs')") is None


async def test_a_database_with_another_baseline_is_refused(own_database: str) -> None:
    """Before the first release it is written anew, and no step leads from one to the next."""
    await ask(own_database, "update supabase_migrations.schema_migrations set statements = array['select 1']")
    with pytest.raises(MigrationError, match=r"before its first release.* point DATABASE_URL at an empty database"):
        await migrations.migrate(own_database)


async def test_a_migration_that_fails_is_rolled_back_and_named(
    bare_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = migrations.shipped()
    broken = migrations.Migration("29990101000000", "broken", "create table public.half_done (); select 1 / 0;")
    monkeypatch.setattr(migrations, "shipped", lambda: [*shipped, broken])
    with pytest.raises(
        MigrationError, match=r"29990101000000_broken\.sql failed and was rolled back: division by zero"
    ):
        await migrations.migrate(bare_database)
    assert await history(bare_database) == VERSIONS
    assert await ask(bare_database, "select to_regclass('public.half_done')") is None


async def test_a_migration_does_not_wait_for_a_lock_without_end(
    bare_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrations.migrate(bare_database)
    shipped = migrations.shipped()
    change = migrations.Migration("29990101000000", "change", "alter table tollgate.orgs add column later text;")
    monkeypatch.setattr(migrations, "shipped", lambda: [*shipped, change])
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT", "200ms")
    monkeypatch.setattr(migrations, "ATTEMPTS", 2)
    busy = await asyncpg.connect(bare_database)
    async with busy.transaction():
        await busy.fetchval("select count(*) from tollgate.orgs")
        with pytest.raises(MigrationError, match="a table is in use; try again"):
            await migrations.migrate(bare_database)
    await busy.close()
    assert len(await migrations.migrate(bare_database)) == 1


async def test_a_role_that_may_not_make_roles_can_still_migrate(postgres: Cluster, bare_database: str) -> None:
    """Some hosts give one login without createrole; there the direct door must do without Supabase's roles."""
    name = bare_database.rsplit("/", 1)[1]
    await ask(postgres.url(), f'create role "{name}" login')
    await ask(postgres.url(), f'grant create on database "{name}" to "{name}"')
    await ask(bare_database, f'grant create on schema public to "{name}"')
    try:
        assert len(await migrations.migrate(postgres.url(name, user=name))) == len(VERSIONS)
    finally:
        await ask(bare_database, f'drop owned by "{name}" cascade')
        await ask(postgres.url(), f'drop owned by "{name}"')
        await ask(postgres.url(), f'drop role "{name}"')


@pytest.fixture(scope="module", params=["15", "16", "17", "18"])
def cluster_of_version(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp(f"postgres-{request.param}"), request.param) as made:
        yield made


async def test_every_supported_postgres_takes_the_migrations(cluster_of_version: Cluster) -> None:
    url = cluster_of_version.url()
    assert len(await migrations.migrate(url)) == len(VERSIONS)
    caller = '{"console": "test"}'
    seed = "select public.tollgate_seed($1, $2, $3, $4)"
    org = '{"id": "org_1", "name": "One", "plan_id": "free"}'
    owner = '{"id": "usr_1", "email": "a@b", "name": "", "role": "member"}'
    key = f"""{{"name": "k", "digest": "{"ab" * 32}", "pepper": "00000000", "prefix": "tg_live_", "last_four": "abcd",
               "environment": "live", "scopes": ["chat"], "ip_allowlist": ["10.0.0.0/8"], "expires_at": null}}"""
    assert '"created": true' in str(await ask(url, seed, caller, org, owner, key))
    await ask(url, "select public.tollgate_grant($1, 'org_1', 5, 'funding', 'r', 'ref')", caller)
    balance = await ask(
        url,
        "select public.tollgate_balance($1)",
        f'{{"digests": ["{"ab" * 32}"], "pepper": "00000000", "ip": "10.1.2.3"}}',
    )
    assert '"balance_nanos": 5' in str(balance)


def test_supabase_s_advisors_find_nothing(own_database: str, project: Path) -> None:
    advised = supabase(
        project, "db", "advisors", f"--remote={own_database}?sslmode=disable", "--level", "warn", "--fail-on", "warn"
    )
    assert "No issues found" in advised.stdout + advised.stderr, advised.stdout + advised.stderr
    assert advised.returncode == 0


async def test_supabase_s_advisors_would_find_a_defect(own_database: str, project: Path) -> None:
    await ask(own_database, "create table public.open_to_all (id int primary key)")
    advised = supabase(
        project, "db", "advisors", f"--remote={own_database}?sslmode=disable", "--level", "warn", "--fail-on", "warn"
    )
    assert advised.returncode != 0
    assert "rls_disabled_in_public" in advised.stdout + advised.stderr
