"""What every test may ask for: one Postgres for all of them, a migrated database of one's own, both doors."""

import asyncio
import contextlib
import gc
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import hypothesis
import pytest

from completions.paid import books_agree
from gateway import Gateway, Upstream, running
from people import Person
from sandbox.serving import serving
from servers.postgres import Cluster, cluster
from servers.postgrest import postgrest, token
from servers.relay import Relay, relay
from tollgate.completions import sweeper
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.credits import store as credits
from tollgate.database import Door, migrations
from tollgate.database.postgres import PostgresDoor
from tollgate.database.supabase import SupabaseDoor
from tollgate.keys.authentication import console
from tollgate.process.http_client import Http
from tollgate.sandbox.app import create_sandbox
from tollgate.sandbox.state import Habits

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
"""The tests start hundreds of Pythons, and each would compile all that it imports."""
sweeper.PAUSE_SECONDS = 3600.0
"""Servers that share a database would sweep each other's requests, when no test knows. A test sweeps by itself."""
DEADLINE_SECONDS = 30.0
"""Of a call through a door: long, so that none ends on a busy machine."""
PORT = "TOLLGATE_TEST_POSTGRES_PORT"
TEMPLATE = "tollgate_template"

TEST_FUNCTIONS = """
create function public.tollgate_test_echo(words text, number bigint, yes boolean, document jsonb, list jsonb)
returns jsonb language sql as $$
  select jsonb_build_object('words', words, 'number', number, 'yes', yes, 'document', document, 'list', list)
$$;
create function public.tollgate_test_refuse(status bigint, code text, facts jsonb)
returns jsonb language plpgsql as $$ begin perform tollgate.refuse(status::int, code, facts); end $$;
create function public.tollgate_test_fail(state text)
returns jsonb language plpgsql as $$ begin raise exception 'made to fail' using errcode = state; end $$;
create function public.tollgate_test_sleep(milliseconds bigint)
returns jsonb language plpgsql as $$ begin perform pg_sleep(milliseconds / 1000.0); return '{"slept": true}'; end $$;
grant usage on schema tollgate to service_role;
grant execute on all functions in schema tollgate to service_role;
"""
"""What no function of Tollgate does on demand."""

# CI tries the same examples each time, so that what lands does not depend on luck; people try new ones.
# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile(
    "tollgate",
    max_examples=50,
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],  # a busy machine fails no test
)
hypothesis.settings.load_profile("tollgate")

_started = contextlib.ExitStack()


def pytest_configure(config: pytest.Config) -> None:
    """The first process starts Postgres and migrates a template; its workers find both by the port."""
    if PORT in os.environ or config.option.collectonly:
        return
    folder = Path(tempfile.mkdtemp(prefix="tollgate-tests-"))
    folder.chmod(0o711)
    _started.callback(shutil.rmtree, folder, ignore_errors=True)
    shared = _started.enter_context(cluster(folder / "postgres"))
    asyncio.run(migrations.migrate(shared.create_supabase_project(TEMPLATE)))
    os.environ[PORT] = str(shared.port)
    _started.callback(os.environ.pop, PORT)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than there are cores, since many tests wait for a server. All of them share one Postgres."""
    return min((os.cpu_count() or 1) + 1, 12)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Ten thousand tests are made, and none of them is garbage: looking for it takes each worker seconds."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """To read whom the world trusts takes an HTTP client 50 ms, and only a host's build asks it for anything."""
    with pytest.MonkeyPatch.context() as environment:
        if "hosts" not in item.path.parts:
            environment.delenv("SSL_CERT_FILE", raising=False)
            environment.setenv("SSL_CERT_DIR", "/nobody-is-trusted")
        return (yield)


def pytest_unconfigure(config: pytest.Config) -> None:
    _started.close()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In CI nothing may be left out for want of anything."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter and reporter.stats.get("skipped") and exitstatus == 0:
        reporter.write_line("CI: tests were skipped, which fails the run", red=True)
        session.exitstatus = 1


@pytest.fixture(scope="session", autouse=True)
def servers_may_take_their_time_to_close() -> Iterator[None]:
    """One that gives up leaves connections open, which fails a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tollgate.app.CLOSE_SECONDS", 60.0)
        yield


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres() -> Cluster:
    return Cluster(int(os.environ[PORT]))


@pytest.fixture(scope="session")
def shared_database(postgres: Cluster) -> Iterator[str]:
    """A migrated database for all tests of this process that keep to orgs of their own."""
    name = f"tollgate_{secrets.token_hex(6)}"
    url = postgres.create(name, TEMPLATE)
    postgres.run(TEST_FUNCTIONS, name)
    yield url
    asyncio.run(books_agree(url))  # once: an audit reads every row
    postgres.drop(name)


@pytest.fixture
def own_database(postgres: Cluster) -> Iterator[str]:
    """A migrated database for one test."""
    name = f"tollgate_{secrets.token_hex(6)}"
    yield postgres.create(name, TEMPLATE)
    postgres.drop(name)


@pytest.fixture
def bare_database(postgres: Cluster) -> Iterator[str]:
    """An empty database, as a new Supabase project has it."""
    name = f"tollgate_{secrets.token_hex(6)}"
    yield postgres.create_supabase_project(name)
    postgres.drop(name)


@pytest.fixture(scope="session")
async def auditors(shared_database: str) -> AsyncIterator[asyncpg.Pool]:
    """Connections to the shared database."""
    async with asyncpg.create_pool(shared_database, min_size=0, max_size=4) as made:
        yield made


@pytest.fixture
def sql(auditors: asyncpg.Pool, shared_database: str) -> Callable[..., Awaitable[Any]]:
    """Asks a database directly, as an auditor would: the first value of the first row."""

    async def ask(url: str, statement: str, *arguments: object) -> Any:
        if url == shared_database:
            return await auditors.fetchval(statement, *arguments)
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(statement, *arguments)
        finally:
            await connection.close()

    return ask


@pytest.fixture(scope="session")
def supabase_api(shared_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """PostgREST over the shared database, at /rest/v1 as Supabase serves it."""
    with (
        postgrest(shared_database, tmp_path_factory.mktemp("postgrest")) as port,
        relay(port, path_prefix=b"/rest/v1") as made,
    ):
        yield made


@pytest.fixture(scope="session")
def postgres_relay(postgres: Cluster) -> Iterator[Relay]:
    with relay(postgres.port) as made:
        yield made


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The contract of the doors makes them alike, so most tests go through one."""
    is_chosen = any("wire" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "wire" in metafunc.fixturenames and not is_chosen:
        both = metafunc.definition.get_closest_marker("both_doors")
        metafunc.parametrize("wire", ["postgres", "supabase"] if both else ["postgres"], indirect=True)


@pytest.fixture
def wire(request: pytest.FixtureRequest) -> Iterator[Relay]:
    """What lies between a door and its database. A test that is marked with BOTH_DOORS runs once for each."""
    made: Relay = request.getfixturevalue("postgres_relay" if request.param == "postgres" else "supabase_api")
    made.restore()
    made.seen.clear()
    yield made
    made.restore()


@pytest.fixture(scope="session")
async def postgres_door(shared_database: str) -> AsyncIterator[Door]:
    made = PostgresDoor(shared_database, pool_size=8, deadline_seconds=DEADLINE_SECONDS)
    yield made
    await made.close()


@pytest.fixture(scope="session")
async def supabase_door(supabase_api: Relay) -> AsyncIterator[Door]:
    http = Http()
    url = f"http://127.0.0.1:{supabase_api.port}"
    made = SupabaseDoor(url, token("service_role"), http=http, deadline_seconds=DEADLINE_SECONDS)
    yield made
    await made.close()
    await http.close()


@pytest.fixture
def door(wire: Relay, postgres_door: Door, supabase_door: Door) -> Door:
    """A door to the shared database. All tests share them, since a new connection has to plan anew."""
    return supabase_door if wire.path_prefix else postgres_door


@pytest.fixture
def sandbox() -> Iterator[Upstream]:
    """An OpenRouter look-alike of the test's own, on a real socket. It offers its faults as models."""
    made = create_sandbox(Habits(list_faults=True, generation_delay_seconds=0.0))
    with serving(made) as address:
        yield Upstream(made, address)


@pytest.fixture
def gateway(wire: Relay, shared_database: str, sandbox: Upstream) -> Iterator[Gateway]:
    """All of Tollgate on a real socket, before that sandbox, with one of the doors."""
    if wire.path_prefix:
        database = {
            "SUPABASE_URL": f"http://127.0.0.1:{wire.port}",
            "SUPABASE_SECRET_KEY": token("service_role"),
        }
    else:
        name = shared_database.rsplit("/", 1)[1]
        database = {"DATABASE_URL": Cluster(wire.port).url(name)}
    with running(database, sandbox) as made:
        yield made


@pytest.fixture
def customer(door: Door, person: Any, shared_database: str, sql: Any) -> Callable[..., Awaitable[Person]]:
    """Makes people with credits: `await customer(nanos, plan="enterprise", …)`."""

    async def make(nanos: int = NANOS_PER_CREDIT, plan: str = "enterprise", **key: Any) -> Person:
        made: Person = await person(**key)
        await sql(shared_database, "update tollgate.orgs set plan_id = $1 where id = $2", plan, made.org_id)
        if nanos:
            granter = console(door, "tests")
            await credits.grant(granter, made.org_id, nanos, source="funding", reason="", reference=made.org_id)
        return made

    return make


@pytest.fixture
def person(door: Door) -> Callable[..., Awaitable[Person]]:
    """Makes people: `await person("admin", scopes=[…])`."""

    async def make(role: str = "member", **key: Any) -> Person:
        made = Person(door, role, **key)
        await made.seed()
        return made

    return make
