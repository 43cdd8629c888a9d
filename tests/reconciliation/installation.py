"""A Tollgate whose calls all happen at noon of yesterday, before an OpenRouter that states what that day cost."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, time, timedelta
from typing import Any

import asyncpg
import httpx
from starlette.types import Receive, Scope, Send

from admin.api_client import ApiClient
from completions.paid import Auditor, rooms
from gateway import CHAT, Upstream
from people import PEPPER, Person
from sandbox.serving import a_chat, serving
from tollgate.app import create_app
from tollgate.credits import store as credits
from tollgate.database.postgres import PostgresDoor
from tollgate.keys.authentication import console
from tollgate.process import clock
from tollgate.sandbox.app import create_sandbox
from tollgate.sandbox.state import Habits
from tollgate.settings import read

KEY = "sk-or-v1-of-the-tests"
NOON = datetime.combine(clock.now().date() - timedelta(days=1), time(12), UTC)


class Faulty:
    """A sandbox whose next answer has this fault, and whose clock stands still."""

    def __init__(self) -> None:
        self.now = NOON.timestamp()
        self.sandbox = create_sandbox(Habits(generation_delay_seconds=0.0), clock=lambda: self.now)
        self.fault = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.fault:
            scope = {**scope, "headers": [*scope["headers"], (b"x-sandbox-fault", self.fault.encode())]}
        await self.sandbox(scope, receive, send)


class Installation:
    """A Tollgate whose calls all happen at noon of yesterday (UTC)."""

    def __init__(self, url: str, upstream: Upstream, faulty: Faulty) -> None:
        self.url, self.upstream, self.faulty = url, upstream, faulty
        self.day = NOON.date()
        self.environ = {
            "KEY_PEPPER": PEPPER,
            "DATABASE_URL": url,
            "OPENROUTER_BASE_URL": upstream.url,
            "OPENROUTER_API_KEY": KEY,
            "OPENROUTER_MANAGEMENT_KEY": "sk-or-v1-of-the-management",
            "LOG_LEVEL": "error",
        }
        self.door = PostgresDoor(url, pool_size=4, deadline_seconds=30)
        self.app = create_app(read(self.environ), door=self.door, environ=self.environ)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Installation"]:
        async with self.app.router.lifespan_context(self.app):
            yield self

    async def open(self) -> None:
        self.customer, self.admin = Person(self.door), Person(self.door, "admin")
        for someone in (self.customer, self.admin):
            await someone.seed()
        granter = console(self.door, "tests")
        await credits.grant(granter, self.customer.org_id, 10**12, source="funding", reason="", reference="tests")

    def at(self, url: str) -> "Installation":
        """The same with another database, which has the same people."""
        other = Installation(url, self.upstream, self.faulty)
        other.customer, other.admin = self.customer, self.admin
        return other

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://tollgate", timeout=60)

    async def call(self, model: str, fault: str = "", times: int = 1) -> None:
        self.faulty.fault = fault
        async with self.client() as http:
            for _ in range(times):
                headers = {"authorization": f"Bearer {self.customer.secret}"}
                await http.post(CHAT, json=a_chat(model=model), headers=headers)
        self.faulty.fault = ""

    async def settle(self) -> None:
        """The sweeper looks once more after all looks that it takes, and the calls are moved to that noon."""
        auditor = Auditor(self.url)
        await auditor.hasten(self.customer)
        await auditor.looked(self.customer, 12)
        async with rooms(self.door, self.upstream.url) as made:
            await made.sweeper.sweep()
        await self.sql(
            "update tollgate.requests set created_at = $1::timestamptz,"
            " settled_at = case when settled_at is not null then $1::timestamptz end",
            NOON,
        )
        await self.sql("select tollgate.roll_up_again($1)", NOON)

    async def sql(self, statement: str, *arguments: Any) -> Any:
        connection = await asyncpg.connect(self.url)
        try:
            return await connection.fetchval(statement, *arguments)
        finally:
            await connection.close()

    def end_the_day(self) -> None:
        """For the sandbox, which states a day that is over."""
        self.faulty.now = clock.now().timestamp()

    async def reconciled(self) -> Any:
        self.end_the_day()
        async with self.client() as http:
            return await ApiClient(http, self.admin).ask("POST", f"/admin/reconciliation/{self.day}/run")


@asynccontextmanager
async def installed(url: str) -> AsyncIterator[Installation]:
    """In an empty database, with its people."""
    faulty = Faulty()
    with serving(faulty) as address:
        async with Installation(url, Upstream(faulty.sandbox, address), faulty).running() as made:
            await made.open()
            yield made
