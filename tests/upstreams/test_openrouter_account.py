"""The credit of our own OpenRouter account in GET /admin/monitor, and the reason when it is unknown."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import pytest
from starlette.types import Receive, Scope, Send

from admin.api_client import ApiClient
from admin.monitoring import MANAGEMENT_KEY, installation, paid, seen
from gateway import Upstream
from people import Person
from sandbox.serving import Clock, serving
from tollgate.database import Door
from tollgate.upstreams import openrouter_account

Customer = Callable[..., Awaitable[Person]]

NONSENSE = [
    b"",
    b"[]",
    b"<html>",
    b"{}",
    b'{"data": null}',
    b'{"data": {"total_credits": 5}}',
    *(
        b'{"data": {"total_credits": %b, "total_usage": 0}}' % paid_for
        for paid_for in (b'"5"', b"NaN", b"true", b"1e400", b"-1", b"1e12", b"null", b"[]")
    ),
]


class CreditsServer:
    """An OpenRouter that serves only GET /credits; `silent` makes it not answer."""

    def __init__(self) -> None:
        self.status = 200
        self.body = b'{"data": {"total_credits": 25.5, "total_usage": 5.25}}'
        self.silent = False
        self.asked: list[Any] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append((scope["path"], dict(scope["headers"]).get(b"authorization")))
        while self.silent:  # noqa: ASYNC110  # it is told to speak from another thread
            await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": self.body})


class Monitored(NamedTuple):
    """The server, an operator's client, and the clock."""

    server: CreditsServer
    clock: Clock
    api: ApiClient

    async def credit(self) -> Any:
        return (await seen(self.api))["openrouter"]


@pytest.fixture
async def monitored(door: Door, person: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Monitored]:
    monkeypatch.setattr(openrouter_account, "TIMEOUT_SECONDS", 60)
    server, clock = CreditsServer(), Clock()
    with serving(server) as address:
        async with installation(door, f"{address}/api/v1", await person("admin"), clock) as api:
            yield Monitored(server, clock, api)
        server.silent = False


async def test_what_is_left_is_asked_with_the_management_key(monitored: Monitored) -> None:
    told = await monitored.credit()
    assert (told["credits"], told["credits_nanos"], told["reason"]) == ("20.25", 20_250_000_000, None)
    assert monitored.server.asked == [("/api/v1/credits", f"Bearer {MANAGEMENT_KEY}".encode())]


async def test_days_left_are_at_the_rate_of_the_last_24_hours(
    monitored: Monitored, door: Door, customer: Customer, sql: Any, shared_database: str
) -> None:
    someone = await customer(10**12)
    await paid(door, someone, cost_nanos=10**9, charge_nanos=10**9)
    await paid(door, someone, cost_nanos=10**12, charge_nanos=0, upstream="ups_of_our_own")
    spent = await sql(
        shared_database,
        "select sum(cost_nanos)::bigint from tollgate.requests "
        "where upstream = 'openrouter' and created_at > now() - interval '24 hours'",
    )
    assert (await monitored.credit())["days_left"] == pytest.approx(20_250_000_000 / spent)


async def test_debt_at_openrouter_leaves_no_days(monitored: Monitored, door: Door, customer: Customer) -> None:
    await paid(door, await customer())
    monitored.server.body = b'{"data": {"total_credits": 5, "total_usage": 5.5}}'
    told = await monitored.credit()
    assert (told["credits"], told["days_left"]) == ("-0.50", 0)


async def test_an_answer_is_kept_for_minutes(monitored: Monitored) -> None:
    await asyncio.gather(*(monitored.credit() for _ in range(5)))
    monitored.clock.now += openrouter_account.KNOWN_SECONDS - 1
    await monitored.credit()
    assert len(monitored.server.asked) == 1
    monitored.server.body = b'{"data": {"total_credits": 1, "total_usage": 0}}'
    monitored.clock.now += 1
    assert (await monitored.credit())["credits"] == "1.00"
    assert len(monitored.server.asked) == 2


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (401, b"{}", "OpenRouter answered 401."),
        (500, b"<html>", "OpenRouter answered 500."),
        (302, b"", "OpenRouter answered 302."),
        *((200, body, "OpenRouter's answer could not be read.") for body in NONSENSE),
    ],
)
async def test_without_a_good_answer_the_page_says_why(
    monitored: Monitored, status: int, body: bytes, reason: str
) -> None:
    monitored.server.status, monitored.server.body = status, body
    unknown = {"credits": None, "credits_nanos": None, "days_left": None, "reason": reason}
    assert await monitored.credit() == unknown
    assert await monitored.credit() == unknown
    assert len(monitored.server.asked) == 1
    monitored.server.status, monitored.server.body = 200, b'{"data": {"total_credits": 1, "total_usage": 0}}'
    monitored.clock.now += openrouter_account.FAILED_SECONDS
    assert (await monitored.credit())["reason"] is None


async def test_a_silent_openrouter_is_not_waited_for(monitored: Monitored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openrouter_account, "TIMEOUT_SECONDS", 0.2)
    monitored.server.silent = True
    assert (await monitored.credit())["reason"] == "OpenRouter did not answer."


async def test_without_a_management_key_nobody_is_asked(door: Door, sandbox: Upstream, person: Any) -> None:
    async with installation(door, sandbox.url, await person("admin"), key="") as api:
        told = (await seen(api))["openrouter"]
    assert told == {
        "credits": None,
        "credits_nanos": None,
        "days_left": None,
        "reason": "OPENROUTER_MANAGEMENT_KEY is not set.",
    }


async def test_whoever_may_not_look_makes_nobody_ask(monitored: Monitored, person: Any) -> None:
    await monitored.api.of(await person()).refused("GET", "/admin/monitor", 403)
    assert monitored.server.asked == []
