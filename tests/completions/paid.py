"""What the tests of paid calls share: requests as rows, an upstream that can be made to wait, a door that can fail."""

import asyncio
import contextlib
import json
import secrets
import socket
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Generator, Mapping
from typing import Any
from urllib.parse import urlsplit

import asyncpg
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway import CHAT, Upstream
from people import PEPPER, Person
from sandbox.serving import until
from servers.postgres import Cluster
from servers.postgrest import token
from servers.relay import Relay
from tollgate import settings
from tollgate.app import Rooms, compose, create_app
from tollgate.core.errors import DatabaseUnavailable, TollgateError
from tollgate.database import Door, Json
from tollgate.database.postgres import PostgresDoor
from tollgate.process.clock import Monotonic, monotonic

Row = dict[str, Any]


class Auditor:
    """Reads the tables themselves, and moves the time of open holds, since nobody can move the database's clock."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def requests(self, someone: Person) -> list[Row]:
        rows = await self._ask(
            """
            select coalesce(json_agg(to_jsonb(r) || jsonb_build_object('sweeps', h.sweeps,
              'next_look_seconds', extract(epoch from h.next_sweep_at - clock_timestamp())) order by r.id), '[]')
            from tollgate.requests r left join tollgate.holds h on h.request_id = r.id where r.org_id = $1
            """,
            someone.org_id,
        )
        return list(json.loads(rows))

    async def request(self, someone: Person) -> Row:
        """The org's only one."""
        (only,) = await self.requests(someone)
        return only

    async def ended(self, someone: Person, *states: str) -> list[Row]:
        """All of them, once none is under way any more."""
        wanted = states or ("settled", "released", "unsettled")

        async def are() -> bool:
            return all(row["state"] in wanted for row in await self.requests(someone))

        await until(are)
        return await self.requests(someone)

    async def charges(self, someone: Person) -> list[tuple[str, int]]:
        found = await self._ask(
            "select coalesce(json_agg(json_build_array(reference, amount_nanos) order by position), '[]')"
            " from tollgate.transfers where org_id = $1 and kind = 'charge'",
            someone.org_id,
        )
        return [(reference, amount) for reference, amount in json.loads(found)]

    async def hasten(self, someone: Person) -> None:
        """Makes this org's open holds due, and no other's."""
        await self._ask("update tollgate.holds set next_sweep_at = clock_timestamp() + interval '1 hour'")
        await self._ask(
            "update tollgate.holds set next_sweep_at = clock_timestamp() where request_id in"
            " (select id from tollgate.requests where org_id = $1)",
            someone.org_id,
        )

    async def looked(self, someone: Person, times: int) -> None:
        """As if sweepers had looked so often already."""
        await self._ask(
            "update tollgate.holds set sweeps = $2 where request_id in"
            " (select id from tollgate.requests where org_id = $1)",
            someone.org_id,
            times,
        )

    async def agree(self, someone: Person, *, spent: int | None = None) -> None:
        """Nothing is held, and the org has paid what its rows say, each once."""
        rows = await self.requests(someone)
        assert {row["state"] for row in rows} <= {"settled", "released"}
        charged = {row["id"]: row["charge_nanos"] for row in rows if row["charge_nanos"]}
        assert sorted(charged.items()) == sorted(await self.charges(someone))
        held = await self._ask("select held_nanos from tollgate.orgs where id = $1", someone.org_id)
        assert held == 0
        if spent is not None:
            assert sum(charged.values()) == spent

    async def balance(self, someone: Person) -> int:
        return int(await self._ask("select balance_nanos from tollgate.orgs where id = $1", someone.org_id))

    async def _ask(self, statement: str, *arguments: object) -> Any:
        connection = await asyncpg.connect(self._url)
        try:
            return await connection.fetchval(statement, *arguments)
        finally:
            await connection.close()


class Watched:
    """A door that counts its calls, and fails as it is told: `fails` is asked before each, `loses` after it."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self.calls: list[str] = []
        self.items: list[list[dict[str, Any]]] = []
        self.fails: Callable[[str], TollgateError | None] = lambda function: None
        self.loses: Callable[[str], bool] = lambda function: False
        self.under_way = 0

    async def call(self, function: str, **arguments: Json) -> Json:
        name = function.removeprefix("tollgate_")
        self.calls.append(name)
        self.items.append(arguments.get("items", []))
        if error := self.fails(name):
            raise error
        self.under_way += 1
        try:
            answer = await self._door.call(function, **arguments)
        finally:
            self.under_way -= 1
        if self.loses(name):
            raise DatabaseUnavailable
        return answer

    async def close(self) -> None:
        """The door behind is the test's."""


class Turnstile:
    """Before an upstream: counts its requests, holds them until it is opened, and knows how many are not done."""

    def __init__(self, app: ASGIApp, *, is_open: bool = True) -> None:
        self.app = app
        self.is_open = is_open
        self.came = 0
        self.inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            return await self.app(scope, receive, send)
        self.came += 1
        self.inside += 1
        try:
            while not self.is_open:  # noqa: ASYNC110  # it is opened from another thread
                await asyncio.sleep(0.01)
            await self.app(scope, receive, send)
        finally:
            self.inside -= 1


class Client:
    """One who calls the ASGI app itself, and leaves when it likes: before an answer, or after so many messages."""

    def __init__(
        self, someone: Person, body: Any, *, path: str = CHAT, leaves_after: int | None = None, **headers: str
    ) -> None:
        self._given = json.dumps(body).encode()
        given = {"authorization": f"Bearer {someone.secret}", "content-type": "application/json", **headers}
        self.scope: Scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "client": ("127.0.0.1", 1), "server": ("tollgate.test", 80),
        }  # fmt: skip
        self._leaves_after = leaves_after
        self._asked = False
        self._left = asyncio.Event()
        self.messages: list[Message] = []
        self._leave_if_it_is_time()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    async def receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._given, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await asyncio.sleep(0)  # as a server does that writes to a full line
        if not self._left.is_set():
            self.messages.append(message)
        self._leave_if_it_is_time()

    async def call(self, app: ASGIApp) -> None:
        await app(self.scope, self.receive, self.send)

    def _leave_if_it_is_time(self) -> None:
        if self._leaves_after is not None and len(self.messages) >= self._leaves_after:
            self._left.set()


@types.coroutine
def cancelled_at(steps: Collection[int], work: Coroutine[Any, Any, Any], taken: list[int]) -> Generator[Any, Any, Any]:
    """Does the work, and cancels the task that does it at each of these of its awaits. Counts them in `taken`."""
    thrown: BaseException | None = None
    while True:
        try:
            waits_for = work.send(None) if thrown is None else work.throw(thrown)
        except StopIteration as end:
            return end.value
        taken[0] += 1
        if taken[0] in steps:
            task = asyncio.current_task()
            assert task
            task.cancel()
        thrown = None
        try:
            yield waits_for
        except BaseException as error:  # noqa: BLE001  # it is the work's
            thrown = error


class Line:
    """A client with nothing but a socket: it costs little, and can hang up at any moment."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    @classmethod
    async def opened(cls, address: str, **more: Any) -> "Line":
        where = urlsplit(address)
        return cls(*await asyncio.open_connection(where.hostname, where.port, **more))

    @classmethod
    async def of_one_who_never_reads(cls, address: str) -> "Line":
        """With little room for what nobody takes."""
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.setblocking(False)
        where = urlsplit(address)
        await asyncio.get_running_loop().sock_connect(made, (where.hostname, where.port))
        return cls(*await asyncio.open_connection(sock=made, limit=1024))

    async def ask(self, someone: Person, body: Any, path: str = CHAT, **headers: str) -> None:
        content = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()  # as httpx writes it
        given = {"authorization": f"Bearer {someone.secret}", "content-length": str(len(content)), **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        self._writer.write(f"POST {path} HTTP/1.1\r\nhost: tollgate.test\r\n{head}\r\n".encode() + content)
        await self._writer.drain()

    async def open(self, someone: Person, path: str, **headers: str) -> None:
        """A head. The body is for `send`."""
        given = {"authorization": f"Bearer {someone.secret}", **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        await self.send(f"POST {path} HTTP/1.1\r\nhost: tollgate.test\r\n{head}\r\n".encode())

    async def send(self, data: bytes, *, chunked: bool = False) -> None:
        self._writer.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
        await self._writer.drain()

    async def status(self) -> int:
        return int((await self.reader.readline()).split()[1])

    async def headers(self) -> dict[str, str]:
        """After the status."""
        lines = (await self.until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}

    async def until(self, seen: bytes) -> bytes:
        return await self.reader.readuntil(seen)

    async def events(self, many: int) -> None:
        """Reads so many."""
        for _ in range(many):
            await self.until(b"\n\n")

    def hang_up(self) -> None:
        self._writer.transport.abort()


def given(upstream_url: str) -> dict[str, str]:
    return {
        "KEY_PEPPER": PEPPER,
        "OPENROUTER_BASE_URL": upstream_url,
        "OPENROUTER_API_KEY": "sk-or-v1-of-the-tests",
        "LOG_LEVEL": "error",
    }


def database(wire: Relay, url: str) -> Mapping[str, str]:
    """The settings of the door behind this wire."""
    if wire.path_prefix:
        return {"SUPABASE_URL": f"http://127.0.0.1:{wire.port}", "SUPABASE_SECRET_KEY": token("service_role")}
    return {"DATABASE_URL": Cluster(wire.port).url(url.rsplit("/", 1)[1])}


@contextlib.asynccontextmanager
async def rooms(door: Door, upstream_url: str, clock: Monotonic = monotonic) -> AsyncIterator[Rooms]:
    """A Tollgate without a server."""
    environ = given(upstream_url)
    made = compose(settings.read(environ), door, clock, environ)
    try:
        yield made
    finally:
        await made.upstreams.close()
        await made.http.close()


@contextlib.asynccontextmanager
async def app(
    door: Door | None, upstream: Upstream, clock: Monotonic = monotonic, **more: str
) -> AsyncIterator[ASGIApp]:
    """A Tollgate whose server is the test."""
    environ = {**given(upstream.url), **more}
    made = create_app(settings.read(environ), door=door, clock=clock, environ=environ)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(made.router.lifespan_context(made))
        yield made


def an_item(someone: Person, **more: Any) -> dict[str, Any]:
    """A request as admission asks for it: 10 tokens in, at most 100 out at 1,000 nanos each, 5 % markup."""
    return {
        "id": f"req_{secrets.token_hex(12)}",
        "caller": {"digests": [someone.key["digest"]], "pepper": someone.key["pepper"], "ip": "192.0.2.1"},
        "scope": "chat",
        "endpoint": "chat",
        "model": "sandbox/echo",
        "models": ["sandbox/echo"],
        "streamed": False,
        "fixed_nanos": "5000",
        "output_nanos": "1000",
        "output_bound": 100,
        "least_output": 16,
        "most_output": 100,
        "choices": 1,
        "prompt_tokens": 10,
        "markup_ppm": 50_000,
        "ttl_seconds": 600,
        "price": {"fixed_nanos": "5000", "output_nanos": "1000"},
        **more,
    }


HOLD = 110_250
"""Of such an item."""


async def admit(door: Door, *items: dict[str, Any]) -> list[dict[str, Any]]:
    answers = await door.call("tollgate_admit", items=list(items))
    return [answers[one["id"]] for one in items]


async def settle(door: Door, *items: dict[str, Any]) -> list[dict[str, Any]]:
    answers = await door.call("tollgate_settle", items=list(items))
    return [answers[one["id"]] for one in items]


def settled(asked: dict[str, Any], charge: int, **more: Any) -> dict[str, Any]:
    tokens = {"prompt_tokens": 10, "completion_tokens": 20}
    cost = charge * 100 // 105  # the audit knows the markup
    return {"id": asked["id"], "outcome": "settled", "charge_nanos": charge, "cost_nanos": cost, **tokens, **more}


def released(asked: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": asked["id"], "outcome": "released", **more}


async def audited(door: Door) -> None:
    books = await door.call("tollgate_audit_books")
    assert books["faults"] == [], books["faults"]
    assert sum(books["accounts_nanos"].values()) == 0


async def books_agree(database: str) -> None:
    """The whole database audited, when its tests are done."""
    door = PostgresDoor(database, pool_size=1, deadline_seconds=600)
    await audited(door)
    await door.close()


async def unsettled(door: Door, someone: Person, generation_id: str | None, **more: Any) -> dict[str, Any]:
    """A request whose upstream was at work, and of which nothing more is known."""
    item = an_item(someone, **more)
    granted = (await door.call("tollgate_admit", items=[item]))[item["id"]]
    assert "granted" in granted, granted
    ending = {"id": item["id"], "outcome": "unsettled", "upstream": "openrouter", "generation_id": generation_id}
    await door.call("tollgate_settle", items=[{name: value for name, value in ending.items() if value}])
    return item


async def eventually(happened: Callable[[], bool | Awaitable[bool]]) -> None:
    async def has() -> bool:
        told = happened()
        return told if isinstance(told, bool) else await told

    await until(has)
