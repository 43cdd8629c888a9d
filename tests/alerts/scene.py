"""Three instances of Tollgate on one database, with all that can go wrong around them. Time passes where a cause says
so: for the processes by the clock that they are given, for the database by moving rows into the past."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from admin.api_client import ApiClient
from alerts.receivers import Receiver, receiver
from completions.paid import eventually
from gateway import CHAT
from people import PEPPER, Person
from sandbox.serving import PATIENCE_SECONDS, Clock, a_chat, serving
from tollgate.alerts import deliveries
from tollgate.app import create_app
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.credits import store as credits
from tollgate.database.postgres import PostgresDoor
from tollgate.keys.authentication import console
from tollgate.sandbox import API
from tollgate.sandbox.app import create_sandbox
from tollgate.sandbox.state import Habits
from tollgate.settings import read
from tollgate.upstreams import health_checks, openrouter_account

INSTANCES = 3
SECRET_OF_THE_SCHEDULER = "a-secret-of-the-scheduler"
OURS = "203.0.113.1"
"""The address of those who call."""

Told = tuple[str, str, str]
"""Rule, subject and state."""


class OpenRouter:
    """A sandbox that errs, takes its time, and has no list or no credit, as it is told."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.now: float | None = None
        self.sandbox = create_sandbox(Habits(generation_delay_seconds=0.0), clock=lambda: self.now or time.time())
        self.fault = ""
        self.takes_seconds = 0.0
        self.has_list = True
        self.has_credit = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        answer: ASGIApp = self.sandbox
        if path == f"{API}/models" and not self.has_list:
            answer = PlainTextResponse("", 503)
        elif path == f"{API}/credits" and not self.has_credit:
            answer = JSONResponse({"data": {"total_credits": 5, "total_usage": 5}})
        elif path == f"{API}/chat/completions":
            self.clock.now += self.takes_seconds
        added = {b"x-sandbox-fault": self.fault.encode(), b"authorization": b"Bearer sk-of-nobody"}
        headers = {**added, **dict(scope["headers"])}  # a server of one's own needs no key
        await answer({**scope, "headers": [*headers.items()]}, receive, send)


class Scene:
    def __init__(
        self, url: str, door: PostgresDoor, sql: asyncpg.Connection, folder: Path, patch: pytest.MonkeyPatch
    ) -> None:
        self.url = url
        self.door = door
        self.connection = sql
        self.folder = folder
        self.patch = patch
        self.clock = Clock()
        self.openrouter = OpenRouter(self.clock)
        self.upstream_url = ""
        self.instances: list[httpx.AsyncClient] = []
        self.app: Any = None
        self.has_dear_model = False
        self.admin = Person(door, "admin")
        self.operator: ApiClient
        self.hook: Receiver

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Scene"]:
        for module, patience in ((deliveries, "ATTEMPT"), (openrouter_account, "TIMEOUT"), (health_checks, "PROBE")):
            self.patch.setattr(module, f"{patience}_SECONDS", PATIENCE_SECONDS)  # a busy machine is no cause
        async with contextlib.AsyncExitStack() as stack:
            self.upstream_url = stack.enter_context(serving(self.openrouter)) + API
            environ = {
                "KEY_PEPPER": PEPPER,
                "OPENROUTER_BASE_URL": self.upstream_url,
                "OPENROUTER_API_KEY": "sk-or-v1-of-the-tests",
                "OPENROUTER_MANAGEMENT_KEY": "sk-or-v1-of-the-management",
                "PRIVATE_UPSTREAMS": "true",
                "AGENT_KEY": "an-agent-key-of-the-tests-with-40-chars!",
                "VAULT_KEY": "ab" * 32,
                "CRON_SECRET": SECRET_OF_THE_SCHEDULER,
                "LOG_LEVEL": "error",
            }
            for _ in range(INSTANCES):
                door = PostgresDoor(self.url, pool_size=4, deadline_seconds=PATIENCE_SECONDS)
                app = create_app(read(environ), door=door, environ=environ, clock=self.clock)
                await stack.enter_async_context(app.router.lifespan_context(app))
                self.app = self.app or app
                self.instances.append(await stack.enter_async_context(_client(app, OURS)))
            self.hook = await stack.enter_async_context(receiver())
            await self.admin.seed()
            self.operator = ApiClient(self.instances[0], self.admin)
            channel = {"name": "ops", "kind": "webhook", "url": self.hook.url}
            await self.operator.ask("POST", "/admin/alerts/channels", 201, json=channel)
            yield self

    async def sql(self, statement: str, *arguments: Any) -> Any:
        return await self.connection.fetchval(statement, *arguments)

    async def sweep(self) -> None:
        """All instances at once, ten seconds after the round before, when the slow readings are due again."""
        await self.sql(
            "update tollgate.alert_scan set scanned_at = scanned_at - interval '10 s', slow_at = '-infinity'"
        )
        await asyncio.gather(*(self.scheduled(one) for one in self.instances))

    async def scheduled(self, instance: httpx.AsyncClient) -> None:
        answer = await instance.post("/internal/sweep", headers={"authorization": f"Bearer {SECRET_OF_THE_SCHEDULER}"})
        assert answer.status_code == 200, answer.text

    @contextlib.asynccontextmanager
    async def session(self, statement: str) -> AsyncIterator[int]:
        """Somebody's session with an open transaction; its process id."""
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(f"begin; {statement}")
            yield connection.get_server_pid()
            await connection.execute("rollback")
        finally:
            await connection.close()

    def told(self) -> list[Told]:
        """What the receiver was told: each message once, however often it came."""
        messages = {got.headers["webhook-id"]: got.json for got in self.hook.received}
        return [
            (alert["rule"], alert["subject"], alert["state"])
            for message in messages.values()
            for alert in message["data"]["alerts"]
        ]

    async def change_rule(self, rule: str, **changes: Any) -> None:
        await self.operator.ask("PATCH", f"/admin/alerts/rules/{rule}", json=changes)

    async def customer(self, credits_given: int = 1000) -> Person:
        made = Person(self.door)
        await made.seed()
        await self.sql("update tollgate.orgs set plan_id = 'enterprise' where id = $1", made.org_id)
        await self.grant(made, credits_given)
        return made

    async def grant(self, someone: Person, given: int) -> None:
        nanos = given * NANOS_PER_CREDIT
        reference = f"{someone.org_id}-{given}"
        granter = console(self.door, "tests")
        await credits.grant(granter, someone.org_id, nanos, source="funding", reason="", reference=reference)

    async def call(
        self, someone: Person, model: str = "sandbox/echo", *, fault: str = "", times: int = 1, **more: Any
    ) -> list[int]:
        """The statuses of the answers."""
        self.openrouter.fault = fault
        headers = {"authorization": f"Bearer {someone.secret}"}
        body = a_chat(model=model, max_tokens=4, **more)
        found = [(await self.instances[0].post(CHAT, json=body, headers=headers)).status_code for _ in range(times)]
        self.openrouter.fault = ""
        return found

    async def asked_from(self, ip: str, secret: str) -> int:
        """The status of an answer to a key that is used from there."""
        async with _client(self.app, ip) as http:
            return (await http.get("/user/balance", headers={"authorization": f"Bearer {secret}"})).status_code

    async def is_counted(self, query: str, *arguments: Any) -> None:
        """Until what was counted in memory is written: a process does so every five seconds, beside a request."""
        self.clock.now += 6
        await self.instances[0].get("/healthz")

        async def is_there() -> bool:
            return bool(await self.sql(query, *arguments))

        await eventually(is_there)

    async def dear_model(self) -> str:
        """A credit for each token of the answer, on a server of one's own."""
        if not self.has_dear_model:
            self.has_dear_model = True
            server = await self.operator.upstream(base_url=self.upstream_url)
            pricing = {"prompt": "0", "completion": "1"}
            await self.operator.route(server["id"], "ours/dear", upstream_model="sandbox/echo", pricing=pricing)
        return "ours/dear"

    async def earlier(self, table: str, span: str, where: str = "true", *arguments: Any) -> None:
        """Moves the times of these rows into the past."""
        moved = ", ".join(f"{column} = {column} - interval '{span}'" for column in TIMES[table])
        await self.sql(f"update tollgate.{table} set {moved} where {where}", *arguments)

    async def rolled_up(self, since: str = "10 days") -> None:
        """Usage is counted anew, after its requests were moved."""
        await self.sql(f"select tollgate.roll_up_again(now() - interval '{since}')")
        while (await self.door.call("tollgate_roll_up_usage", page_size=5000))["more"]:
            pass


TIMES = {
    "requests": ("created_at", "settled_at"),
    "hosts": ("last_seen_at",),
    "alert_scan": ("scanned_at",),
    "process_samples": ("sampled_at",),
    "orgs": ("created_at",),
    "api_keys": ("created_at", "expires_at"),
    "key_networks": ("first_seen_at", "last_seen_at"),
    "security_events": ("first_seen_at", "last_seen_at", "hour"),
}
HERE = socket.gethostname()


def _client(app: Any, ip: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, client=(ip, 50_000)), base_url="http://tollgate", timeout=60
    )
