"""A storm: a server and a Postgres that are killed again and again while many clients call, leave, and call again.

What each client was told is kept, to be compared with the tables and with what the upstream says it is owed.
"""

import asyncio
import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg

from completions.asks import AT_OPENROUTER, CALLS, SAYING, STREAMED, asking
from completions.paid import Line
from people import Person
from servers.postgres import ACCESS, Cluster, binaries
from servers.process import free_port, give_away, listens, unprivileged
from tollgate.core.endpoints import ENDPOINTS
from tollgate.sandbox.faults import DEFAULTS

START_SECONDS = 60
PATIENCE_SECONDS = 9.0
CALLERS = 24
LEAVES = 0.25
REPEATS = 4

UNFIT = {"zero-usage", "no-id", "no-generation", "late-generation", "many"}
"""An upstream that says it is owed nothing, whose word is taken; one by which its ledger could not be compared with
ours; two that outlast a sweeper whose looks are hurried; and one that would only keep two cores busy."""
RARE = {"gigantic", "gzip-bomb", "stall-before", "stall-after", "hold-until"}
FAULTS = sorted(set(DEFAULTS) - UNFIT - RARE)
MODELS = ["sandbox/echo", "sandbox/words", "sandbox/reasoner", "sandbox/cached"]
TOLD = re.compile(rb'"tollgate":\{"charge_nanos":(\d+),"balance_nanos":-?\d+,"request_id":"(\w+)"')

Row = dict[str, Any]
Asked = tuple[str, dict[str, Any]]
"""A path and a body."""
OTHERS: list[Asked] = [
    (ENDPOINTS[name].path, calls[name])
    for calls in (CALLS, STREAMED)
    for name in AT_OPENROUTER
    if name in calls and name != "generate"
]
"""A call of each endpoint. Generate takes no `user`, by which the ledger could be compared with ours."""

CODE = re.compile(rb'"code":"?(\w+)')


class Mortal:
    """A program that is killed and comes back at the same place, with what it had written."""

    def __init__(self, command: Sequence[str], port: int, log: Path, **more: Any) -> None:
        self._command = command
        self._port = port
        self._log = log
        self._more = more
        self._process: subprocess.Popen[bytes] | None = None
        self.deaths = 0

    def start(self) -> None:
        """Until it is ready; one whose predecessor has not let go yet is started again."""
        deadline = time.monotonic() + START_SECONDS
        while not self.is_ready():
            assert time.monotonic() < deadline, self._log.read_text(errors="replace")[-3000:]
            if self._process is None or self._process.poll() is not None:
                with self._log.open("ab") as log:
                    self._process = subprocess.Popen(
                        self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._more
                    )
            time.sleep(0.02)

    def is_ready(self) -> bool:
        return self._process is not None and self._process.poll() is None and listens(self._port)

    def kill(self) -> None:
        """As `kill -9` does, with all that it has started."""
        if self._process is None or self._process.poll() is not None:
            return
        for pid in (self._process.pid, *_children(self._process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(START_SECONDS)
        self.deaths += 1


class MortalPostgres(Mortal):
    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        folder.chmod(0o711)
        give_away(folder)
        programs, data = binaries("18"), folder / "data"
        options = ("-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        subprocess.run(unprivileged(programs / "initdb", "-D", data, *options), check=True, capture_output=True)
        (data / "pg_hba.conf").write_text(ACCESS)
        self.cluster = Cluster(free_port())
        command = unprivileged(
            programs / "postgres",
            *("-D", data, "-p", str(self.cluster.port)),
            *("-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"),
            *("-c", "fsync=off", "-c", "shared_buffers=64MB"),  # what a killed process wrote, the kernel still has
        )
        super().__init__(command, self.cluster.port, folder / "log")

    def is_ready(self) -> bool:
        return super().is_ready() and self.cluster.answers()


def a_server(environment: dict[str, str], port: int, folder: Path) -> Mortal:
    return Mortal([sys.executable, "-m", "tollgate", "serve"], port, folder / "server.log", cwd=folder, env=environment)


@contextlib.contextmanager
def alive(*mortals: Mortal) -> Iterator[None]:
    try:
        for mortal in mortals:
            mortal.start()
        yield
    finally:
        for mortal in reversed(mortals):
            mortal.kill()


class Storm:
    def __init__(self, seed: str, address: str, people: Sequence[Person], strangers: Sequence[Person]) -> None:
        self.seed = seed
        self.statuses: Counter[str] = Counter()
        self.promised: dict[str, int] = {}
        """What clients were told that a request was charged."""
        self.served: set[str] = set()
        self.refused: set[str] = set()
        self._address = address
        self._people = people
        self._strangers = strangers
        self._over = asyncio.Event()

    async def rage(self, seconds: float, server: Mortal, postgres: Mortal) -> None:
        """Ends with the death of the server, so that calls under way die with it."""
        callers = [asyncio.create_task(self._calls(number)) for number in range(CALLERS)]
        blows = asyncio.create_task(self._strikes(server, postgres))
        failed, _ = await asyncio.wait([blows, *callers], timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        while not failed and not (postgres.deaths and self.served):  # a server that is slow to start delays both
            failed, _ = await asyncio.wait([blows, *callers], timeout=0.1, return_when=asyncio.FIRST_EXCEPTION)
        self._over.set()
        await blows
        await asyncio.to_thread(server.kill)
        await asyncio.gather(*callers)

    async def _strikes(self, server: Mortal, postgres: Mortal) -> None:
        chance = self._chance("blows")
        while True:
            for victims in ([server], [postgres], [server], [postgres, server]):
                if await self._is_over(chance.uniform(0.5, 2.0)):
                    return
                for victim in victims:
                    await asyncio.to_thread(victim.kill)
                for victim in victims:
                    await asyncio.to_thread(victim.start)

    async def _calls(self, caller: int) -> None:
        chance = self._chance(f"caller {caller}")
        number = 0
        while not self._over.is_set():
            number += 1
            someone = chance.choice(self._strangers if chance.random() < 0.03 else self._people)
            user = f"{someone.org_id} {caller}-{number}"
            asked = _asked(chance, user)
            headers = {"connection": "close", "x-tollgate-usage": "true"}
            if chance.random() >= 0.3:
                await self._call(chance, someone, asked, headers)
                continue
            for _ in range(REPEATS):
                told = await self._call(chance, someone, asked, {**headers, "idempotency-key": user})
                if told[:3] in ("200", "401", "402") or await self._is_over(0.1):
                    break

    async def _call(self, chance: random.Random, someone: Person, asked: Asked, headers: dict[str, str]) -> str:
        leaves = chance.random() < LEAVES
        told = "left" if leaves else "lost"
        try:
            async with asyncio.timeout(chance.uniform(0, 0.6) if leaves else PATIENCE_SECONDS):
                told = await self._answer(someone, asked, headers)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, IndexError):
            await self._is_over(0.05)
        self.statuses[told] += 1
        return told

    async def _answer(self, someone: Person, asked: Asked, headers: dict[str, str]) -> str:
        line = await Line.opened(self._address, limit=2**24)
        try:
            path, body = asked
            await line.ask(someone, body, f"/v1{path}", **headers)
            status = await line.status()
            told = await line.headers()
            if told.get("idempotency-replayed"):
                told.pop("x-tollgate-charge-nanos")
            elif status in (401, 402):
                self.refused.add(told["x-request-id"])
            elif status == 200:
                self.served.add(told["x-request-id"])
            if charge := told.get("x-tollgate-charge-nanos"):
                self.promised[told["x-request-id"]] = int(charge)
            content = await line.reader.read()
            for amount, request_id in TOLD.findall(content):
                self.promised[request_id.decode()] = int(amount)
            code = CODE.search(content) if status >= 400 else None
            return f"{status} {code[1].decode()}" if code else str(status)
        finally:
            line.hang_up()

    async def _is_over(self, within: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._over.wait()
        return self._over.is_set()

    def _chance(self, whose: str) -> random.Random:
        return random.Random(f"{self.seed} {whose}")  # noqa: S311  # a storm that can be made again


def _asked(chance: random.Random, user: str) -> Asked:
    """Mostly conversations, with every fault."""
    text = "Über den Wolken " * chance.randint(1, 12)
    if chance.random() < 0.1:
        path, body = chance.choice(OTHERS)
        return path, {**body, "user": user}
    kind = chance.random()
    model = f"sandbox/fault-{chance.choice(sorted(RARE) if kind < 0.02 else FAULTS)}"
    if kind > 0.5:
        model = chance.choice(MODELS)
    more = {"stream": chance.random() < 0.6, "max_tokens": chance.randint(16, 300), "user": user}
    path = chance.choice(SAYING)
    return path, asking(path, text, model, **more)


async def rows_of(url: str, statement: str) -> list[Row]:
    connection = await asyncpg.connect(url)
    try:
        return [dict(row) for row in await connection.fetch(statement)]
    finally:
        await connection.close()


def _children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in listed.stdout.split()]
