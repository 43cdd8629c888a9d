"""`python -m tollgate sweep`, as a scheduler or an operator runs it."""

import json
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from completions.paid import HOLD, Auditor, an_item, given, unsettled
from gateway import Upstream
from journeys import commands
from people import Person
from sandbox.serving import a_chat, post
from servers.process import free_port
from tollgate.credits import store as credits
from tollgate.database.postgres import PostgresDoor
from tollgate.keys.authentication import console

Sweep = Callable[..., subprocess.CompletedProcess[str]]
NOTHING = {"settled": 0, "estimated": 0, "released": 0, "waiting": 0}


@pytest.fixture
def sweep(own_database: str, sandbox: Upstream, tmp_path: Path) -> Sweep:
    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        settings = {"DATABASE_URL": own_database, **given(sandbox.url), **more}
        return commands.run("sweep", *words, folder=tmp_path, settings=settings)

    return run


@pytest.fixture
async def someone(own_database: str) -> AsyncIterator[Person]:
    door = PostgresDoor(own_database, pool_size=2, deadline_seconds=30)
    made = Person(door)
    await made.seed()
    await credits.grant(console(door, "tests"), made.org_id, 10**9, source="funding", reason="", reference="first")
    yield made
    await door.close()


async def test_a_sweep_says_how_each_request_ended(
    sweep: Sweep, someone: Person, own_database: str, sandbox: Upstream
) -> None:
    generation_id = (await post(sandbox.app, a_chat())).json()["id"]
    await unsettled(someone.door, someone, generation_id)
    await unsettled(someone.door, someone, "gen-that-never-was")
    await someone.door.call("tollgate_admit", items=[an_item(someone)])
    auditor = Auditor(own_database)
    await auditor.hasten(someone)
    swept = sweep("--json")
    assert swept.returncode == 0, swept.stderr
    assert json.loads(swept.stdout) == {"settled": 1, "estimated": 1, "released": 0, "waiting": 1}
    assert await auditor.balance(someone) > 10**9 - 2 * HOLD
    states = sorted(row["state"] for row in await auditor.requests(someone))
    assert states == ["settled", "settled", "unsettled"]


def test_with_nothing_to_do_it_says_so(sweep: Sweep) -> None:
    assert sweep().stdout == "0 settled, 0 estimated, 0 released, 0 still unknown.\n"


async def test_its_report_stands_alone_on_standard_output_however_much_is_logged(
    sweep: Sweep, someone: Person, own_database: str
) -> None:
    await someone.door.call("tollgate_admit", items=[an_item(someone)])
    await Auditor(own_database).hasten(someone)
    assert json.loads(sweep("--json", LOG_LEVEL="debug").stdout) == {**NOTHING, "estimated": 1}


def test_without_a_database_it_ends_with_one_line_and_one(sweep: Sweep) -> None:
    swept = sweep(DATABASE_URL=f"postgresql://postgres@127.0.0.1:{free_port()}/nowhere")
    assert swept.returncode == 1
    assert all("source" in json.loads(line) for line in swept.stdout.splitlines())  # the log, and no report
    assert swept.stderr.splitlines()[-1].startswith("tollgate: The database is unavailable")


async def test_while_openrouter_is_away_everything_waits(sweep: Sweep, someone: Person, own_database: str) -> None:
    await unsettled(someone.door, someone, "gen-1")
    auditor = Auditor(own_database)
    await auditor.hasten(someone)
    swept = sweep("--json", OPENROUTER_BASE_URL=f"http://127.0.0.1:{free_port()}/api/v1")
    assert swept.returncode == 0
    assert json.loads(swept.stdout) == {**NOTHING, "waiting": 1}
    (row,) = await auditor.requests(someone)
    assert row["state"] == "unsettled"


async def test_no_secret_is_written(sweep: Sweep, someone: Person) -> None:
    await unsettled(someone.door, someone, "gen-1")
    secret: Any = {"CRON_SECRET": "a-secret-that-nobody-should-see", "LOG_LEVEL": "debug"}
    swept = sweep(**secret)
    written = swept.stdout + swept.stderr
    assert not [word for word in (secret["CRON_SECRET"], "sk-or-v1-of-the-tests", someone.secret) if word in written]
