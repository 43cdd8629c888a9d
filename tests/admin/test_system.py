"""GET /admin/system/database, with the rights of the owner of our functions."""

import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import httpx
import pytest

from admin.api_client import admin_api
from gateway import BOTH_DOORS
from people import PEPPER, Person
from servers.postgres import Cluster
from tollgate.admin.schemas.system import in_force
from tollgate.app import create_app
from tollgate.database import Door, migrations
from tollgate.database.postgres import PostgresDoor
from tollgate.settings import Settings, read

DATABASE = "/admin/system/database"
Sql = Callable[..., Awaitable[Any]]


async def state(door: Door, admin: Person) -> Any:
    app = create_app(read({"KEY_PEPPER": PEPPER}), door=door)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tollgate") as client:
        answer = await client.get(DATABASE, headers={"authorization": f"Bearer {admin.secret}"})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture
async def alone(own_database: str) -> AsyncIterator[Door]:
    made = PostgresDoor(own_database, pool_size=2, deadline_seconds=30)
    yield made
    await made.close()


@pytest.fixture
async def admin(alone: Door) -> Person:
    made = Person(alone, "admin")
    await made.seed()
    return made


@BOTH_DOORS
async def test_an_admin_sees_how_the_database_fares(door: Door, person: Any) -> None:
    found = await state(door, await person("admin"))
    tables = {table["table"]: table for table in found["sizes"]["tables"]}
    assert {"requests", "transfers", "orgs", "api_keys"} <= set(tables)
    assert found["sizes"]["tables_bytes"] == sum(table["table_bytes"] for table in tables.values())
    assert found["sizes"]["indexes_bytes"] == sum(table["index_bytes"] for table in tables.values())
    assert found["sizes"]["database_bytes"] > found["sizes"]["tables_bytes"]
    assert 0 < found["connections"]["used_here"] <= found["connections"]["used"] <= found["connections"]["most"] == 800
    assert found["schema_version"].isdigit()
    assert found["server_version"].startswith("18")


async def test_what_is_not_kept_is_null_with_its_reason(alone: Door, admin: Person) -> None:
    found = await state(alone, admin)
    assert (found["slowest"]["source"], found["slowest"]["functions"]) == (None, None)
    assert "track_functions is none" in found["slowest"]["reason"]
    assert found["last_backup"]["archived_at"] is None
    assert "does not archive its write-ahead log" in found["last_backup"]["reason"]


async def test_where_functions_are_timed_the_slowest_are_named(
    alone: Door, admin: Person, own_database: str, sql: Sql
) -> None:
    name = own_database.rsplit("/", 1)[1]
    await sql(own_database, f"alter database \"{name}\" set track_functions = 'pl'")
    timed = PostgresDoor(own_database, pool_size=1, deadline_seconds=30)
    await state(timed, admin)
    found = await state(timed, admin)
    await timed.close()
    assert found["slowest"]["source"] == "pg_stat_user_functions"
    assert found["slowest"]["reason"] is None


STATEMENTS_AS_SUPABASE_HAS_THEM = """
create schema extensions;
set allow_system_table_mods = on;
insert into pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
values (99999, 'pg_stat_statements', 10, 'extensions'::regnamespace, false, '1');
create view extensions.pg_stat_statements as
select d.oid as dbid, q.query, 4::bigint as calls, q.total as total_exec_time, q.total as max_exec_time
from pg_database d, (values
  ('select public.tollgate_admit(items => $1)', 30::float8),
  ('WITH a AS (SELECT "public"."tollgate_admit"("items" := $1))', 10),
  ('select public.tollgate_balance(caller => $1)', 8),
  ('select * from tollgate_elsewhere', 99)
) q (query, total) where d.datname = current_database();
"""
NOT_LOADED = """
create function extensions.fails() returns oid language plpgsql as $$
begin raise exception 'must be loaded' using errcode = 'object_not_in_prerequisite_state'; end $$;
create view extensions.pg_stat_statements as
select extensions.fails() as dbid, 'public.tollgate_admit'::text as query, 1::bigint as calls,
  1::float8 as total_exec_time, 1::float8 as max_exec_time;
"""
"""As the extension says it where the server was started without its library. These servers do not come with it."""


async def test_statements_are_asked_first_where_they_are_kept(alone: Door, admin: Person, own_database: str) -> None:
    await in_it(own_database, STATEMENTS_AS_SUPABASE_HAS_THEM)
    slowest = (await state(alone, admin))["slowest"]
    assert (slowest["source"], slowest["reason"]) == ("pg_stat_statements", None)
    assert slowest["functions"] == [
        {"function": "tollgate_admit", "calls": 8, "total_ms": 40.0, "mean_ms": 5.0, "most_ms": 30.0},
        {"function": "tollgate_balance", "calls": 4, "total_ms": 8.0, "mean_ms": 2.0, "most_ms": 8.0},
    ]


async def test_statements_that_may_not_be_read_are_no_failure(alone: Door, admin: Person, own_database: str) -> None:
    await in_it(own_database, STATEMENTS_AS_SUPABASE_HAS_THEM + "drop view extensions.pg_stat_statements;" + NOT_LOADED)
    slowest = (await state(alone, admin))["slowest"]
    assert (slowest["source"], slowest["functions"]) == (None, None)
    assert slowest["reason"] == "pg_stat_statements is installed but cannot be read here: must be loaded."


async def in_it(database: str, statements: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute(statements)
    await connection.close()


async def test_the_oldest_transaction_is_another_s(alone: Door, admin: Person, own_database: str) -> None:
    assert (await state(alone, admin))["oldest_transaction"] is None
    other = await asyncpg.connect(own_database)
    async with other.transaction():
        pid = await other.fetchval("select pg_backend_pid()")
        found = (await state(alone, admin))["oldest_transaction"]
        assert (found["pid"], found["state"]) == (pid, "idle in transaction")
    await other.close()


async def test_a_table_read_whole_and_a_key_without_index_are_named(
    alone: Door, admin: Person, own_database: str, sql: Sql
) -> None:
    assert (await state(alone, admin))["indexes"]["missing"] == []
    await sql(own_database, "create table tollgate.notes (id int, org_id text references tollgate.orgs (id))")
    reader = await asyncpg.connect(own_database)
    await reader.execute("insert into tollgate.notes select i from generate_series(1, 10100) i")
    for _ in range(101):
        await reader.fetchval("select count(*) from tollgate.notes where id = 0")
    await reader.fetchval("select pg_stat_force_next_flush()")
    await reader.close()
    missing = (await state(alone, admin))["indexes"]["missing"]
    assert [one["table"].removeprefix("tollgate.") for one in missing] == ["notes", "notes"]
    assert {one["reason"].split(" ")[0] for one in missing} == {"101", "foreign"}


async def test_an_index_that_keeps_things_unique_is_never_unused(alone: Door, admin: Person) -> None:
    unused = {one["index"] for one in (await state(alone, admin))["indexes"]["unused"]}
    assert "holds_due" in unused
    assert not {name for name in unused if name.endswith("_pkey")} | ({"security_events_open"} & unused)


async def test_no_superuser_is_needed(postgres: Cluster, bare_database: str, sql: Sql) -> None:
    """Some hosts give only a login with few rights; then the page shows what that login may see, and says so."""
    name = bare_database.rsplit("/", 1)[1]
    owner = f"owner_{secrets.token_hex(4)}"
    for statement in (
        f"create role {owner} login",
        f'grant create on database "{name}" to {owner}',
        f"grant usage, create on schema public to {owner}",
    ):
        await sql(bare_database, statement)
    url = postgres.url(name, user=owner)
    await migrations.migrate(url)
    plain = PostgresDoor(url, pool_size=1, deadline_seconds=30)
    try:
        operator = Person(plain, "admin")
        await operator.seed()
        found = await state(plain, operator)
    finally:
        await plain.close()
        await sql(bare_database, f"drop owned by {owner} cascade")
        await sql(bare_database, f"drop role {owner}")
    assert found["sees_all_sessions"] is False
    assert found["sizes"]["database_bytes"] > 0
    assert found["connections"]["used"] > 0


async def test_without_hosts_the_summary_is_of_this_machine(alone: Door, admin: Person, sandbox: Any) -> None:
    async with admin_api(alone, sandbox, admin) as api:
        whole = await api.ask("GET", "/admin/system/summary")
        one = await api.ask("GET", "/admin/system/host/summary")
        await api.refused("GET", "/admin/system/host/trends", 404)  # this process has recorded nothing yet
    assert (whole["hosts"], whole["hosts_seen"], whole["mem_total_mb"]) == (0, 0, one["mem_total_mb"])
    assert (one["host_id"], ":" in one["process"]) == (None, True)


async def test_only_operators_may_look(door: Door, person: Any) -> None:
    someone = await person()
    app = create_app(read({"KEY_PEPPER": PEPPER}), door=door)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tollgate") as client:
        answer = await client.get(DATABASE, headers={"authorization": f"Bearer {someone.secret}"})
        assert answer.status_code == 403
        assert (await client.get(DATABASE)).status_code == 401


@BOTH_DOORS
async def test_the_settings_in_force_are_shown_without_secrets(door: Door, sandbox: Any, person: Any) -> None:
    given = {"CRON_SECRET": "a-cron-secret-of-the-tests", "MARKUP": "0.05"}
    async with admin_api(door, sandbox, await person("admin"), **given) as api:
        found = await api.ask("GET", "/admin/system/settings")
        base_url = {one["name"]: one for one in found["settings"]}["OPENROUTER_BASE_URL"]
        assert base_url["value"] == sandbox.url
        await api.of(await person()).refused("GET", "/admin/system/settings", 403)
    shown = {one["name"]: one for one in found["settings"]}
    assert len(shown) == len(Settings.model_fields)
    assert (shown["MARKUP"]["value"], shown["MARKUP"]["default"], shown["MARKUP"]["is_set"]) == ("0.05", "0", True)
    assert (shown["LOG_CONTENT"]["value"], shown["LOG_CONTENT"]["is_set"]) == ("none", False)
    secret = shown["CRON_SECRET"]
    assert (secret["value"], secret["is_secret"], secret["is_set"]) == (None, True, True)
    assert (shown["METRICS_TOKEN"]["is_secret"], shown["METRICS_TOKEN"]["is_set"]) == (True, False)
    text = json.dumps(found)
    assert given["CRON_SECRET"] not in text
    assert PEPPER not in text
    assert "sk-or" not in text
    assert found["schema_version"] == found["needed_schema_version"]
    assert (found["postgres_version"][:2], found["host"]) == ("18", "server")


def test_the_password_in_an_address_is_not_shown() -> None:
    chosen = read({"KEY_PEPPER": PEPPER, "OPENROUTER_BASE_URL": "https://user:secret@example.com/api"})
    shown = {one.name: one.value for one in in_force(chosen)}
    assert shown["OPENROUTER_BASE_URL"] == "https://example.com/api"
