"""A server that is told to stop under load: nobody is left without an end, and nothing without its price."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from completions.paid import Line, books_agree
from gateway import Upstream
from hosts.program import Program, Told, asked, call, customer, running, settings_of
from people import Person
from sandbox.serving import a_chat, serving, until
from servers.postgres import Cluster
from servers.relay import Relay
from tollgate.app import CLOSE_SECONDS
from tollgate.database import embedded
from tollgate.process import server, workers
from tollgate.sandbox.app import create_sandbox
from tollgate.sandbox.state import Habits

WORDS = "one two three four five six seven eight nine ten " * 4
SLOW = a_chat(WORDS, model="sandbox/fault-slow", stream=True)
STUCK_STREAM = a_chat(WORDS, model="sandbox/fault-stall-after", stream=True)
STUCK = a_chat(WORDS, model="sandbox/fault-stall-after")
SILENT_STREAM = a_chat(WORDS, model="sandbox/fault-stall-before", stream=True)
SILENT = a_chat(WORDS, model="sandbox/fault-stall-before")
CALLERS = 6
HURRIED = """
from tollgate.__main__ import main
from tollgate.process import server

server.DRAIN_SECONDS, server.GRACEFUL_SECONDS = 1, 2
main(["serve"])
"""
"""`serve` for calls that do not end however long it waits."""

Row = dict[str, Any]


@dataclass
class Ground:
    program: Program
    upstream: Upstream
    url: str
    folder: Path
    environment: dict[str, str]

    async def rows(self) -> dict[str, Row]:
        return {row["id"]: row for row in await asked(self.url, "select * from tollgate.requests")}

    def tell(self, *words: str) -> Any:
        """What a command reports."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), **self.environment}
        command = [sys.executable, "-m", "tollgate", *words, "--json"]
        told = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60)
        assert told.returncode == 0, told.stdout + told.stderr
        return json.loads(told.stdout)

    @contextlib.asynccontextmanager
    async def database(self) -> AsyncIterator[None]:
        """There again, where it went with the program."""
        if "DATABASE_URL" in self.environment:
            yield
            return
        with embedded.running(self.folder / ".tollgate"):
            yield


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    made = create_sandbox(Habits(list_faults=True, generation_delay_seconds=0.0))
    with serving(made) as address:
        yield Upstream(made, address)


@pytest.fixture(
    params=["one process", pytest.param("several processes and the embedded database", marks=pytest.mark.slow)]
)
def ground(request: pytest.FixtureRequest, upstream: Upstream, tmp_path: Path) -> Iterator[Ground]:
    if request.param == "one process":
        url = request.getfixturevalue("own_database")
        environment = settings_of(upstream, DATABASE_URL=url)
    else:
        url = embedded.url(tmp_path / ".tollgate")
        environment = settings_of(upstream, WEB_CONCURRENCY="2")
    with running(tmp_path, environment) as program:
        yield Ground(program, upstream, url, tmp_path, environment)


async def calling(address: str, someone: Person, number: int) -> list[Told]:
    """Plain calls and streams, one after the other, until nobody is there any more."""
    told: list[Told] = []
    while not told or told[-1].status is not None:
        stream = len(told) % 2 == number % 2
        told.append(await call(address, someone, a_chat(stream=stream)))
    return told


def test_the_times_for_stopping_fit_into_the_ten_seconds_that_hosts_give() -> None:
    assert server.DRAIN_SECONDS < server.GRACEFUL_SECONDS
    assert server.GRACEFUL_SECONDS + CLOSE_SECONDS < workers.STOP_SECONDS < 10


async def test_under_load_every_call_gets_its_end_and_its_price(ground: Ground) -> None:
    address = ground.program.address
    someone = await customer(ground.url)
    stuck = [
        asyncio.create_task(call(address, someone, body))
        for body in (STUCK_STREAM, STUCK_STREAM, SILENT_STREAM, STUCK, SILENT)
    ]
    busy = [asyncio.create_task(calling(address, someone, number)) for number in range(CALLERS)]

    async def are_under_way(faulty: int) -> bool:
        rows = (await ground.rows()).values()
        names = [row["model"] for row in rows if row["state"] == "held"]
        settled = [row for row in rows if row["state"] == "settled"]
        return len([name for name in names if "fault" in name]) == faulty and len(settled) > CALLERS

    await until(lambda: are_under_way(len(stuck)))
    # Last, because they end by themselves: on a busy machine they would not wait for the others.
    slow = [asyncio.create_task(call(address, someone, SLOW)) for _ in range(3)]
    await until(lambda: are_under_way(len(stuck) + len(slow)))
    stopping = asyncio.create_task(ground.program.stopped())
    told = [one for many in await asyncio.gather(*busy) for one in many]
    await stopping
    assert ground.program.process.returncode == 0

    *streams, silent_stream, plain, silent = await asyncio.gather(*stuck)
    for stream in streams:
        assert (stream.status, stream.code) == (200, "server_restarting")
        assert stream.body.endswith("}}\n\n")
        assert "[DONE]" not in stream.body  # no client may take it for whole
    for refused in (silent_stream, plain, silent):
        assert (refused.status, refused.code) == (503, "server_restarting")
        assert refused.headers
        assert (refused.headers["retry-after"], refused.headers["x-should-retry"]) == ("1", "false")
    assert all(stream.is_whole_stream for stream in await asyncio.gather(*slow))
    assert {one.status for one in told} == {200, None}
    assert ground.program.printed == ""  # not one warning

    async with ground.database():
        await the_books_are_closed(ground, len([one for one in told if one.status]) + len(stuck) + len(slow))


async def the_books_are_closed(ground: Ground, calls: int) -> None:
    """Whatever has an end is settled; the rest is the sweeper's, by its generation where one is known."""
    rows = await ground.rows()
    assert len(rows) == calls
    left = [row for row in rows.values() if row["state"] != "settled"]
    assert {row["state"] for row in left} == {"unsettled"}
    assert {row["error_code"] for row in left} == {"server_restarting"}
    assert sorted(row["model"] for row in left if row["generation_id"]) == ["sandbox/fault-stall-after"] * 3
    assert sorted(row["model"] for row in left if not row["generation_id"]) == ["sandbox/fault-stall-before"] * 2
    await asked(ground.url, "update tollgate.holds set next_sweep_at = clock_timestamp()")
    swept = await asyncio.to_thread(ground.tell, "sweep")
    assert swept == {"settled": 3, "estimated": 2, "released": 0, "waiting": 0}
    await books_agree(ground.url)
    owed = {one["id"]: one["owed_nanos"] for one in ground.upstream.generations()}
    exact = [row for row in (await ground.rows()).values() if not row["estimated"]]
    assert {row["generation_id"]: row["charge_nanos"] for row in exact} == owed


@pytest.mark.parametrize("processes", ["1", pytest.param("2", marks=pytest.mark.slow)])
async def test_told_twice_it_goes_at_once_and_leaves_the_rest_to_the_sweeper(
    upstream: Upstream, own_database: str, tmp_path: Path, processes: str
) -> None:
    environment = settings_of(upstream, DATABASE_URL=own_database, WEB_CONCURRENCY=processes)
    with running(tmp_path, environment) as program:
        ground = Ground(program, upstream, own_database, tmp_path, environment)
        someone = await customer(own_database)
        stuck = asyncio.create_task(call(program.address, someone, SILENT))

        async def is_under_way() -> bool:
            return len(await ground.rows()) == 1

        await until(is_under_way)
        program.process.send_signal(signal.SIGTERM)
        while (await call(program.address, someone, a_chat())).status is not None:
            pass  # until it has heard that
        await program.stopped(signal.SIGINT)
        assert program.process.returncode == 0
        assert (await stuck).code != "server_restarting"  # which it is told when the time of the first signal is up
        (row,) = [row for row in (await ground.rows()).values() if row["model"] == SILENT["model"]]
        assert row["state"] in ("held", "unsettled")
        await books_agree(own_database)


async def test_a_client_that_takes_nothing_does_not_keep_it(
    upstream: Upstream, own_database: str, tmp_path: Path
) -> None:
    environment = settings_of(upstream, DATABASE_URL=own_database)
    with running(tmp_path, environment, (sys.executable, "-c", HURRIED)) as program:
        ground = Ground(program, upstream, own_database, tmp_path, environment)
        someone = await customer(own_database, nanos=10**12)
        line = await Line.of_one_who_never_reads(program.address)
        await line.ask(someone, a_chat(model="sandbox/fault-many", stream=True))
        await until(lambda: _is_known(ground))
        await program.stopped()
        line.hang_up()
        (row,) = (await ground.rows()).values()
        assert (row["state"], row["generation_id"]) == ("unsettled", upstream.generations()[0]["id"])


async def _is_known(ground: Ground) -> bool:
    return any(row["generation_id"] for row in (await ground.rows()).values())


async def test_a_database_that_stands_still_does_not_keep_it(
    upstream: Upstream, own_database: str, postgres_relay: Relay, tmp_path: Path
) -> None:
    """Then the call keeps its hold, and the sweeper ends it."""
    behind = Cluster(postgres_relay.port).url(own_database.rsplit("/", 1)[1])
    environment = settings_of(upstream, DATABASE_URL=behind, LOG_LEVEL="error")
    with running(tmp_path, environment, (sys.executable, "-c", HURRIED)) as program:
        ground = Ground(program, upstream, own_database, tmp_path, environment)
        someone = await customer(own_database)
        stuck = asyncio.create_task(call(program.address, someone, STUCK_STREAM))
        await until(lambda: _is_known(ground))
        postgres_relay.stall()
        await program.stopped()
    postgres_relay.restore()
    await asyncio.gather(stuck, return_exceptions=True)
    (row,) = (await ground.rows()).values()
    assert row["generation_id"] == upstream.generations()[0]["id"]
    await books_agree(own_database)
