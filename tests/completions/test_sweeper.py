"""The sweeper: what nobody settled is settled at what the upstream says, later, once, and never forgotten."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from completions.paid import HOLD, Auditor, an_item, eventually, rooms, unsettled
from gateway import BOTH_DOORS, Gateway, Upstream, running
from people import Person
from sandbox.serving import PATIENCE_SECONDS, Clock, a_chat, a_sandbox, post, serving
from servers.process import free_port
from tollgate.completions import late_endings
from tollgate.completions.sweeper import AT_ONCE, PAUSE_SECONDS, ROUND_SECONDS, Sweeper
from tollgate.core.errors import DatabaseUnavailable
from tollgate.database import Door
from tollgate.sandbox import API
from tollgate.sandbox.prices import nanos

Customer = Callable[..., Awaitable[Person]]

SECRET = "a-cron-secret-of-the-tests"
WRONG: list[dict[str, Any]] = [
    {},
    {"authorization": "Bearer"},
    {"authorization": f"Bearer {SECRET}x"},
    {"authorization": f"Bearer {SECRET[:-1]}"},
    {"authorization": "Bearer \xe9".encode("latin-1")},
]
ESTIMATE = 5250
"""The fixed part of an item's hold, with its markup."""


class Records:
    """An upstream that only looks generations up, and says of them what a test wants; `silent` keeps it waiting."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.asked = 0
        self.is_silent = False
        self.address = ""

    @property
    def url(self) -> str:
        return self.address + API

    def cost(self, generation_id: str, written: str) -> None:
        """As it is written, so that it may be what JSON can and money cannot be."""
        self.bodies[generation_id] = b'{"data":{"native_tokens_prompt":7,"native_tokens_completion":9%s}}' % (
            b',"total_cost":' + written.encode() if written else b""
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        while self.is_silent:  # noqa: ASYNC110  # it is told to speak from another thread
            await asyncio.sleep(0.01)
        body = self.bodies.get(scope["query_string"].decode().removeprefix("id="))
        kind = (b"content-type", b"application/json")
        status = 404 if body is None else 200
        await send({"type": "http.response.start", "status": status, "headers": [kind]})
        await send({"type": "http.response.body", "body": body or b'{"error":{"code":404,"message":"not found"}}'})


@pytest.fixture
def records() -> Iterator[Records]:
    made = Records()
    with serving(made) as made.address:
        yield made


@pytest.fixture
def auditor(shared_database: str) -> Auditor:
    return Auditor(shared_database)


@pytest.fixture
async def sweeper(door: Door, records: Records) -> AsyncIterator[Sweeper]:
    async with rooms(door, records.url) as made:
        yield made.sweeper


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("fault", ["no-usage", "null-usage", "cut"])
async def test_what_was_left_open_is_settled_at_what_the_upstream_says_it_cost(
    gateway: Gateway, customer: Customer, door: Door, auditor: Auditor, streamed: bool, fault: str
) -> None:
    someone = await customer()
    answer = await gateway.post(someone, a_chat(model=f"sandbox/fault-{fault}", stream=streamed))
    assert "x-tollgate-charge-nanos" not in answer.headers
    before = await auditor.request(someone)
    assert (before["state"], before["charge_nanos"]) == ("unsettled", None)
    await auditor.hasten(someone)
    async with rooms(door, gateway.upstream.url) as made:
        assert (await made.sweeper.sweep())["settled"] == 1
    after = await auditor.request(someone)
    assert (after["state"], after["estimated"], after["quarantined"]) == ("settled", False, False)
    (generation,) = gateway.upstream.generations()
    assert after["charge_nanos"] == generation["owed_nanos"] > 0
    assert after["completion_tokens"] == generation["completion_tokens"]
    await auditor.agree(someone, spent=gateway.upstream.owed_nanos)


async def test_a_late_generation_is_asked_for_again_later_and_later(
    customer: Customer, door: Door, auditor: Auditor
) -> None:
    someone = await customer()
    clock = Clock()
    made = a_sandbox(clock, generation_delay_seconds=60.0)
    generation_id = (await post(made, a_chat())).json()["id"]
    item = await unsettled(door, someone, generation_id)
    with serving(made) as address:
        async with rooms(door, address + API) as ours:
            for seconds in (2, 4, 8, 16, 32):
                await auditor.hasten(someone)
                began = time.monotonic()
                assert (await ours.sweeper.sweep())["waiting"] == 1
                row = await auditor.request(someone)
                passed = time.monotonic() - began
                assert row["state"] == "unsettled"
                assert row["next_look_seconds"] <= seconds <= row["next_look_seconds"] + passed
            clock.now += 60
            await auditor.hasten(someone)
            assert (await ours.sweeper.sweep())["settled"] == 1
    owed = nanos(made.ledger.find(generation_id, 0).bill.owed * Decimal("1.05"))
    assert await auditor.charges(someone) == [(item["id"], owed)]
    await auditor.agree(someone)


async def test_a_generation_that_never_appears_is_released_after_the_last_look(
    customer: Customer, door: Door, auditor: Auditor, sweeper: Sweeper
) -> None:
    someone = await customer()
    await unsettled(door, someone, "gen-that-never-was")
    waited = 0.0
    for _ in range(late_endings.MOST_LOOKS - 1):
        await auditor.hasten(someone)
        assert (await sweeper.sweep())["waiting"] == 1
        waited += (await auditor.request(someone))["next_look_seconds"]
    assert waited > 3600
    await auditor.hasten(someone)
    assert (await sweeper.sweep())["released"] == 1
    row = await auditor.request(someone)
    assert (row["state"], row["charge_nanos"]) == ("released", 0)
    await auditor.agree(someone, spent=0)


async def test_while_openrouter_cannot_be_asked_nothing_is_given_up(
    customer: Customer, door: Door, auditor: Auditor, records: Records, sweeper: Sweeper
) -> None:
    someone = await customer()
    await unsettled(door, someone, "gen-known")
    records.cost("gen-known", "0.00002")
    async with rooms(door, f"http://127.0.0.1:{free_port()}{API}") as cut_off:
        for looks in (0, late_endings.MOST_LOOKS, 10_000):
            await auditor.looked(someone, looks)
            await auditor.hasten(someone)
            assert (await cut_off.sweeper.sweep())["waiting"] == 1
            row = await auditor.request(someone)
            assert row["state"] == "unsettled"
            assert row["next_look_seconds"] <= late_endings.LONGEST_BETWEEN_LOOKS
    await auditor.hasten(someone)
    assert (await sweeper.sweep())["settled"] == 1
    await auditor.agree(someone, spent=21_000)


@pytest.mark.parametrize("status", [401, 402, 500])
async def test_an_upstream_in_trouble_is_not_taken_for_one_that_knows_nothing(
    customer: Customer, door: Door, auditor: Auditor, status: int
) -> None:
    async def in_trouble(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    someone = await customer()
    await unsettled(door, someone, "gen-known")
    await auditor.looked(someone, late_endings.MOST_LOOKS)
    await auditor.hasten(someone)
    with serving(in_trouble) as address:
        async with rooms(door, address + API) as made:
            assert (await made.sweeper.sweep())["waiting"] == 1
    assert (await auditor.request(someone))["state"] == "unsettled"


async def test_an_explicit_zero_is_zero(
    customer: Customer, door: Door, auditor: Auditor, records: Records, sweeper: Sweeper
) -> None:
    someone = await customer()
    await unsettled(door, someone, "gen-free")
    records.cost("gen-free", "0")
    await auditor.hasten(someone)
    assert (await sweeper.sweep())["settled"] == 1
    row = await auditor.request(someone)
    assert (row["charge_nanos"], row["cost_nanos"], row["estimated"], row["quarantined"]) == (0, 0, False, False)
    await auditor.agree(someone, spent=0)


@pytest.mark.parametrize("cost", ["-0.00001", "1000000", "1e18", '"much"', "null", "", "true"])
async def test_a_cost_that_makes_no_sense_is_quarantined_at_the_hold(
    customer: Customer, door: Door, auditor: Auditor, records: Records, sweeper: Sweeper, cost: str
) -> None:
    someone = await customer()
    await unsettled(door, someone, "gen-strange")
    records.cost("gen-strange", cost)
    await auditor.hasten(someone)
    await sweeper.sweep()
    await at_the_hold(auditor, someone)


@pytest.mark.parametrize("cost", ["NaN", "Infinity", "1e999", "-"])
async def test_a_record_that_nobody_can_read_is_asked_for_again_and_quarantined_in_the_end(
    customer: Customer, door: Door, auditor: Auditor, records: Records, sweeper: Sweeper, cost: str
) -> None:
    someone = await customer()
    await unsettled(door, someone, "gen-strange")
    records.cost("gen-strange", cost)
    await auditor.hasten(someone)
    assert (await sweeper.sweep())["waiting"] == 1
    assert (await auditor.request(someone))["state"] == "unsettled"
    await auditor.looked(someone, late_endings.MOST_LOOKS)
    await auditor.hasten(someone)
    assert (await sweeper.sweep())["settled"] == 1
    await at_the_hold(auditor, someone)


async def at_the_hold(auditor: Auditor, someone: Person) -> None:
    row = await auditor.request(someone)
    assert (row["state"], row["quarantined"]) == ("settled", True)
    assert (row["hold_nanos"], row["charge_nanos"], row["cost_nanos"]) == (HOLD, HOLD, 105_000)
    await auditor.agree(someone, spent=HOLD)


@BOTH_DOORS
async def test_a_request_without_a_trace_is_estimated_at_its_prompt(
    customer: Customer, door: Door, auditor: Auditor, records: Records, sweeper: Sweeper
) -> None:
    someone = await customer()
    await auditor.hasten(someone)  # what other tests left is not due now
    item = an_item(someone)
    await door.call("tollgate_admit", items=[item])  # and then the process died
    assert (await sweeper.sweep())["estimated"] == 0  # nobody has given it up yet
    await auditor.hasten(someone)
    assert (await sweeper.sweep())["estimated"] == 1
    row = await auditor.request(someone)
    assert (row["state"], row["estimated"], row["quarantined"]) == ("settled", True, False)
    assert row["charge_nanos"] == ESTIMATE <= row["hold_nanos"]
    assert records.asked == 0
    await auditor.agree(someone, spent=ESTIMATE)


async def test_two_sweepers_at_once_end_each_request_once(
    customer: Customer, door: Door, auditor: Auditor, records: Records
) -> None:
    someone = await customer()
    for number in range(60):
        records.cost(f"gen-{number}", "0.00001")
        await unsettled(door, someone, f"gen-{number}")
    await auditor.hasten(someone)
    still = Clock()  # a round of either ends at no time
    async with rooms(door, records.url, still) as one, rooms(door, records.url, still) as other:
        swept = await asyncio.gather(one.sweeper.sweep(), other.sweeper.sweep())
    assert [each["settled"] for each in swept] != [60, 60]
    assert sum(each["settled"] for each in swept) == 60
    assert records.asked == 60
    assert len(await auditor.charges(someone)) == 60
    await auditor.agree(someone, spent=60 * 10_500)


@pytest.mark.parametrize("late", [{"outcome": "released"}, {"outcome": "settled", "charge_nanos": 9, "cost_nanos": 9}])
async def test_who_comes_after_the_sweeper_changes_nothing(
    customer: Customer, door: Door, auditor: Auditor, records: Records, sweeper: Sweeper, late: dict[str, Any]
) -> None:
    someone = await customer()
    item = await unsettled(door, someone, "gen-1")
    records.cost("gen-1", "0.00001")
    await auditor.hasten(someone)
    await sweeper.sweep()
    told = await door.call("tollgate_settle", items=[{"id": item["id"], **late}])
    assert told[item["id"]]["settled"]["again"] is True
    assert told[item["id"]]["settled"]["charge_nanos"] == 10_500
    await auditor.agree(someone, spent=10_500)


async def test_the_sweeper_that_comes_after_a_settlement_changes_nothing(
    customer: Customer, door: Door, auditor: Auditor, records: Records, sweeper: Sweeper
) -> None:
    someone = await customer()
    item = await unsettled(door, someone, "gen-1")
    records.is_silent = True
    await auditor.hasten(someone)
    sweeping = asyncio.create_task(sweeper.sweep())
    await eventually(lambda: records.asked == 1)
    settled = {"id": item["id"], "outcome": "settled", "charge_nanos": 77, "cost_nanos": 73}
    await door.call("tollgate_settle", items=[settled])
    records.cost("gen-1", "0.00001")
    records.is_silent = False
    await sweeping
    await auditor.agree(someone, spent=77)


async def test_a_round_ends_in_time_though_openrouter_is_silent(
    customer: Customer, door: Door, auditor: Auditor, records: Records
) -> None:
    someone = await customer()
    for number in range(2 * AT_ONCE):
        await unsettled(door, someone, f"gen-{number}")
        records.cost(f"gen-{number}", "0.00001")
    records.is_silent = True
    clock = Clock()
    await auditor.hasten(someone)
    async with rooms(door, records.url, clock) as made:
        sweeping = asyncio.create_task(made.sweeper.sweep())
        await eventually(lambda: records.asked == AT_ONCE)
        clock.now += ROUND_SECONDS
        records.is_silent = False
        assert (await sweeping)["settled"] == AT_ONCE
    assert records.asked == AT_ONCE
    assert len([row for row in await auditor.requests(someone) if row["state"] == "unsettled"]) == AT_ONCE


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_only_who_knows_the_cron_secret_can_have_it_swept(
    customer: Customer, shared_database: str, auditor: Auditor, records: Records, door: Door, method: str
) -> None:
    someone = await customer()
    upstream = Upstream(a_sandbox(), records.address)
    with running({"DATABASE_URL": shared_database, "CRON_SECRET": SECRET}, upstream) as gateway:
        async with httpx.AsyncClient(base_url=gateway.address, timeout=PATIENCE_SECONDS) as http:
            for wrong in WRONG:
                refused = await http.request(method, "/internal/sweep", headers=wrong)
                assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")
            await unsettled(door, someone, "gen-1")
            records.cost("gen-1", "0.00001")
            await auditor.hasten(someone)
            right = {"authorization": f"Bearer {SECRET}"}
            answer = await http.request(method, "/internal/sweep", headers=right)
    assert answer.status_code == 200
    assert answer.json() == {"settled": 1, "estimated": 0, "released": 0, "waiting": 0}
    await auditor.agree(someone, spent=10_500)


async def test_without_a_cron_secret_there_is_nothing(gateway: Gateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.address, timeout=PATIENCE_SECONDS) as http:
        for headers in ({}, {"authorization": "Bearer"}, {"authorization": "Bearer None"}):
            assert (await http.post("/internal/sweep", headers=headers)).status_code == 404


async def test_a_long_lived_server_sweeps_by_itself(
    monkeypatch: pytest.MonkeyPatch, customer: Customer, shared_database: str, auditor: Auditor, sandbox: Upstream
) -> None:
    monkeypatch.setattr("tollgate.completions.sweeper.PAUSE_SECONDS", 0.05)
    someone = await customer()
    with running({"DATABASE_URL": shared_database}, sandbox) as gateway:
        await gateway.post(someone, a_chat(model="sandbox/fault-no-usage"))
        await auditor.hasten(someone)
        await auditor.ended(someone, "settled")
    await auditor.agree(someone, spent=sandbox.owed_nanos)


@pytest.mark.parametrize("error", [DatabaseUnavailable(), ZeroDivisionError()])
async def test_a_round_that_fails_is_followed_by_the_next(door: Door, records: Records, error: Exception) -> None:
    rounds = 0

    class Away:
        async def call(self, function: str, **arguments: Any) -> Any:
            raise error

        async def close(self) -> None: ...

    async def pause(seconds: float) -> None:
        nonlocal rounds
        assert seconds == PAUSE_SECONDS
        rounds += 1
        if rounds == 4:
            raise asyncio.CancelledError

    async with rooms(Away(), records.url) as made:
        with pytest.raises(asyncio.CancelledError):
            await made.sweeper.for_ever(pause)
    assert rounds == 4


async def test_a_row_that_nobody_can_make_sense_of_stops_no_other(
    customer: Customer, door: Door, auditor: Auditor, sweeper: Sweeper
) -> None:
    someone = await customer()
    items = [an_item(someone), an_item(someone) | {"price": None}, an_item(someone)]
    for item in items:
        await door.call("tollgate_admit", items=[item])
    await auditor.hasten(someone)
    swept = await sweeper.sweep()
    assert (swept["estimated"], swept["waiting"]) == (2, 1)
    states = {row["id"]: row["state"] for row in await auditor.requests(someone)}
    assert [states[item["id"]] for item in items] == ["settled", "held", "settled"]
