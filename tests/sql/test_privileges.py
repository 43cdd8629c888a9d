"""What the database lets strangers do: nothing."""

import secrets
from collections.abc import Iterator

import asyncpg
import httpx
import pytest

from conftest import TEMPLATE
from sandbox.serving import PATIENCE_SECONDS
from servers.postgres import Cluster
from servers.postgrest import token
from servers.relay import Relay

STRANGERS = ["anon", "authenticated"]
CHAINS = ["event_links", "chain_starts"]

OUR_FUNCTIONS = """
select p.oid::regprocedure::text as signature, n.nspname as schema, p.proname as name, p.prosecdef as definer,
       coalesce(p.proconfig, '{}') as config, obj_description(p.oid) as comment,
       p.proargnames as argument_names
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where n.nspname = 'tollgate' or (n.nspname = 'public' and p.proname like 'tollgate\\_%')
order by 1
"""
OUR_TABLES = """
select c.oid::regclass::text as name, c.relrowsecurity as secured, obj_description(c.oid) as comment
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'tollgate' and c.relkind in ('r', 'p', 'v', 'm')
order by 1
"""


@pytest.fixture(scope="module")
def database(postgres: Cluster) -> Iterator[str]:
    """A migrated database that these tests look at, and that refuses what they try."""
    name = f"tollgate_{secrets.token_hex(6)}"
    yield postgres.create(name, TEMPLATE)
    postgres.drop(name)


async def rows(url: str, sql: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        found: list[asyncpg.Record] = await connection.fetch(sql)
        return found
    finally:
        await connection.close()


@pytest.mark.parametrize("role", STRANGERS)
async def test_strangers_may_execute_no_function_of_ours(database: str, role: str) -> None:
    functions = await rows(database, OUR_FUNCTIONS)
    assert len(functions) > 10
    allowed = await rows(
        database,
        f"select signature from ({OUR_FUNCTIONS}) f where has_function_privilege('{role}', signature, 'execute')",
    )
    assert allowed == []


@pytest.mark.parametrize("role", [*STRANGERS, "service_role"])
async def test_no_role_of_the_api_may_touch_a_table(database: str, role: str) -> None:
    tables = await rows(database, OUR_TABLES)
    assert len(tables) >= 6
    privileges = "select, insert, update, delete, truncate, references, trigger"
    touched = await rows(
        database,
        f"select name from ({OUR_TABLES}) t where has_table_privilege('{role}', name, '{privileges}')",
    )
    assert touched == []
    usage = await rows(database, f"select has_schema_privilege('{role}', 'tollgate', 'usage, create') as any")
    assert usage[0]["any"] is False


async def test_the_server_may_execute_exactly_the_public_functions(database: str) -> None:
    allowed = await rows(
        database,
        f"select schema from ({OUR_FUNCTIONS}) f where has_function_privilege('service_role', signature, 'execute')",
    )
    public = [function for function in await rows(database, OUR_FUNCTIONS) if function["schema"] == "public"]
    assert [row["schema"] for row in allowed] == ["public"] * len(public)


@pytest.mark.parametrize("role", STRANGERS)
async def test_strangers_get_nothing_through_the_api(supabase_api: Relay, shared_database: str, role: str) -> None:
    supabase_api.restore()
    functions = [f for f in await rows(shared_database, OUR_FUNCTIONS) if f["schema"] == "public"]
    ours = [f for f in functions if not f["name"].startswith("tollgate_test_")]
    url = f"http://127.0.0.1:{supabase_api.port}/rest/v1"
    headers = {"authorization": f"Bearer {token(role)}"}
    async with httpx.AsyncClient(headers=headers, timeout=PATIENCE_SECONDS) as stranger:
        for function in ours:
            arguments = dict.fromkeys(function["argument_names"] or [])
            answer = await stranger.post(f"{url}/rpc/{function['name']}", json=arguments)
            assert answer.status_code in (401, 403), function["name"]
            assert answer.json()["code"] == "42501"
        for table in await rows(shared_database, OUR_TABLES):
            bare = table["name"].removeprefix("tollgate.")
            assert (await stranger.get(f"{url}/{bare}")).status_code == 404
            profile = {"accept-profile": "tollgate"}
            assert (await stranger.get(f"{url}/{bare}", headers=profile)).status_code == 406


async def test_public_functions_take_and_give_what_both_doors_carry_alike(database: str) -> None:
    types = await rows(
        database,
        """
        select distinct a::regtype::text as type from pg_proc p, unnest(p.proargtypes::oid[] || p.prorettype) a
        where p.pronamespace = 'public'::regnamespace and p.proname like 'tollgate\\_%'
        """,
    )
    assert {row["type"] for row in types} == {"text", "integer", "bigint", "boolean", "json", "jsonb"}


async def test_every_function_fixes_its_search_path_and_says_what_it_promises(database: str) -> None:
    for function in await rows(database, OUR_FUNCTIONS):
        assert 'search_path=""' in function["config"], function["signature"]
        assert function["comment"], f"{function['signature']} has no comment"
        is_deferred = (
            function["signature"] == "tollgate.link_event()"
        )  # runs at the commit, when no function of ours does
        assert function["definer"] == (function["schema"] == "public" or is_deferred), function["signature"]


async def test_every_public_function_says_what_it_refuses_and_locks(database: str) -> None:
    for function in await rows(database, OUR_FUNCTIONS):
        if function["schema"] == "public":
            assert "efuse" in function["comment"], function["signature"]
            assert "ock" in function["comment"], function["signature"]


async def test_every_table_has_row_level_security_and_a_comment(database: str) -> None:
    for table in await rows(database, OUR_TABLES):
        assert table["secured"], table["name"]
        assert table["comment"], table["name"]


async def test_every_foreign_key_has_an_index(database: str) -> None:
    missing = await rows(
        database,
        """
        select c.conrelid::regclass::text as table, c.conname as name
        from pg_constraint c
        where c.contype = 'f' and c.connamespace = 'tollgate'::regnamespace and not exists (
          select from pg_index i
          where i.indrelid = c.conrelid and (i.indkey::int2[])[0:cardinality(c.conkey) - 1] @> c.conkey
        )
        """,
    )
    assert missing == []


@pytest.mark.parametrize("table", ["audit_events", "transfers", "credit_operations", *CHAINS])
@pytest.mark.parametrize("statement", ["update {} set {column} = {column}", "delete from {}", "truncate {}"])
async def test_append_only_tables_refuse_every_change(database: str, table: str, statement: str) -> None:
    """Even to their owner, and even when there is nothing to change."""
    column = "position" if table in ("credit_operations", *CHAINS) else "org_id"
    with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
        await rows(database, statement.format(f"tollgate.{table}", column=column))


async def test_a_plain_login_without_grants_reads_nothing(postgres: Cluster, database: str) -> None:
    name = database.rsplit("/", 1)[1]
    await rows(postgres.url(), f'create role "{name}" login')
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await rows(postgres.url(name, user=name), "select * from tollgate.api_keys")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await rows(postgres.url(name, user=name), "select public.tollgate_health()")
    finally:
        await rows(postgres.url(), f'drop role "{name}"')
