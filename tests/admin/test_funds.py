"""What is left of our own credit at OpenRouter, as GET /admin/monitor tells it, and what it tells when nobody says."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import pytest
from starlette.types import Receive, Scope, Send

from admin.operating import Desk
from admin.watching import MANAGEMENT_KEY, house, paid, seen
from gateway import Upstream
from people import Person
from sandbox.serving import Clock, serving
from tollgate.admin import funds
from tollgate.database import Door

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


class Treasury:
    """An OpenRouter that is only asked what is left, and answers as a test wants; `silent` says nothing at all."""

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


class Watch(NamedTuple):
    """The treasury, what an operator sees of it, and the time."""

    treasury: Treasury
    clock: Clock
    desk: Desk

    async def credit(self) -> Any:
        return (await seen(self.desk))["openrouter"]


@pytest.fixture
async def watch(door: Door, person: Any) -> AsyncIterator[Watch]:
    treasury, clock = Treasury(), Clock()
    with serving(treasury) as address:
        async with house(door, f"{address}/api/v1", await person("admin"), clock) as desk:
            yield Watch(treasury, clock, desk)
        treasury.silent = False


async def test_what_is_left_is_asked_with_the_management_key(watch: Watch) -> None:
    told = await watch.credit()
    assert (told["credits"], told["credits_nanos"], told["reason"]) == (20.25, 20_250_000_000, None)
    assert watch.treasury.asked == [("/api/v1/credits", f"Bearer {MANAGEMENT_KEY}".encode())]


async def test_days_left_are_at_the_rate_of_the_last_24_hours(
    watch: Watch, door: Door, customer: Customer, sql: Any, shared_database: str
) -> None:
    someone = await customer(10**12)
    await paid(door, someone, cost_nanos=10**9, charge_nanos=10**9)
    await paid(door, someone, cost_nanos=10**12, charge_nanos=0, upstream="ups_of_our_own")
    spent = await sql(
        shared_database,
        "select sum(cost_nanos)::bigint from tollgate.requests "
        "where upstream = 'openrouter' and created_at > now() - interval '24 hours'",
    )
    assert (await watch.credit())["days_left"] == pytest.approx(20_250_000_000 / spent)


async def test_debt_at_openrouter_leaves_no_days(watch: Watch, door: Door, customer: Customer) -> None:
    await paid(door, await customer())
    watch.treasury.body = b'{"data": {"total_credits": 5, "total_usage": 5.5}}'
    told = await watch.credit()
    assert (told["credits"], told["days_left"]) == (-0.5, 0)


async def test_an_answer_is_kept_for_minutes(watch: Watch) -> None:
    await asyncio.gather(*(watch.credit() for _ in range(5)))
    watch.clock.now += funds.KNOWN_SECONDS - 1
    await watch.credit()
    assert len(watch.treasury.asked) == 1
    watch.treasury.body = b'{"data": {"total_credits": 1, "total_usage": 0}}'
    watch.clock.now += 1
    assert (await watch.credit())["credits"] == 1
    assert len(watch.treasury.asked) == 2


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (401, b"{}", "OpenRouter answered 401."),
        (500, b"<html>", "OpenRouter answered 500."),
        (302, b"", "OpenRouter answered 302."),
        *((200, body, "OpenRouter's answer made no sense.") for body in NONSENSE),
    ],
)
async def test_without_a_good_answer_the_page_says_why(watch: Watch, status: int, body: bytes, reason: str) -> None:
    watch.treasury.status, watch.treasury.body = status, body
    unknown = {"credits": None, "credits_nanos": None, "days_left": None, "reason": reason}
    assert await watch.credit() == unknown
    assert await watch.credit() == unknown
    assert len(watch.treasury.asked) == 1
    watch.treasury.status, watch.treasury.body = 200, b'{"data": {"total_credits": 1, "total_usage": 0}}'
    watch.clock.now += funds.FAILED_SECONDS
    assert (await watch.credit())["reason"] is None


async def test_a_silent_openrouter_is_not_waited_for(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(funds, "PATIENCE_SECONDS", 0.2)
    watch.treasury.silent = True
    assert (await watch.credit())["reason"] == "OpenRouter did not answer."


async def test_without_a_management_key_nobody_is_asked(door: Door, sandbox: Upstream, person: Any) -> None:
    async with house(door, sandbox.url, await person("admin"), key="") as desk:
        told = (await seen(desk))["openrouter"]
    assert told == {
        "credits": None,
        "credits_nanos": None,
        "days_left": None,
        "reason": "OPENROUTER_MANAGEMENT_KEY is not set.",
    }


async def test_whoever_may_not_look_makes_nobody_ask(watch: Watch, person: Any) -> None:
    await watch.desk.of(await person()).refused("GET", "/admin/monitor", 403)
    assert watch.treasury.asked == []
