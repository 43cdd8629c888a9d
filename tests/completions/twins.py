"""Two sandboxes that agree in everything, chance and time included: one asked directly, the other behind Tollgate."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway import Upstream, running
from people import Person
from sandbox.serving import PATIENCE_SECONDS, Clock, collected, serving
from tollgate.credits import store as credits
from tollgate.database.postgres import PostgresDoor
from tollgate.keys.authentication import console
from tollgate.sandbox import API
from tollgate.sandbox.app import Sandbox
from tollgate.sandbox.catalog import Catalog
from tollgate.sandbox.models import MODELS
from tollgate.sandbox.state import Habits, State

UPSTREAM_KEY = "sk-or-v1-of-the-tests"
RICH_NANOS = 10**13
"""So much that no bound has to be put into a body."""
COMPARED = ("content-type", "retry-after", "x-generation-id", "set-cookie", "location")


class Chance:
    """A row of numbers that can begin again."""

    def __init__(self) -> None:
        self.last = 0

    def __call__(self, bits: int) -> int:
        self.last += 1
        return self.last


@dataclass
class Heard:
    """A request as it reached the upstream."""

    path: str
    headers: dict[str, str]
    body: bytearray = field(default_factory=bytearray)


class Recorder:
    """Before an upstream: keeps what it is asked for money."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.heard: list[Heard] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        heard = Heard(scope["path"], headers)
        self.heard.append(heard)

        async def receive_and_keep() -> Message:
            message = await receive()
            heard.body += message.get("body", b"")
            return message

        await self._app(scope, receive_and_keep, send)


@dataclass
class Told:
    """An answer, as it came over the line."""

    status: int
    headers: dict[str, str]
    body: bytes
    broke_off: bool

    @property
    def code(self) -> Any:
        """Our word for a refusal of ours, where OpenRouter has its own."""
        error = httpx.Response(self.status, content=self.body).json()["error"]
        return error["code"] if "metadata" not in error else error["metadata"]["error_type"]


class Twins:
    def __init__(
        self, addresses: tuple[str, str], keys: tuple[str, str], recorder: Recorder, chances: tuple[Chance, Chance]
    ) -> None:
        """The one asked directly comes first, then Tollgate."""
        self._addresses = addresses
        self._keys = keys
        self._recorder = recorder
        self._chances = chances
        self.http = httpx.AsyncClient(timeout=PATIENCE_SECONDS)

    @property
    def heard(self) -> list[Heard]:
        """By the one behind Tollgate, since both were asked last."""
        return self._recorder.heard

    async def asked(self, path: str, body: bytes, **headers: str) -> tuple[Told, Told]:
        """What each says: directly, and through Tollgate."""
        self.heard.clear()
        for chance in self._chances:
            chance.last = 0
        direct, through = [
            await self._post(address + path, body, {"authorization": f"Bearer {key}", **headers})
            for address, key in zip(self._addresses, self._keys, strict=True)
        ]
        return direct, through

    async def _post(self, url: str, body: bytes, headers: dict[str, str]) -> Told:
        given = {"content-type": "application/json", **headers}
        async with self.http.stream("POST", url, content=body, headers=given) as answer:
            said, failure = await collected(answer.aiter_raw())
        self.http.cookies.clear()
        shown = {name: answer.headers[name] for name in COMPARED if name in answer.headers}
        return Told(answer.status_code, shown, said, failure is not None)


@contextlib.asynccontextmanager
async def twins(database: str, faults: list[str], **more: str) -> AsyncIterator[Twins]:
    chances = Chance(), Chance()
    catalog = Catalog(MODELS).with_faulty(faults)
    direct, behind = (Sandbox(State(Habits(), catalog, Clock(), chance)) for chance in chances)
    recorder = Recorder(behind)
    with (
        serving(direct) as first,
        serving(recorder) as second,
        running({"DATABASE_URL": database}, Upstream(behind, second), **more) as gateway,
    ):
        keys = UPSTREAM_KEY, await somebody_rich(database)
        made = Twins((first + API, gateway.address + API), keys, recorder, chances)
        yield made
        await made.http.aclose()


async def somebody_rich(database: str) -> str:
    """Their key."""
    door = PostgresDoor(database, pool_size=1, deadline_seconds=30)
    someone = Person(door)
    await someone.seed()
    granter = console(door, "tests")
    await credits.grant(granter, someone.org_id, RICH_NANOS, source="funding", reason="", reference=someone.org_id)
    await door.close()
    connection = await asyncpg.connect(database)
    await connection.execute("update tollgate.orgs set plan_id = 'enterprise' where id = $1", someone.org_id)
    await connection.close()
    return someone.secret
