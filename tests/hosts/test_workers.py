"""Started as `Procfile` says, with what Heroku sets: several processes, one set of limits, no forged address."""

import asyncio
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import Upstream
from hosts.program import Program, asked, call, customer, running, settings_of
from people import Person
from sandbox.serving import a_chat, serving, until
from servers.process import listens
from tollgate.sandbox.app import create_sandbox
from tollgate.sandbox.state import Habits

ROOT = Path(__file__).parents[2]
WORKERS = 2
CALLER = "203.0.113.7"
FORGED = "198.51.100.66"
CLAIMS = dict.fromkeys(("x-forwarded-for", "x-real-ip", "forwarded", "cf-connecting-ip", "do-connecting-ip"), FORGED)
LIMIT = 12
EDGE = {**CLAIMS, "x-forwarded-for": f"{FORGED}, {CALLER}"}
"""What Heroku's router makes of such claims. What the other hosts' do is tested in test_client_ip."""


def of_procfile() -> list[str]:
    """The command as Heroku runs it."""
    (command,) = re.findall(r"^web: *(.+)$", (ROOT / "Procfile").read_text(), re.MULTILINE)
    return ["bash", "-c", command]


def of_host(upstream: Upstream, database: str) -> dict[str, str]:
    return settings_of(
        upstream,
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        TOLLGATE_ENV="production",
        DATABASE_URL=database,
        DATABASE_POOL_SIZE="2",
        WEB_CONCURRENCY=str(WORKERS),
        FORWARDED_ALLOW_IPS="*",
        DYNO="web.1",
    )


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    made = create_sandbox(Habits(list_faults=True, generation_delay_seconds=0.0))
    with serving(made) as address:
        yield Upstream(made, address)


async def are_there(program: Program) -> bool:
    """All workers: it is ready when the first of them is."""
    return len(program.workers()) == WORKERS


async def limited(url: str, someone: Person) -> None:
    """To so many requests a day."""
    of_a_day = f"row(null, null, {LIMIT}, null, null, null)::tollgate.limits"
    await asked(url, f"update tollgate.orgs set limits = {of_a_day} where id = $1", someone.org_id)


async def test_the_limits_hold_across_the_workers_and_no_forged_address_is_believed(
    upstream: Upstream, own_database: str, tmp_path: Path
) -> None:
    with running(tmp_path, of_host(upstream, own_database), of_procfile()) as program:
        await until(lambda: are_there(program))
        someone = await customer(own_database)
        await limited(own_database, someone)
        calls = [call(program.address, someone, a_chat(stream=number % 2 == 0)) for number in range(3 * LIMIT)]
        told = await asyncio.gather(*calls)
        assert Counter(one.status for one in told) == {200: LIMIT, 429: 2 * LIMIT}
        assert {one.code for one in told if one.status == 429} == {"rate_limit_exceeded"}
        await nobody_pretends(program, own_database)
        await program.stopped()
    lines = [json.loads(line) for line in program.printed.splitlines()]
    assert {line["event"] for line in lines} == {"authentication_failed", "limit_exceeded"}  # the forged addresses
    assert program.process.returncode == 0


async def nobody_pretends(program: Program, url: str) -> None:
    at_home = await customer(url, ip_allowlist=[f"{CALLER}/32"])
    pretended = await customer(url, ip_allowlist=[f"{FORGED}/32"])
    assert (await call(program.address, at_home, a_chat(), **EDGE)).status == 200
    refused = await call(program.address, pretended, a_chat(), **EDGE)
    assert (refused.status, refused.code) == (403, "ip_not_allowed")


async def test_a_worker_that_dies_is_replaced_and_none_outlives_the_first(
    upstream: Upstream, own_database: str, tmp_path: Path
) -> None:
    environment = of_host(upstream, own_database) | {"WEB_CONCURRENCY": "2", "LOG_LEVEL": "error"}
    with running(tmp_path, environment, of_procfile()) as program:
        someone = await customer(own_database)
        await until(lambda: are_there(program))
        first, second = program.workers()
        os.kill(first, signal.SIGKILL)

        async def is_replaced() -> bool:
            return len(set(program.workers()) - {first, second}) == 1

        await until(is_replaced)
        assert '"event":"worker_died"' in program.printed
        assert (await call(program.address, someone, a_chat())).status == 200
        program.process.kill()
        program.process.wait()

        async def is_gone() -> bool:
            return not listens(int(program.address.rpartition(":")[2]))

        await until(is_gone)
