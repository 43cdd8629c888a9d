"""Tollgate as a host runs it: a process, started by a command, stopped by a signal; and calls to it over sockets."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from completions.paid import Line, given
from gateway import Upstream
from people import Person
from servers.process import free_port, status
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.credits import store as credits
from tollgate.database.postgres import PostgresDoor
from tollgate.keys.authentication import console

SERVE = (sys.executable, "-m", "tollgate", "serve")
START_SECONDS = 60.0
CODE = re.compile(r'"code":"?(\w+)')


@dataclass
class Program:
    process: subprocess.Popen[bytes]
    port: int
    output: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def printed(self) -> str:
        return self.output.read_text(errors="replace")

    def workers(self) -> list[int]:
        """The processes that serve, where there are several. Of those that it started, one counts their resources."""
        command = ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(self.process.pid)]
        listed = subprocess.run(command, capture_output=True, text=True)
        return [int(line.split()[0]) for line in listed.stdout.splitlines() if "spawn_main" in line]

    def is_ready(self) -> bool:
        return status(self.port, "/readyz") == 200

    async def stopped(self, number: int = signal.SIGTERM) -> None:
        """Tells it to stop, and waits until it has."""
        self.process.send_signal(number)
        await asyncio.to_thread(self.process.wait, START_SECONDS)


@contextlib.contextmanager
def running(folder: Path, environment: Mapping[str, str], command: Sequence[str] = SERVE) -> Iterator[Program]:
    """From when it is ready. What it has started ends with it, whatever it does."""
    port, output = free_port(), folder / f"output-{time.monotonic_ns()}"
    everything = {"PATH": os.environ["PATH"], "HOME": str(folder), "PORT": str(port), **environment}
    with output.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=everything,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    made = Program(process, port, output)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not made.is_ready():
            assert process.poll() is None, made.printed
            assert time.monotonic() < deadline, made.printed
            time.sleep(0.05)
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def settings_of(upstream: Upstream, **more: str) -> dict[str, str]:
    return {**given(upstream.url), "SANDBOX_BASE_URL": upstream.url, "LOG_LEVEL": "warning", **more}


async def customer(url: str, nanos: int = NANOS_PER_CREDIT, **key: Any) -> Person:
    """Someone with credits and no limits, in that database."""
    door = PostgresDoor(url, pool_size=1, deadline_seconds=30)
    someone = Person(door, **key)
    try:
        await someone.seed()
        operator = console(door, "tests")
        await credits.grant(operator, someone.org_id, nanos, source="funding", reason="", reference=someone.org_id)
    finally:
        await door.close()
    await asked(url, "update tollgate.orgs set plan_id = 'enterprise' where id = $1", someone.org_id)
    return someone


async def asked(url: str, statement: str, *arguments: object) -> list[dict[str, Any]]:
    """What the tables say."""
    connection = await asyncpg.connect(url)
    try:
        return [dict(row) for row in await connection.fetch(statement, *arguments)]
    finally:
        await connection.close()


@dataclass(frozen=True)
class Told:
    """What a client was told. Without a status, nothing at all: its connection was refused or closed."""

    status: int | None = None
    headers: Mapping[str, str] | None = None
    body: str = ""

    @property
    def code(self) -> str | None:
        found = CODE.findall(self.body)
        return found[-1] if found else None

    @property
    def is_whole_stream(self) -> bool:
        return self.status == 200 and "data: [DONE]\n\n" in self.body


async def call(address: str, someone: Person, body: Any, **headers: str) -> Told:
    """One call on a connection of its own. What breaks off in the middle raises."""
    try:
        line = await Line.opened(address, limit=2**20)
    except OSError:
        return Told()
    try:
        try:
            await line.ask(someone, body, connection="close", **headers)
            status = await line.status()
        except (OSError, IndexError):
            return Told()
        told = await line.headers()
        return Told(status, told, _content(await line.reader.read(), told))
    finally:
        line.hang_up()


def _content(sent: bytes, headers: Mapping[str, str]) -> str:
    """The body, which must be whole."""
    if headers.get("transfer-encoding") != "chunked":
        assert len(sent) == int(headers["content-length"])
        return sent.decode()
    body = b""
    while True:
        size, _, sent = sent.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return body.decode()
        body, sent = body + sent[:length], sent[length + 2 :]
