"""The storm: engines, agent, server and Postgres are killed at random, in every phase, while customers call and an
operator changes what is wanted. `python -m agent.storm SECONDS [SEED]` in tests/.

In the end all that is wanted runs, at the latest when its back-off is over, and nothing else of ours. No foreign
process was touched, and the books agree.
"""

import asyncio
import contextlib
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx

from agent import host
from agent.control_plane import ControlPlane
from agent.host import Agent
from agent.hub_server import Fault, HubServer
from completions.paid import given
from engines import tiny_model
from engines.tiny_model import ENDLESS
from journeys.storm import Mortal, MortalPostgres, Row, a_server, alive, rows_of
from people import Person
from sandbox.serving import serving
from servers.postgres import AS_SUPABASE_HAS_IT
from servers.process import free_port
from tollgate.credits import store as credits
from tollgate.database import migrations
from tollgate.database.postgres import PostgresDoor
from tollgate.keys.authentication import console
from tollgate.sandbox.app import create_sandbox

KINDS = ("first", "second", "slow", "fetched")
"""Of deployments: two of llama.cpp that customers call, one that takes its time in each phase, and one whose files come
from the hub."""
CALLERS = 3
PRICING = {"prompt": "0.000001", "completion": "0.000002"}
LATE_SECONDS = 60.0
"""What a busy machine may need beyond the back-off: a sync after a server that was away, and the start."""
LONGEST_SECONDS = 420.0
"""The longest back-off, 300 s, and that."""
SWEEPS = 30


class Ground:
    """Where it rages."""

    def __init__(self, folder: Path, postgres: MortalPostgres, upstream: str, hub: HubServer) -> None:
        self.folder = folder
        self.postgres = postgres
        self.hub = hub
        self.url = postgres.cluster.create_supabase_project("storm")
        port = free_port()
        self.environment = {
            **given(upstream), "PATH": os.environ["PATH"], "HOME": str(folder), "PORT": str(port),
            "DATABASE_URL": self.url, "DATABASE_TIMEOUT_SECONDS": "2", "HOLD_TTL_SECONDS": "60",
            "UPSTREAM_TIMEOUT_SECONDS": "20",
            "AGENT_KEY": "a6" * 20, "PRIVATE_UPSTREAMS": "true",
        }  # fmt: skip
        self.server = a_server(self.environment, port, folder)
        self.models = folder / "models"
        self.models.mkdir()
        self.model = tiny_model.write_gguf(self.models / "tiny.gguf")
        plane = cast(ControlPlane, SimpleNamespace(address=f"http://127.0.0.1:{port}"))
        self.agent = Agent(plane, folder / "a", self.models)
        self.agent.environment["HF_ENDPOINT"] = hub.url
        self.address = plane.address

    async def make(self) -> tuple[str, str]:
        """An operator and a customer with money: their keys."""
        await migrations.migrate(self.url)
        door = PostgresDoor(self.url, pool_size=2, deadline_seconds=30)
        operator, customer = Person(door, "admin"), Person(door)
        for someone in (operator, customer):
            await someone.seed()
        await credits.grant(
            console(door, "tests"), customer.org_id, 10**13, source="funding", reason="", reference=customer.org_id
        )
        await door.close()
        await self.ask("update tollgate.orgs set plan_id = 'enterprise'")
        return operator.secret, customer.secret

    async def ask(self, statement: str) -> list[Row]:
        return await rows_of(self.url, statement)

    def command(self, *words: str) -> Any:
        told = subprocess.run(
            [sys.executable, "-m", "tollgate", *words, "--json"],
            **{"cwd": self.folder, "env": {**self.environment, "DATABASE_TIMEOUT_SECONDS": "5"}},
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert told.returncode == 0, told.stdout + told.stderr
        return json.loads(told.stdout)

    def client(self, secret: str, seconds: float = 10) -> httpx.Client:
        headers = {"authorization": f"Bearer {secret}"}
        return httpx.Client(base_url=self.address, headers=headers, timeout=seconds, trust_env=False)


class Storm:
    def __init__(self, ground: Ground, operator: httpx.Client, secret: str, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self._ground = ground
        self._operator = operator
        self._secret = secret
        self._seed = seed
        self._chance = random.Random(seed)  # noqa: S311  # a storm that can be made again
        self._ids: dict[str, str] = {}
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(CALLERS + 2)
        self._revivals: dict[str, Future[None]] = {}
        self._fetched = 0

    def begin(self) -> None:
        made = self._sure("POST", "/admin/hosts", {"name": "stormy"})
        again = self._sure("POST", f"/admin/hosts/{made['id']}/enrolments")  # a repeated creation shows no token
        self._ground.agent.start(token=again["enrolment"]["token"])
        for kind in KINDS:
            body = {"spec": self._spec(kind), "pricing": PRICING, "wanted": "running", "drain_seconds": 3}
            self._ids[kind] = self._sure("POST", "/admin/models", body)["id"]
        _until(lambda: self._phases() == dict.fromkeys(KINDS, "running"), lambda: str(self._rows()))

    def rage(self, seconds: float) -> None:
        callers = [self._pool.submit(self._calls, number) for number in range(CALLERS)]
        end = time.monotonic() + seconds
        blows = (
            *(self._kill_engine, self._kill_engine, self._kill_agent, self._kill_agent, self._kill_server),
            *(self._kill_postgres, self._toggle, self._toggle, self._toggle, self._change, self._change),
        )
        try:
            while time.monotonic() < end:
                self._chance.choice(blows)()
                time.sleep(self._chance.uniform(0, 0.8))
        finally:
            self._over.set()
            for waited in (*callers, *self._revivals.values()):
                waited.result()
            self._pool.shutdown()

    def calm(self) -> None:
        """Every other one is wanted, and all the rest stopped."""
        expected = {kind: "stopped" if number % 2 else "running" for number, kind in enumerate(KINDS)}
        for kind, wanted in expected.items():
            self._sure("POST", f"/admin/models/{self._ids[kind]}/{'start' if wanted == 'running' else 'stop'}")
        running = {self._ids[kind] for kind, wanted in expected.items() if wanted == "running"}
        _until(lambda: self._is_calm(expected, running), lambda: str(self._rows()), LONGEST_SECONDS)

    def end(self) -> None:
        for id_ in self._ids.values():
            self._sure("POST", f"/admin/models/{id_}/stop")
        _until(lambda: self._phases() == dict.fromkeys(KINDS, "stopped"), lambda: str(self._rows()))
        assert self._ground.agent.engines() == []

    def _is_calm(self, expected: dict[str, str], running: set[str]) -> bool:
        rows = self._rows()
        now = datetime.now(UTC)
        for row in rows.values():
            if row["phase"] == "failed" and row["wanted"] != "stopped":
                assert row["retry_at"], row
                assert (now - datetime.fromisoformat(row["retry_at"])).total_seconds() < LATE_SECONDS, row
        seen = {kind: rows[id_]["phase"] for kind, id_ in self._ids.items()}
        led = {_deployment_of(pid, self._ground.agent) for pid in self._ground.agent.engines()}
        return seen == expected and led == running

    # Blows

    def _kill_engine(self) -> None:
        engines = self._ground.agent.engines()
        if not engines:
            return
        pid = self._chance.choice(engines)
        id_, phases = _deployment_of(pid, self._ground.agent), self._agents_phases()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self.done[f"engine {phases.get(id_ or '', 'without an agent')}"] += 1

    def _kill_agent(self) -> None:
        self._note("agent")
        self._ground.agent.kill()
        time.sleep(self._chance.uniform(0, 0.3))
        self._ground.agent.start(token=None)

    def _kill_server(self) -> None:
        self._kill("server", self._ground.server)

    def _kill_postgres(self) -> None:
        self._kill("Postgres", self._ground.postgres)

    def _kill(self, name: str, victim: Mortal) -> None:
        """It comes back while other things happen, and lives for a while."""
        if not all(one.done() for one in self._revivals.values()):
            return
        self._note(name)
        victim.kill()
        self._revivals[name] = self._pool.submit(victim.start)

    def _note(self, victim: str) -> None:
        for phase in set(self._agents_phases().values()):
            self.done[f"{victim} {phase}"] += 1

    def _toggle(self) -> None:
        id_ = self._ids[self._chance.choice(KINDS)]
        wanted = self._chance.choice(("running", "stopped", "on_demand"))
        if wanted == "stopped":
            self._try("POST", f"/admin/models/{id_}/stop")
        else:
            self._try("POST", f"/admin/models/{id_}/start", {"wanted": wanted})

    def _change(self) -> None:
        kind = self._chance.choice(KINDS)
        if self._try("PATCH", f"/admin/models/{self._ids[kind]}", {"spec": self._spec(kind)}):
            self._try("POST", f"/admin/models/{self._ids[kind]}/apply")

    def _spec(self, kind: str) -> Row:
        made = host.spec(self._ground.model, served_name=f"storm/{kind}")
        made["context_length"] = self._chance.choice((512, 1024, 2048))
        if kind == "slow":
            return {**host.odd(self._ground.model, "slow"), "served_name": "storm/slow"}
        if kind == "fetched":
            self._fetched += 1
            repo = f"ours/{self._seed}-{self._fetched}"
            data = self._ground.model.read_bytes()
            self._ground.hub.repos[repo] = {"tiny.gguf": data}
            self._ground.hub.faults.append(Fault("cut", self._chance.randrange(len(data))))
            made["source"] = {"type": "hub", "repo_id": repo}
        return made

    # Customers

    def _calls(self, number: int) -> None:
        chance = random.Random(f"{self._seed} {number}")  # noqa: S311
        while not self._over.is_set():
            words = {"role": "user", "content": chance.choice((ENDLESS, "Hello"))}
            body = {"model": f"storm/{chance.choice(('first', 'second', 'fetched'))}", "messages": [words],
                    "max_tokens": chance.choice((4, 900)), "stream": chance.random() < 0.6}  # fmt: skip
            try:
                with self._ground.client(self._secret, chance.uniform(0.2, 5)) as http:
                    self.statuses[str(http.post("/v1/chat/completions", json=body).status_code)] += 1
            except httpx.HTTPError as error:
                self.statuses[type(error).__name__] += 1
                time.sleep(0.05)

    # What is seen

    def _rows(self) -> dict[str, Row]:
        return {row["id"]: row for row in self._sure("GET", "/admin/models")["data"]}

    def _phases(self) -> dict[str, str]:
        rows = self._rows()
        return {kind: rows[id_]["phase"] for kind, id_ in self._ids.items()}

    def _agents_phases(self) -> dict[str, str]:
        """As the agent itself says, whatever else is away."""
        with contextlib.suppress(OSError, ValueError, httpx.HTTPError):
            key = json.loads((self._ground.agent.directory / "identity.json").read_text())["host_key"]
            answer = httpx.get(
                f"{self._ground.agent.ingress}/agent/health",
                headers={"authorization": f"Bearer {key}"}, timeout=1, trust_env=False,
            )  # fmt: skip
            return cast(dict[str, str], answer.json()["phases"])
        return {}

    def _try(self, method: str, path: str, body: Any = None, key: str | None = None) -> Row | None:
        """None while the server or Postgres is away."""
        headers = {"idempotency-key": key} if key else {}
        with contextlib.suppress(httpx.HTTPError):
            answer = self._operator.request(method, path, json=body, headers=headers)
            assert answer.is_success or answer.status_code >= 500, answer.text
            return cast(Row, answer.json()) if answer.is_success else None
        return None

    def _sure(self, method: str, path: str, body: Any = None) -> Row:
        """Once, however often it must be asked for."""
        key = secrets.token_hex(8) if method == "POST" else None
        deadline = time.monotonic() + LATE_SECONDS
        while (found := self._try(method, path, body, key)) is None:
            assert time.monotonic() < deadline, path
            time.sleep(0.1)
        return found


def _deployment_of(pid: int, agent: Agent) -> str | None:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cwd").readlink().relative_to(agent.directory / "engines").parts[0]
    return None


def _until(condition: Any, told: Any = lambda: "it did not happen", seconds: float = LATE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(0.1)


def the_books_agree(ground: Ground) -> int:
    """After sweeps that nobody waits for: each is made due by SQL. Answers how many requests there were."""
    for _ in range(SWEEPS):
        if not asyncio.run(ground.ask("select 1 from tollgate.holds")):
            break
        asyncio.run(ground.ask("update tollgate.holds set next_sweep_at = clock_timestamp()"))
        ground.command("sweep")
    books = ground.command("audit")
    assert (books["faults"], books["open_holds"]) == ([], 0)
    wrong = "select id from tollgate.requests where charge_nanos > hold_nanos or state not in ('settled', 'released')"
    assert asyncio.run(ground.ask(wrong)) == []
    return int(books["requests"])


@contextlib.contextmanager
def _foreign() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Another's processes: one, and one that looks like an engine of ours."""
    commands = (["sleep", "3600"], [sys.executable, "-S", host.ODD, "mute"])
    started = [subprocess.Popen(command, start_new_session=True) for command in commands]
    try:
        yield started
    finally:
        for one in started:
            one.kill()
            one.wait()


def storm(seconds: float, seed: int, folder: Path) -> str:
    postgres = MortalPostgres(folder / "postgres")
    with HubServer().running() as hub, serving(create_sandbox()) as upstream, alive(postgres), _foreign() as foreign:
        postgres.cluster.run(AS_SUPABASE_HAS_IT)
        ground = Ground(folder, postgres, upstream, hub)
        operator, customer = asyncio.run(ground.make())
        with alive(ground.server), ground.client(operator) as http:
            made = Storm(ground, http, customer, seed)
            try:
                made.begin()
                made.rage(seconds)
                made.calm()
                assert [one.poll() for one in foreign] == [None] * len(foreign), "a foreign process was touched"
                made.end()
                requests = the_books_agree(ground)
            finally:
                host.end(ground.agent)
    deaths = f"server {ground.server.deaths} times, Postgres {postgres.deaths} times"
    return f"killed: {dict(sorted(made.done.items()))}, {deaths}\ncalls: {dict(made.statuses)}, {requests} requests"


if __name__ == "__main__":
    given_seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with tempfile.TemporaryDirectory(prefix="tg-") as folder_made:
        Path(folder_made).chmod(0o711)
        told = storm(float(sys.argv[1]), given_seed, Path(folder_made))
    os.write(
        1, f"{told}\nWhat was wanted ran, nothing else is left, and the books agree (seed {given_seed}).\n".encode()
    )
