import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import respx
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from tollgate import __version__
from tollgate.app import create_app
from tollgate.core.errors import DatabaseUnavailable
from tollgate.database.schema_version import NEEDED
from tollgate.health import checks, redis, rules
from tollgate.process.http_client import Http
from tollgate.settings import read

KEY = "sk-or-v1-0123456789"
SHIPPED_SECONDS = checks.TIMEOUT_SECONDS
UPSTREAMS = {"up": 2, "down": 1, "unknown": 0}
OPENROUTER = "https://openrouter.ai/api/v1/key"
PRODUCTION = {"TOLLGATE_ENV": "production", "KEY_PEPPER": "p" * 32, "DATABASE_URL": "postgresql://db.example/x"}

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class FakeDoor:
    def __init__(self, schema_version: str = NEEDED, user_count: int = 3) -> None:
        self.answer = {"schema_version": schema_version, "user_count": user_count, "upstreams": UPSTREAMS}
        self.down = False
        self.looks = 0
        self.open = asyncio.Event()
        self.open.set()

    async def call(self, function: str, **arguments: Any) -> Any:
        assert (function, arguments) == ("tollgate_health", {})
        self.looks += 1
        await self.open.wait()
        if self.down:
            raise DatabaseUnavailable
        return self.answer

    async def close(self) -> None: ...


class Site:
    def __init__(self, door: FakeDoor | None = None, **environ: str) -> None:
        self.door = door or FakeDoor()
        self.now = 1000.0
        self.app: FastAPI = create_app(read(environ), door=self.door, clock=lambda: self.now)

    async def ask(self, path: str) -> httpx.Response:
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://tollgate.test") as http:
            return await http.get(path)


class Redis:
    """Implements as much of the protocol as a ping needs, and records the commands."""

    def __init__(self, *, password: str | None = None, user: str = "default") -> None:
        self.told: list[list[str]] = []
        self.accounts = {(user, password)} if password else set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        let_in = not self.accounts
        while head := await reader.readline():
            words = []
            for _ in range(int(head[1:])):
                length = int((await reader.readline())[1:])
                words.append((await reader.readexactly(length + 2))[:-2].decode())
            self.told.append(words)
            match words:
                case ["AUTH", *who, password]:
                    let_in = ((who or ["default"])[0], password) in self.accounts
                    writer.write(b"+OK\r\n" if let_in else b"-WRONGPASS invalid username-password pair\r\n")
                case ["PING"]:
                    writer.write(b"+PONG\r\n" if let_in else b"-NOAUTH Authentication required.\r\n")
                case _:
                    writer.write(b"-ERR unknown command\r\n")


@contextlib.asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[str]:
    speaking: set[asyncio.Task[None] | None] = set()

    async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        speaking.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError):
            await handler(reader, writer)
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(tracked, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"{host}:{port}"
    finally:
        server.close()
        # A handler ends when its caller hangs up; one that outlived the test's loop would be a warning, so an error.
        await asyncio.wait_for(asyncio.gather(*filter(None, speaking)), 60)


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(1024):
        pass


def saying(answer: bytes) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        await writer.drain()

    return handler


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    """An address where nothing listens, reserved for the test."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


async def test_a_process_that_answers_is_alive_whatever_it_needs() -> None:
    site = Site()
    site.door.down = True
    answer = await site.ask("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert site.door.looks == 0


async def test_it_is_ready_when_the_database_is() -> None:
    answer = await Site().ask("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "failing": [], "parts": {"database": "connected"}}


async def test_it_is_not_ready_without_the_database() -> None:
    site = Site()
    site.door.down = True
    answer = await site.ask("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"status": "not_ready", "failing": ["database"], "parts": {"database": "unavailable"}}


async def test_it_is_not_ready_with_a_database_of_an_older_schema() -> None:
    answer = await Site(FakeDoor(schema_version=str(int(NEEDED) - 1))).ask("/readyz")
    assert (answer.status_code, answer.json()["parts"]) == (503, {"database": "behind"})


async def test_it_is_ready_with_a_database_of_a_newer_schema() -> None:
    assert (await Site(FakeDoor(schema_version=str(int(NEEDED) + 1))).ask("/readyz")).status_code == 200


async def test_it_is_ready_again_when_the_database_is_back() -> None:
    site = Site()
    site.door.down = True
    assert (await site.ask("/readyz")).status_code == 503
    site.door.down = False
    site.now += checks.FRESH_SECONDS
    assert (await site.ask("/readyz")).status_code == 200


async def test_a_failing_database_is_named_and_a_redis_that_is_gone_is_shown_beside_it() -> None:
    with nobody() as address:
        site = Site(REDIS_URL=f"redis://{address}")
        site.door.down = True
        answer = await site.ask("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {
        "status": "not_ready",
        "failing": ["database"],
        "parts": {"database": "unavailable", "redis": "unavailable"},
    }


async def test_it_is_ready_without_redis_which_only_makes_the_cache_faster() -> None:
    with nobody() as address:
        answer = await Site(REDIS_URL=f"redis://{address}").ask("/readyz")
    assert (answer.status_code, answer.json()["failing"]) == (200, [])
    assert answer.json()["parts"] == {"database": "connected", "redis": "unavailable"}


async def test_it_is_ready_with_a_redis_that_answers() -> None:
    async with listening(Redis()) as address:
        answer = await Site(REDIS_URL=f"redis://{address}").ask("/readyz")
    assert (answer.status_code, answer.json()["parts"]["redis"]) == (200, "connected")


async def test_the_health_of_a_development_machine() -> None:
    answer = await Site().ask("/health")
    told = answer.json()
    age = datetime.now(UTC) - datetime.fromisoformat(told.pop("timestamp"))
    assert timedelta(0) <= age < timedelta(minutes=1)
    assert answer.status_code == 200
    assert told == {
        "status": "healthy",
        "database": "connected",
        "openrouter": "sandbox",
        "upstreams": {"up": 2, "down": 1, "unknown": 0},
        "user_count": 3,
        "version": __version__,
    }


@pytest.mark.parametrize(("given_", "shown"), [("true", 3), ("false", None), ("0", None), ("1", 3)])
async def test_the_number_of_users_may_be_hidden(given_: str, shown: int | None) -> None:
    answer = await Site(HEALTH_USER_COUNT=given_).ask("/health")
    assert (answer.status_code, answer.json()["user_count"]) == (200, shown)


async def test_without_the_database_it_is_unhealthy_and_the_number_of_users_unknown() -> None:
    site = Site()
    site.door.down = True
    answer = await site.ask("/health")
    told = answer.json()
    assert answer.status_code == 503
    assert (told["status"], told["database"], told["user_count"]) == ("unhealthy", "unavailable", None)


async def test_a_database_that_is_behind_is_unhealthy() -> None:
    answer = await Site(FakeDoor(schema_version="00000000000000")).ask("/health")
    assert (answer.status_code, answer.json()["status"], answer.json()["database"]) == (503, "unhealthy", "behind")


async def test_production_without_openrouter_says_that_it_is_not_configured() -> None:
    answer = await Site(**PRODUCTION).ask("/health")
    assert (answer.status_code, answer.json()["openrouter"]) == (200, "not_configured")


@respx.mock
async def test_openrouter_is_connected_when_it_knows_our_key() -> None:
    route = respx.get(OPENROUTER).respond(200, json={"data": {}})
    answer = await Site(OPENROUTER_API_KEY=KEY).ask("/health")
    assert (answer.json()["status"], answer.json()["openrouter"]) == ("healthy", "connected")
    assert route.calls.last.request.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("status", [302, 401, 402, 404, 429, 500, 503])
@respx.mock
async def test_an_openrouter_that_refuses_us_degrades_but_still_serves(status: int) -> None:
    respx.get(OPENROUTER).respond(status, headers={"location": "https://elsewhere.example/"})
    answer = await Site(OPENROUTER_API_KEY=KEY).ask("/health")
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["openrouter"]) == ("degraded", "error")


@pytest.mark.parametrize(
    "failure",
    [httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("odd"), OSError("net")],
)
@respx.mock
async def test_an_openrouter_that_cannot_be_reached_degrades_but_still_serves(failure: Exception) -> None:
    respx.get(OPENROUTER).mock(side_effect=failure)
    answer = await Site(OPENROUTER_API_KEY=KEY).ask("/health")
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["openrouter"]) == ("degraded", "unavailable")


async def test_it_is_ready_while_openrouter_is_not() -> None:
    with respx.mock(assert_all_called=False) as mock:
        route = mock.get(OPENROUTER).respond(503)
        assert (await Site(OPENROUTER_API_KEY=KEY).ask("/readyz")).status_code == 200
    assert not route.called


async def test_a_storm_of_probes_makes_one_look() -> None:
    site = Site()
    site.door.open.clear()
    paths = ["/readyz", "/health"] * 100
    storm = asyncio.gather(*(site.ask(path) for path in paths))
    async with asyncio.timeout(60):
        while not site.door.looks:  # noqa: ASYNC110  # the door may only open once a look is under way
            await asyncio.sleep(0)
        site.door.open.set()
        answers = await storm
    assert [answer.status_code for answer in answers] == [200] * 200
    assert site.door.looks == 1


async def test_a_storm_of_probes_on_a_database_that_is_down_makes_one_look_too() -> None:
    site = Site()
    site.door.down = True
    answers = await asyncio.gather(*(site.ask("/readyz") for _ in range(200)))
    assert [answer.status_code for answer in answers] == [503] * 200
    assert site.door.looks == 1


@respx.mock
async def test_a_storm_of_probes_asks_openrouter_once() -> None:
    route = respx.get(OPENROUTER).respond(200)
    site = Site(OPENROUTER_API_KEY=KEY)
    await asyncio.gather(*(site.ask("/health") for _ in range(200)))
    assert route.call_count == 1


async def test_a_storm_of_probes_pings_redis_once() -> None:
    server = Redis()
    async with listening(server) as address:
        site = Site(REDIS_URL=f"redis://{address}")
        await asyncio.gather(*(site.ask("/readyz") for _ in range(200)))
    assert server.told == [["PING"]]


async def test_a_finding_is_shared_for_five_seconds() -> None:
    site = Site()
    for seconds, looks in [(0, 1), (4.99, 1), (0.02, 2), (4.9, 2), (0.2, 3)]:
        site.now += seconds
        await site.ask("/readyz")
        assert site.door.looks == looks


async def test_a_prober_who_leaves_does_not_take_the_look_from_the_others() -> None:
    site = Site()
    site.door.open.clear()
    leaving, staying = (asyncio.create_task(site.ask("/readyz")) for _ in range(2))
    async with asyncio.timeout(60):
        while not site.door.looks:  # noqa: ASYNC110  # only a prober whose look is under way can leave it
            await asyncio.sleep(0)
        leaving.cancel()
        site.door.open.set()
        assert (await staying).status_code == 200


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A longer timeout, because what a test asks may take longer than the check's own on a slow machine."""
    monkeypatch.setattr(checks, "TIMEOUT_SECONDS", 60)


def test_a_look_takes_two_seconds_at_most() -> None:
    assert SHIPPED_SECONDS == 2


@pytest.fixture
def impatient(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "TIMEOUT_SECONDS", 0.3)


@pytest.mark.usefixtures("impatient")
async def test_a_database_that_hangs_is_unavailable_in_bounded_time() -> None:
    site = Site()
    site.door.open.clear()
    async with asyncio.timeout(60):
        answers = await asyncio.gather(*(site.ask("/readyz") for _ in range(200)))
    assert [answer.status_code for answer in answers] == [503] * 200
    assert answers[0].json()["parts"] == {"database": "unavailable"}
    assert site.door.looks == 1


@pytest.mark.usefixtures("impatient")
async def test_an_openrouter_that_hangs_is_unavailable_in_bounded_time() -> None:
    http = Http()
    http.client()  # making its TLS context is slow, and not what is bounded here
    async with listening(silence) as address, asyncio.timeout(60):
        settings = read({"OPENROUTER_API_KEY": KEY, "OPENROUTER_BASE_URL": f"http://{address}/api/v1"})
        assert await checks.openrouter(settings, http) == "unavailable"
    await http.close()


@pytest.mark.usefixtures("impatient")
async def test_a_redis_that_hangs_is_unavailable_in_bounded_time() -> None:
    async with listening(silence) as address, asyncio.timeout(60):
        answer = await Site(REDIS_URL=f"redis://{address}").ask("/readyz")
    assert (answer.status_code, answer.json()["parts"]["redis"]) == (200, "unavailable")


async def test_a_ping_sends_the_password_of_its_url_unescaped() -> None:
    server = Redis(password="p@ss:wörd/", user="tollgate")
    async with listening(server) as address:
        await redis.ping(f"redis://tollgate:p%40ss%3Aw%C3%B6rd%2F@{address}/0")
    assert server.told == [["AUTH", "tollgate", "p@ss:wörd/"], ["PING"]]


async def test_a_password_without_a_user_is_the_default_user_s() -> None:
    server = Redis(password="hunter2")
    async with listening(server) as address:
        await redis.ping(f"redis://:hunter2@{address}")
    assert server.told == [["AUTH", "hunter2"], ["PING"]]


@pytest.mark.parametrize("account", ["", ":wrong@", "stranger:hunter2@"])
async def test_a_redis_that_does_not_let_us_in_is_unavailable(account: str) -> None:
    async with listening(Redis(password="hunter2")) as address:
        assert await checks.redis_server(f"redis://{account}{address}") == "unavailable"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"-LOADING Redis is loading\r\n",
        b"+PONGO\r\n",
        b"+PON",
        b"x" * 200_000,
    ],
    ids=["nothing", "http", "loading", "another word", "cut off", "an endless line"],
)
async def test_what_is_not_a_redis_is_unavailable(answer: bytes) -> None:
    async with listening(saying(answer)) as address:
        assert await checks.redis_server(f"redis://{address}") == "unavailable"


async def test_a_url_that_asks_for_tls_gets_no_plain_text() -> None:
    heard: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1024))

    async with listening(handler) as address:
        assert await checks.redis_server(f"rediss://:hunter2@{address}") == "unavailable"
    assert heard[0][:1] == b"\x16"
    assert b"hunter2" not in b"".join(heard)


async def test_a_check_by_itself_needs_no_app() -> None:
    assert await checks.database(FakeDoor(user_count=7)) == ("connected", 7, UPSTREAMS)
    assert await checks.openrouter(read({}), Http()) == "sandbox"


DATABASE_STATES = ["connected", "behind", "unavailable"]
OPENROUTER_STATES = ["connected", "error", "unavailable", "sandbox", "not_configured"]


@pytest.mark.parametrize("database", DATABASE_STATES)
@pytest.mark.parametrize("openrouter", OPENROUTER_STATES)
def test_the_database_decides_about_health_and_openrouter_only_degrades_it(database: str, openrouter: str) -> None:
    well = "degraded" if openrouter in ("error", "unavailable") else "healthy"
    assert rules.verdict(database, openrouter) == (well if database == "connected" else "unhealthy")


@given(parts=st.dictionaries(st.text(), st.sampled_from(DATABASE_STATES + OPENROUTER_STATES)))
def test_the_failing_parts_are_those_that_cannot_do_their_work(parts: dict[str, str]) -> None:
    failing = rules.failing(parts)
    assert failing == [name for name in parts if parts[name] in ("unavailable", "behind", "error")]
