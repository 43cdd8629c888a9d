"""supabase/schemas is the one source of the SQL: the migrations make the same, and each function stands once."""

import re
from collections import Counter
from pathlib import Path

import asyncpg
import pytest

import migration

ROOT = Path(__file__).parents[2]
LONGEST_FUNCTION = 80
LONGER = {"public.tollgate_admit", "public.tollgate_settle"}
"""The paid path decides in one function for speed."""
LONGEST_FILE = 300
LONGEST_ROOM = 1500
BY_SCHEDULE = {"tollgate_expire"}
"""Public functions that pg_cron calls."""
FUNCTIONS = """
select p.oid::regprocedure::text as signature, n.nspname || '.' || p.proname as name, pg_get_functiondef(p.oid) as text
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where n.nspname = 'tollgate' or (n.nspname = 'public' and p.proname like 'tollgate\\_%')
"""
CHANGES = [
    "create or replace function tollgate.new_id(prefix text) returns text language sql as $$ select prefix $$",
    "create function tollgate.unknown() returns text language sql as $$ select '' $$",
    "grant execute on function tollgate.new_id(text) to anon",
    "comment on function tollgate.new_id(text) is 'Other.'",
    "alter table tollgate.orgs add column later text",
    "alter table tollgate.orgs disable row level security",
    "alter table tollgate.users drop constraint users_role_check",
    "drop index tollgate.users_email",
    "drop trigger audit_events_linked on tollgate.audit_events",
    "create policy open on tollgate.orgs",
]


async def functions(url: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        found: list[asyncpg.Record] = await connection.fetch(FUNCTIONS)
        return found
    finally:
        await connection.close()


@pytest.fixture
async def loaded(bare_database: str) -> str:
    """A database made by the schemas."""
    await migration.load_schemas(bare_database)
    return bare_database


async def test_migrations_and_schemas_make_the_same_database(loaded: str, own_database: str) -> None:
    was, now = migration.dumped(own_database), migration.dumped(loaded)
    assert len(now) > 500
    assert migration.differences(was, now) == [], "run `make migration NAME=…`"


async def test_a_difference_of_any_kind_is_found(own_database: str) -> None:
    connection = await asyncpg.connect(own_database)
    was = migration.dumped(own_database)
    for change in CHANGES:
        await connection.execute(change)
        now = migration.dumped(own_database)
        assert migration.differences(was, now), change
        was = now
    await connection.close()


async def test_a_step_makes_the_functions_of_the_schemas(own_database: str, loaded: str) -> None:
    """In a database that lacks one, has one more, and has others with another body or another result."""
    earlier = await asyncpg.connect(own_database)
    await earlier.execute("drop function public.tollgate_health()")
    await earlier.execute("create function tollgate.gone(number bigint) returns text language sql as $$ select '' $$")
    await earlier.execute(
        "create or replace function tollgate.ms_of(moment timestamptz) returns bigint language sql as $$ select 1 $$"
    )
    await earlier.execute("drop function tollgate.transfer_id(bigint)")
    await earlier.execute(
        "create function tollgate.transfer_id(number bigint) returns bigint language sql as $$ select 1 $$"
    )
    step = migration.step(migration.dumped(own_database), migration.dumped(loaded), "29990101000000")
    await earlier.execute(step)
    await earlier.close()
    assert "-- What: writes public.tollgate_health, tollgate.ms_of, tollgate.transfer_id; drops tollgate.gone." in step
    assert migration.differences(migration.dumped(own_database), migration.dumped(loaded)) == []


async def test_each_function_is_defined_once_in_the_schemas(loaded: str) -> None:
    defined = Counter(name for name, _, _ in migration.definitions())
    created = Counter(
        name
        for file in migration.schema_files()
        for name in re.findall(r"^create (?:or replace )?function ([\w.]+)", file.read_text(), re.MULTILINE)
    )
    assert [name for name, times in created.items() if times > 1] == []
    assert created == defined, "each is `create function`, then its comment, then expose() where it is public"
    assert {function["name"] for function in await functions(loaded)} == created.keys()


async def test_the_body_of_every_function_is_sound(loaded: str) -> None:
    """The schemas and the migrations are loaded without a look at bodies, since a file may call what comes later."""
    connection = await asyncpg.connect(loaded)
    for function in await functions(loaded):
        await connection.execute(function["text"])
    await connection.close()


def test_functions_call_only_their_own_room_and_rooms_below() -> None:
    room_of = {name: file.parent.name for name, _, file in migration.definitions()}
    for name, text, file in migration.definitions():
        code = re.sub(r"--.*", "", text.partition("\ncomment on function ")[0])
        for called in re.findall(r"\b((?:tollgate|public)\.\w+)\s*\(", code):
            assert room_of.get(called, "") <= file.parent.name, f"{name} calls {called}"


@pytest.mark.parametrize(
    ("table", "writers"),
    [
        ("api_keys", {"tollgate.insert_key"}),
        ("transfers", {"tollgate.post", "public.tollgate_settle"}),  # settling inserts a batch in its one statement
        ("requests", {"tollgate.begin_requests"}),
    ],
)
def test_only_these_functions_insert_rows(table: str, writers: set[str]) -> None:
    insert = re.compile(rf"insert into tollgate\.{table}\b")
    assert {name for name, text, _ in migration.definitions() if insert.search(text)} == writers


def test_every_public_function_is_called_by_the_program() -> None:
    program = "".join(file.read_text() for file in (ROOT / "src").rglob("*.py"))
    public = {name.removeprefix("public.") for name, _, _ in migration.definitions() if name.startswith("public.")}
    assert {name for name in public if f'"{name}"' not in program} == BY_SCHEDULE


def test_functions_stay_short() -> None:
    lines = {
        name: len(text.partition("\ncomment on function ")[0].splitlines()) for name, text, _ in migration.definitions()
    }
    assert {name for name, many in lines.items() if many > LONGEST_FUNCTION} == LONGER


def test_files_and_rooms_stay_small() -> None:
    lines = {file: len(file.read_text().splitlines()) for file in migration.schema_files()}
    assert [file for file, many in lines.items() if many > LONGEST_FILE] == []
    rooms = Counter[str]()
    for file, many in lines.items():
        rooms[file.parent.name] += many
    assert [room for room, many in rooms.items() if many > LONGEST_ROOM] == []


def test_every_file_of_the_schemas_is_loaded() -> None:
    assert sorted(migration.schema_files()) == sorted((ROOT / "supabase" / "schemas").rglob("*.sql"))
