"""The commands as their users meet them: processes, exit codes, what is printed and what is left behind."""

import asyncio
import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from pydantic import SecretStr

from journeys.home import Home, Server, alive, end_at_once, gone, wait_until, whole_postgres
from sandbox.serving import PATIENCE_SECONDS
from servers.postgres import GUARDED_PASSWORD, Cluster
from servers.process import free_port, listens
from tollgate.database import embedded, migrations
from tollgate.database.postgres import PostgresDoor
from tollgate.database.schema_version import NEEDED
from tollgate.keys.authentication import console
from tollgate.keys.rules import is_whole
from tollgate.vault import store as vault
from tollgate.vault.rules import Place, Vault

SECRET = "an-operator-s-own-secret-wxyz"
ROOT = Path(__file__).parents[2]
SHIPPED = [f"{migration.version}_{migration.name}" for migration in migrations.shipped()]
PRODUCTION = {"TOLLGATE_ENV": "production", "KEY_PEPPER": "p" * 32}

COMMANDS = ["serve", "migrate", "seed-key", "audit", "reconcile", "backup", "rotate-vault", "hf-token", "demo"]


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a demo that ran once, to be copied."""
    made = Home(tmp_path_factory.mktemp("demo"))
    with made.server("demo") as demo:
        assert demo.stop() == 0
    return made.data


@pytest.fixture
def used_home(home: Home, demo_data: Path) -> Home:
    """Where a demo ran before."""
    subprocess.run(["cp", "-a", demo_data, home.data], check=True)
    return home


def query(url: str, sql: str) -> list[Any]:
    """The first column."""

    async def run() -> list[Any]:
        connection = await asyncpg.connect(url)
        try:
            return [row[0] for row in await connection.fetch(sql)]
        finally:
            await connection.close()

    return asyncio.run(run())


def everything_in(database: str) -> str:
    """All rows of all of Tollgate's tables, as text."""
    tables = query(database, "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname='tollgate'")
    assert {"tollgate.api_keys", "tollgate.audit_events"} <= set(tables)
    return "\n".join(row for table in tables for row in query(database, f"select t::text from {table} t"))


def count(database: str) -> dict[str, int]:
    return {
        table: query(database, f"select count(*) from tollgate.{table}")[0]
        for table in ("api_keys", "orgs", "users", "audit_events")
    }


def is_one_line(text: str, *words: str) -> bool:
    return text.startswith("tollgate: ") and text.count("\n") == 1 and all(word in text for word in words)


@contextlib.contextmanager
def silent_server() -> Iterator[socket.socket]:
    """Lets clients connect and never says a word."""
    with socket.socket() as listener:
        listener.settimeout(PATIENCE_SECONDS)
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield listener


# demo


def test_demo_tells_its_key_the_commands_to_try_and_where_its_data_is(home: Home) -> None:
    with home.server("demo") as demo:
        assert re.fullmatch(r"tg_live_\w{49}", demo.demo_key)
        assert is_whole(demo.demo_key)
        assert str(home.data) in demo.printed
        assert "sandbox" in demo.printed
        assert "OpenRouter:" not in demo.printed
        assert all((home.data / name).stat().st_mode & 0o077 == 0 for name in ("demo-key", "vault-key", "agent-key"))
        stored = httpx.put(
            f"{demo.address}/user/upstream-keys/openrouter",
            headers={"x-api-key": demo.demo_key},
            json={"key": "sk-or-v1-of-the-demo"},
            trust_env=False,
            timeout=PATIENCE_SECONDS,
        )
        assert stored.status_code == 200, stored.text
        to_try = [shlex.split(found) for found in re.findall(r"curl (?:.*\\\n)*.*", demo.printed)]
        assert [command[1] for command in to_try] == [
            f"{demo.address}/user/balance",
            f"{demo.address}/v1/chat/completions",
        ]
        assert all(f"Authorization: Bearer {demo.demo_key}" in command for command in to_try)
        assert json.loads(to_try[1][-1])["messages"]
        (link,) = re.findall(rf"{demo.address}/admin#/sign-in/([\w-]{{43}})\n", demo.printed)
        signed_in = httpx.post(
            f"{demo.address}/auth/sign-in",
            json={"link": link},
            headers={"origin": demo.address},
            trust_env=False,
            timeout=PATIENCE_SECONDS,
        )
        assert signed_in.json()["email"] == "operator@localhost"
        balance = demo.get("/user/balance", demo.demo_key).json()
        assert (balance["credits"], balance["credits_nanos"], balance["held_nanos"]) == ("5.00", 5_000_000_000, 0)


@pytest.mark.slow
def test_demo_with_an_openrouter_key_says_that_it_costs_money(used_home: Home) -> None:
    with used_home.server("demo", OPENROUTER_API_KEY="sk-or-v1-not-a-real-key") as demo:
        assert "OpenRouter: completions cost real money" in demo.printed
        assert "sandbox:" not in demo.printed
        assert "sk-or-v1" not in demo.printed


def test_a_second_demo_has_the_same_key_and_grants_nothing_more(used_home: Home) -> None:
    known, vault_key = ((used_home.data / name).read_text().strip() for name in ("demo-key", "vault-key"))
    with used_home.server("demo") as demo:
        assert demo.demo_key == known
        assert demo.get("/user/balance", known).json()["credits_nanos"] == 5_000_000_000
        assert (used_home.data / "vault-key").read_text().strip() == vault_key
        database = embedded.url(used_home.data)
        assert query(database, "select amount_nanos from tollgate.transfers") == [5_000_000_000]
        assert query(database, "select count(*) from tollgate.api_keys") == [1]
        assert sorted(query(database, "select action from tollgate.audit_events")) == [
            "credits.granted",
            "key.created",
            *["org.created"] * 2,
            *["sign_in_link.created"] * 2,
            *["user.created"] * 2,
        ]


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, *(pytest.param(other, marks=pytest.mark.slow) for other in (signal.SIGTERM, signal.SIGHUP))],
)
def test_a_signal_ends_demo_in_order(used_home: Home, number: signal.Signals) -> None:
    with used_home.server("demo") as demo:
        assert demo.get("/user/balance", demo.demo_key).status_code == 200
        postgres = whole_postgres(used_home.data)
        assert len(postgres) > 1
        assert demo.stop(number) == 0
        assert not postgres & alive().keys()
        assert not listens(demo.port)
        assert "Traceback" not in demo.printed
        assert not (used_home.data / "postgres" / "postmaster.pid").exists()


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["postgres.new*/PG_VERSION", "postgres/postmaster.pid"])
def test_a_signal_during_the_first_start_leaves_nothing_running(home: Home, moment: str) -> None:
    with home.start("demo") as demo:
        try:
            wait_until(lambda: any(home.data.glob(moment)), f"{moment} is there")
            demo.terminate()
            _, err = demo.communicate(timeout=PATIENCE_SECONDS)
        finally:
            demo.kill()
    assert (demo.returncode, err) == (0, "")
    wait_until(lambda: not whole_postgres(home.data), "Postgres is gone")


@pytest.mark.slow
def test_demo_comes_back_with_everything_after_all_of_it_was_killed(used_home: Home) -> None:
    with used_home.server("demo") as killed:
        key = killed.demo_key
        assert used_home.run("seed-key", SECRET).returncode == 0
        doomed = {killed.process.pid} | whole_postgres(used_home.data)
        end_at_once(doomed)
        killed.process.wait()
        gone(doomed)
    with used_home.server("demo") as demo:
        assert demo.demo_key == key
        assert demo.get("/user/balance", key).json()["credits_nanos"] == 5_000_000_000
        assert demo.get("/admin/audit-logs", SECRET).status_code == 200


@pytest.mark.slow
def test_demo_takes_over_the_postgres_of_a_killed_one_and_stops_it(used_home: Home) -> None:
    with used_home.server("demo") as killed:
        killed.process.kill()
        killed.process.wait()
        orphans = whole_postgres(used_home.data)
    assert orphans
    with used_home.server("demo") as demo:
        assert orphans & whole_postgres(used_home.data)
        assert demo.get("/user/balance", demo.demo_key).json()["credits"] == "5.00"
        assert demo.stop() == 0
    gone(orphans)


def postmaster(data: Path) -> int:
    return int((data / "postgres" / "postmaster.pid").read_text().split("\n", 1)[0])


def test_demo_serves_again_after_the_death_of_its_postgres(used_home: Home) -> None:
    with used_home.server("demo") as demo:
        pid = postmaster(used_home.data)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: pid not in alive(), "it is dead")
        statuses = set()

        def serves() -> bool:
            statuses.add(status := demo.get("/user/balance", demo.demo_key).status_code)
            return status == 200 and demo.get("/readyz").status_code == 200

        wait_until(serves, "it serves again")
        assert statuses <= {200, 503}
        assert postmaster(used_home.data) != pid
        assert demo.stop() == 0
    assert not whole_postgres(used_home.data)


HURRIED = """
import sys
from tollgate.__main__ import main
from tollgate.database import embedded
embedded.RESTART_PAUSES = (0.01, 0.01)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_whose_postgres_cannot_be_started_again_ends_with_one(used_home: Home, workers: str) -> None:
    cluster, elsewhere = used_home.data / "postgres", used_home.data / "elsewhere"
    with used_home.server("serve", program=HURRIED, WEB_CONCURRENCY=workers) as server:
        pid = postmaster(used_home.data)
        cluster.rename(elsewhere)
        os.kill(pid, signal.SIGKILL)
        assert server.process.wait(PATIENCE_SECONDS) == 1
        assert "cannot be used (PG_VERSION is missing)" in server.printed.splitlines()[-1]
        assert not cluster.exists()


@pytest.mark.slow
def test_seed_key_works_beside_a_running_demo_and_leaves_it_running(used_home: Home) -> None:
    with used_home.server("demo") as demo:
        assert used_home.run("seed-key", SECRET).returncode == 0
        assert demo.get("/admin/audit-logs", SECRET).status_code == 200
        assert demo.get("/user/balance", demo.demo_key).json()["credits"] == "5.00"


@pytest.mark.parametrize("command", ["demo", "serve"])
def test_a_taken_port_is_told_in_one_line_and_nothing_is_started(home: Home, command: str) -> None:
    with silent_server() as other:
        port = other.getsockname()[1]
        done = home.run(command, PORT=str(port))
    assert done.returncode == 1
    assert is_one_line(done.stderr, f"127.0.0.1:{port}", "PORT")
    assert done.stdout == ""
    assert not home.data.exists()


def test_demo_does_not_run_in_production(home: Home) -> None:
    done = home.run("demo", **PRODUCTION, TOLLGATE_DATA_DIR=str(home.data))
    assert done.returncode == 1
    assert is_one_line(done.stderr, "TOLLGATE_ENV=production")
    assert done.stdout == ""
    assert not home.data.exists()


def test_demo_leaves_a_database_of_one_s_own_alone(home: Home, bare_database: str) -> None:
    done = home.run("demo", DATABASE_URL=bare_database)
    assert done.returncode == 1
    assert is_one_line(done.stderr, "database of its own", "use serve")
    assert not home.data.exists()


def test_the_sandbox_is_a_process_apart_that_can_stand_still_and_ends_with_the_server(used_home: Home) -> None:
    def of_the_server(pid: int) -> set[int]:
        return {one for one, (parent, words) in alive().items() if parent == pid and "tollgate.sandbox" in words}

    def ask(demo: Server, **more: Any) -> httpx.Response:
        body = {"model": "sandbox/echo", "messages": [{"role": "user", "content": "Hello"}]}
        headers = {"authorization": f"Bearer {demo.demo_key}"}
        return httpx.post(f"{demo.address}/v1/chat/completions", json=body, headers=headers, trust_env=False, **more)

    with used_home.server("demo") as demo:
        assert ask(demo, timeout=PATIENCE_SECONDS).status_code == 200
        (sandbox,) = of_the_server(demo.process.pid)
        os.kill(sandbox, signal.SIGSTOP)
        with pytest.raises(httpx.ReadTimeout):
            ask(demo, timeout=httpx.Timeout(PATIENCE_SECONDS, read=0.2))
        assert demo.get("/user/balance", demo.demo_key).status_code == 200
        os.kill(sandbox, signal.SIGCONT)
        assert ask(demo, timeout=PATIENCE_SECONDS).status_code == 200
        assert demo.stop() == 0
    gone({sandbox})


# serve


def test_serve_writes_nothing_but_log_lines(home: Home, own_database: str) -> None:
    with home.server("serve", DATABASE_URL=own_database) as server:
        server.get("/healthz")
    lines = [json.loads(line) for line in server.output.read_text().splitlines()]
    assert lines[0]["event"] == "serving"


@pytest.mark.parametrize("silent", [False, True], ids=["nothing listens", "it never answers"])
def test_serve_starts_without_its_database_and_says_what_is_missing(home: Home, silent: bool) -> None:
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(silent_server()).getsockname()[1] if silent else free_port()
        url = f"postgresql://tollgate:hidden-password@127.0.0.1:{port}/x"
        server = stack.enter_context(home.server("serve", DATABASE_URL=url))
        assert server.get("/healthz").status_code == 200
        readiness = server.get("/readyz")
        assert (readiness.status_code, readiness.json()["failing"]) == (503, ["database"])
        health = server.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "unhealthy")
        assert health.json()["database"] == "unavailable"
        assert server.stop() == 0
        assert "hidden-password" not in server.printed
    assert not home.data.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_serve_answers_the_request_under_way_before_it_ends(home: Home, number: signal.Signals) -> None:
    with (
        silent_server() as database,
        home.server("serve", DATABASE_URL=f"postgresql://x@127.0.0.1:{database.getsockname()[1]}/x") as server,
        ThreadPoolExecutor() as threads,
    ):
        answer = threads.submit(server.get, "/readyz")
        connection, _ = database.accept()
        with connection:
            server.process.send_signal(number)
            assert answer.result(PATIENCE_SECONDS).status_code == 503
        assert server.process.wait(PATIENCE_SECONDS) == 0


def test_serve_works_with_a_migrated_database_and_a_seeded_key(home: Home, own_database: str) -> None:
    assert home.run("seed-key", SECRET, DATABASE_URL=own_database).returncode == 0
    with home.server("serve", DATABASE_URL=own_database) as server:
        assert server.get("/readyz").json() == {"status": "ready", "failing": [], "parts": {"database": "connected"}}
        assert server.get("/user/balance", SECRET).json()["org_id"] == "org_operators"
        assert server.get("/user/balance", SECRET[:-1] + "2").status_code == 401
        assert server.stop() == 0
    assert not home.data.exists()


def test_serve_on_an_unmigrated_database_is_not_ready(home: Home, bare_database: str) -> None:
    with home.server("serve", DATABASE_URL=bare_database) as server:
        readiness = server.get("/readyz")
        assert (readiness.status_code, readiness.json()["failing"]) == (503, ["database"])
        assert server.get("/healthz").status_code == 200


# migrate


def test_migrate_applies_what_is_missing_and_then_nothing(home: Home, bare_database: str) -> None:
    first = home.run("migrate", DATABASE_URL=bare_database)
    assert (first.returncode, first.stderr) == (0, "")
    assert re.findall(r"^applied (\w+)$", first.stdout, re.MULTILINE) == SHIPPED
    assert query(bare_database, "select version from tollgate.schema_version") == [NEEDED]
    second = home.run("migrate", DATABASE_URL=bare_database)
    assert (second.returncode, second.stderr) == (0, "")
    assert second.stdout == f"The schema is at {NEEDED}.\n"


def test_migrate_reports_as_json(home: Home, bare_database: str) -> None:
    for applied in (SHIPPED, []):
        done = home.run("migrate", "--json", DATABASE_URL=bare_database)
        assert done.returncode == 0
        assert json.loads(done.stdout) == {"applied": applied, "schema_version": NEEDED}


def test_migrate_without_settings_brings_up_the_embedded_database(home: Home) -> None:
    done = home.run("migrate", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["applied"] == SHIPPED
    assert not whole_postgres(home.data)


def test_env_file_picks_the_settings_instead_of_dot_env(home: Home, bare_database: str) -> None:
    (home.folder / ".env").write_text(f"DATABASE_URL=postgresql://x@127.0.0.1:{free_port()}/x\n")
    (home.folder / ".env.other").write_text(f"DATABASE_URL={bare_database}\n")
    assert home.run("migrate").returncode == 1
    assert home.run("migrate", ENV_FILE=".env.other").returncode == 0
    assert query(bare_database, "select version from tollgate.schema_version") == [NEEDED]


def test_an_env_file_that_is_not_there_is_told_in_one_line(home: Home) -> None:
    done = home.run("migrate", ENV_FILE="nowhere.env")
    assert done.returncode == 2
    assert is_one_line(done.stderr, "ENV_FILE", "nowhere.env")
    assert not home.data.exists()


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["migrate"], "nothing listens"),
        (["migrate"], "wrong password"),
        (["migrate"], "no such database"),
        (["migrate"], "unknown host"),
        (["seed-key", SECRET], "nothing listens"),
        (["seed-key", SECRET], "wrong password"),
    ],
)
def test_a_database_that_cannot_be_reached_is_told_in_one_line(
    home: Home, postgres: Cluster, command: list[str], why: str
) -> None:
    url = {
        "nothing listens": Cluster(free_port()).url("x", "guarded", "hidden-password"),
        "wrong password": postgres.url("postgres", "guarded", "hidden-password"),
        "no such database": postgres.url("missing", "guarded", GUARDED_PASSWORD),
        "unknown host": "postgresql://guarded:hidden-password@database.invalid/x",
    }[why]
    done = home.run(*command, DATABASE_URL=url)
    assert done.returncode == 1
    assert is_one_line(done.stderr)
    assert "hidden-password" not in done.stdout + done.stderr
    assert GUARDED_PASSWORD not in done.stdout + done.stderr


@pytest.mark.parametrize("command", ["migrate", "serve"])
@pytest.mark.parametrize(
    "url",
    [
        pytest.param("postgresql://x:hidden@127.0.0.1:port/x", id="a port that is no number"),
        pytest.param("postgresql://x:hid#den@127.0.0.1:5432/x", id="a password that needs to be escaped"),
    ],
)
def test_a_malformed_database_url_is_named_in_one_line(home: Home, command: str, url: str) -> None:
    done = home.run(command, DATABASE_URL=url)
    assert done.returncode == 2
    assert is_one_line(done.stderr, "DATABASE_URL: ")
    assert "hid" not in done.stdout + done.stderr


def test_an_option_in_the_database_url_that_is_not_one_is_told_in_one_line(home: Home) -> None:
    done = home.run("migrate", DATABASE_URL="postgresql://x:hidden@127.0.0.1:5432/x?sslmode=nonsense")
    assert done.returncode in (1, 2)
    assert is_one_line(done.stderr, "sslmode")
    assert "hidden" not in done.stdout + done.stderr


def test_migrate_with_supabase_alone_says_what_it_needs(home: Home) -> None:
    done = home.run("migrate", SUPABASE_URL="https://x.supabase.co", SUPABASE_SECRET_KEY="sb_secret_hidden")
    assert done.returncode == 1
    assert is_one_line(done.stderr, "DATABASE_URL", "supabase db push")
    assert "sb_secret_hidden" not in done.stderr
    assert not home.data.exists()


def test_migrate_refuses_a_database_that_is_ahead_and_changes_nothing(home: Home, own_database: str) -> None:
    query(own_database, "update tollgate.schema_version set version = '29991231235959'")
    history = "select version from supabase_migrations.schema_migrations order by version"
    query(own_database, f"delete from supabase_migrations.schema_migrations where version = '{NEEDED}'")
    before = query(own_database, history)
    done = home.run("migrate", DATABASE_URL=own_database)
    assert done.returncode == 1
    assert is_one_line(done.stderr, "29991231235959", NEEDED)
    assert query(own_database, history) == before


# seed-key


def test_seed_key_makes_its_key_once_and_it_opens_the_audit_logs(home: Home, own_database: str) -> None:
    def seed() -> dict[str, Any]:
        done = home.run("seed-key", "--json", SECRET, DATABASE_URL=own_database)
        assert (done.returncode, done.stderr) == (0, "")
        facts: dict[str, Any] = json.loads(done.stdout)
        return facts

    before = count(own_database)
    first = seed()
    after = count(own_database)
    assert first["created"] is True
    assert {table: after[table] - before[table] for table in after} == {
        "api_keys": 1,
        "orgs": 1,
        "users": 1,
        "audit_events": 3,
    }
    assert seed() == {"created": False, "key_id": first["key_id"]}
    assert count(own_database) == after
    with home.server("serve", DATABASE_URL=own_database) as server:
        page = server.get("/admin/audit-logs", SECRET)
        assert page.status_code == 200
        assert first["key_id"] in [event["target_id"] for event in page.json()["data"]]


def test_seed_key_refuses_a_pepper_that_no_key_was_made_with(home: Home, own_database: str) -> None:
    def seed(number: int, pepper: str, *more: str, **settings: str) -> Any:
        settings |= {"DATABASE_URL": own_database, "KEY_PEPPER": pepper}
        return home.run("seed-key", f"{SECRET}-{number}", *more, **settings)

    old, new = "an old pepper that is long enough", "a new pepper that is long enough"
    assert seed(1, old).returncode == 0
    refused = seed(2, new)
    assert refused.returncode == 1
    assert is_one_line(refused.stderr, "KEY_PEPPER", "--new-pepper")
    assert query(own_database, "select count(*) from tollgate.api_keys") == [1]
    assert seed(2, new, KEY_PEPPER_PREVIOUS=old).returncode == 0
    assert seed(3, "a third pepper that is long enough", "--new-pepper").returncode == 0


def test_seed_key_adds_a_second_admin_key_to_the_same_operator(home: Home, own_database: str) -> None:
    for number in (1, 2):
        assert home.run("seed-key", f"{SECRET}-{number}", DATABASE_URL=own_database).returncode == 0
    assert query(own_database, "select count(*) from tollgate.api_keys where user_id = 'usr_operator'") == [2]


def test_seed_key_reads_the_secret_from_standard_input(home: Home, own_database: str) -> None:
    by_input = home.run("seed-key", "--json", "-", given=f"{SECRET}\n", DATABASE_URL=own_database)
    by_argument = home.run("seed-key", "--json", SECRET, DATABASE_URL=own_database)
    assert json.loads(by_input.stdout)["created"] is True
    assert json.loads(by_argument.stdout) == {"created": False, "key_id": json.loads(by_input.stdout)["key_id"]}


def test_the_secret_is_neither_stored_nor_printed(home: Home, own_database: str) -> None:
    printed = ""
    for more in ([], ["--json"]):
        done = home.run("seed-key", *more, SECRET, DATABASE_URL=own_database, LOG_LEVEL="debug")
        assert done.returncode == 0
        printed += done.stdout + done.stderr
    stored = everything_in(own_database)
    assert f"{SECRET[:4]}…{SECRET[-4:]}" in printed
    assert "key.created" in stored
    for shown in (printed, stored):
        assert SECRET[:5] not in shown
        assert SECRET[-5:] not in shown
        assert SECRET.encode().hex() not in shown


@pytest.mark.parametrize(
    ("secret", "way"),
    [
        pytest.param("", "argument", id="empty"),
        pytest.param("n1neteen-characters", "argument", id="too short"),
        pytest.param("long" * 128 + "!", "argument", id="too long"),
        pytest.param("a secret with some spaces", "argument", id="spaces"),
        pytest.param("ein-schlüssel-mit-umlaut", "argument", id="not ASCII"),
        pytest.param("tg_live_" + "0" * 49, "argument", id="wrong checksum"),
        pytest.param("", "input", id="empty input"),
        pytest.param("a-secret-with-a\ttab-inside", "input", id="input with a tab"),
    ],
)
def test_a_secret_that_makes_a_bad_key_is_refused_without_being_repeated(home: Home, secret: str, way: str) -> None:
    nowhere = f"postgresql://x@127.0.0.1:{free_port()}/x"
    value, given = (secret, "") if way == "argument" else ("-", f"{secret}\n")
    done = home.run("seed-key", value, given=given, DATABASE_URL=nowhere)
    assert done.returncode == 2
    assert is_one_line(done.stderr, "value")
    assert done.stdout == ""
    assert not secret or secret not in done.stderr


def test_two_seed_keys_at_the_same_moment_make_one_key(home: Home, own_database: str) -> None:
    with contextlib.ExitStack() as stack:
        seeding = []
        for _ in range(2):
            command = stack.enter_context(home.start("seed-key", "--json", SECRET, DATABASE_URL=own_database))
            stack.callback(command.kill)
            seeding.append(command)
        reports = [json.loads(command.communicate(timeout=PATIENCE_SECONDS)[0]) for command in seeding]
    assert sorted(report["created"] for report in reports) == [False, True]
    assert len({report["key_id"] for report in reports}) == 1
    assert query(own_database, "select count(*) from tollgate.api_keys") == [1]


def test_seed_key_on_an_unmigrated_database_says_so_in_one_line(home: Home, bare_database: str) -> None:
    done = home.run("seed-key", SECRET, DATABASE_URL=bare_database)
    assert done.returncode == 1
    assert is_one_line(done.stderr)
    assert SECRET not in done.stdout + done.stderr


# all of them


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself_whatever_is_set(home: Home, command: str) -> None:
    done = home.run(command, "--help", PORT="nonsense")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: tollgate {command}")


def test_the_help_lists_the_commands(home: Home) -> None:
    done = home.run("--help")
    assert done.returncode == 0
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["seed-key"]])
def test_wrong_usage_ends_with_2(home: Home, arguments: list[str]) -> None:
    done = home.run(*arguments)
    assert done.returncode == 2
    assert "usage: tollgate" in done.stderr
    assert not home.data.exists()


def test_a_wrong_setting_is_named_in_one_line(home: Home) -> None:
    done = home.run("serve", PORT="eighty")
    assert done.returncode == 2
    assert is_one_line(done.stderr, "tollgate: PORT: ")
    assert done.stdout == ""
    assert not home.data.exists()


def test_all_wrong_settings_are_named_at_once_and_their_values_are_not_repeated(home: Home) -> None:
    wrong = {
        "PORT": "65536",
        "LOG_LEVEL": "loud-value",
        "TOLLGATE_ENV": "staging-value",
        "DATABASE_URL": "mysql://x:hidden-value@127.0.0.1/x",
        "SUPABASE_URL": "value.supabase.co",
        "KEY_PEPPER": "too-short-a-value",
        "REDIS_URL": "http://x:hidden-value@127.0.0.1",
    }
    done = home.run("serve", **wrong)
    assert done.returncode == 2
    assert set(re.findall(r"^tollgate: (\w+): .", done.stderr, re.MULTILINE)) == set(wrong)
    assert done.stderr.count("\n") == len(wrong)
    assert not [value for value in wrong.values() if value in done.stderr]


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_production_names_everything_that_is_missing_at_once(home: Home, command: str) -> None:
    done = home.run(command, TOLLGATE_ENV="production")
    assert done.returncode == 2
    assert re.findall(r"^tollgate: (\w+): is missing", done.stderr, re.MULTILINE) == ["KEY_PEPPER", "DATABASE_URL"]
    assert done.stderr.count("\n") == 2
    assert not home.data.exists()


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """In the repository itself; --old-file keeps it from installing anything."""
    return subprocess.run(
        ["make", "--old-file=.venv/.run", "--old-file=.venv/bin/uv", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )


def test_make_help_lists_what_can_be_made() -> None:
    done = make("help")
    assert (done.returncode, done.stderr) == (0, "")
    targets = re.findall(r"^  make ([\w-]+) +\S", done.stdout, re.MULTILINE)
    assert {"help", "up", "serve", "migrate", "seed-key", "test", "check"} <= set(targets)


def test_make_seed_key_without_a_key_says_how_to_give_one() -> None:
    done = make("seed-key")
    assert done.returncode == 2
    ours = [line for line in done.stderr.splitlines() if not line.startswith("make:")]
    assert len(ours) == 1
    assert "make seed-key API_KEY=" in ours[0]
    assert done.stdout == ""


def test_sign_in_link_prints_a_link_for_the_only_admin(home: Home, own_database: str) -> None:
    assert home.run("sign-in-link", DATABASE_URL=own_database).returncode == 1, "there is no admin yet"
    home.run("seed-key", SECRET, DATABASE_URL=own_database)
    made = home.run("sign-in-link", "--at", "https://tollgate.example/", DATABASE_URL=own_database)
    assert re.fullmatch(r"https://tollgate\.example/admin#/sign-in/[\w-]{43}\n", made.stdout), made.stderr


def test_a_stored_token_is_printed_also_after_a_rotation(home: Home, own_database: str) -> None:
    old, new = "0d" * 32, "ee" * 32

    async def store() -> None:
        door = PostgresDoor(own_database, pool_size=1, deadline_seconds=30)
        sealed = Vault([bytes.fromhex(old)]).seal(
            SecretStr(SECRET), Place("hf_token", None, "default", None), b"n" * 12
        )
        await vault.put(console(door, "tests"), "hf_token", None, {"name": "default", **sealed})
        await door.close()

    asyncio.run(store())
    rotated = home.run("rotate-vault", "--json", DATABASE_URL=own_database, VAULT_KEY=new, VAULT_KEY_PREVIOUS=old)
    assert json.loads(rotated.stdout) == {"sealed": 1, "unreadable": []}, rotated.stderr
    assert home.run("hf-token", DATABASE_URL=own_database, VAULT_KEY=new).stdout == f"{SECRET}\n"
    lost = home.run("rotate-vault", DATABASE_URL=own_database, VAULT_KEY=old)
    assert lost.returncode == 1
    assert "store these again" in lost.stderr
    assert SECRET not in rotated.stdout + rotated.stderr + lost.stdout + lost.stderr


@pytest.mark.parametrize("command", ["audit", "reconcile", "sweep", "sign-in-link"])
def test_a_command_that_looks_at_the_books_makes_no_database(home: Home, command: str) -> None:
    done = home.run(command)
    assert done.returncode == 1
    assert "ENV_FILE" in done.stderr
    assert not (home.data / "postgres").exists()
