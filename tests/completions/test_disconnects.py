"""Clients that leave, at every moment, and servers that are stopped: no hold stays, what was said is paid for once."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from completions.asks import (
    CHAT,
    IMAGES,
    MESSAGES,
    RENAMED,
    RESPONSES,
    SPEECH,
    SPOKEN,
    STREAMED,
    TRANSCRIPTIONS,
    asking,
)
from completions.paid import Auditor, Client, Line, Turnstile, Watched, app, cancelled_at, database, eventually, rooms
from gateway import BOTH_DOORS, Gateway, Upstream, running
from people import Person
from sandbox.serving import a_chat, serving, told
from servers.relay import Relay
from tollgate.completions import outlet, settlements
from tollgate.database import Door
from tollgate.sandbox.app import create_sandbox
from tollgate.sandbox.state import Habits

Customer = Callable[..., Awaitable[Person]]

WORDS = "one two three four five six seven eight nine ten " * 100
"""So many that none is said to its end while a busy machine does something else."""
SLOW = a_chat(WORDS, model="sandbox/fault-slow", stream=True)
SILENT = a_chat(model="sandbox/fault-stall-before", stream=True)
STUCK = a_chat(WORDS, model="sandbox/fault-stall-after")
ENDLESS = a_chat(model="sandbox/fault-many", stream=True)
FEW = "one two three four five six seven eight nine ten"


@pytest.fixture
def auditor(shared_database: str) -> Auditor:
    return Auditor(shared_database)


@pytest.fixture
def turnstile() -> Turnstile:
    return Turnstile(create_sandbox(Habits(list_faults=True, generation_delay_seconds=0.0)))


@pytest.fixture
def sandbox(turnstile: Turnstile) -> Iterator[Upstream]:
    """Behind a turnstile."""
    with serving(turnstile) as address:
        yield Upstream(turnstile.app, address)


@pytest.fixture
def swept(door: Door, sandbox: Upstream, auditor: Auditor) -> Callable[[Person], Awaitable[dict[str, Any]]]:
    """Sweeps an org's only request, and gives its row. The upstream is owed what was charged, or it is an estimate."""

    async def sweep(someone: Person) -> dict[str, Any]:
        await auditor.ended(someone)
        await auditor.hasten(someone)
        async with rooms(door, sandbox.url) as made:
            await made.sweeper.sweep()
        row = await auditor.request(someone)
        await auditor.agree(someone, spent=None if row["estimated"] else sandbox.owed_nanos)
        return row

    return sweep


async def test_who_leaves_before_its_stream_went_upstream_pays_nothing(
    door: Door, customer: Customer, sandbox: Upstream, turnstile: Turnstile, auditor: Auditor
) -> None:
    someone = await customer()
    async with app(door, sandbox) as made:
        client = Client(someone, a_chat(stream=True), leaves_after=0)
        await client.call(made)
    assert client.messages == []
    assert turnstile.came == 0
    row = await auditor.request(someone)
    assert (row["state"], row["status"], row["error_code"]) == ("released", 499, "client_gone")
    await auditor.agree(someone, spent=0)


async def test_who_leaves_before_it_has_said_what_it_wants_asks_for_nothing(
    gateway: Gateway, customer: Customer, turnstile: Turnstile, auditor: Auditor
) -> None:
    someone = await customer()
    line = await Line.opened(gateway.address)
    await line.ask(someone, a_chat(), **{"content-length": "100000"})
    line.hang_up()
    assert (await gateway.post(someone, a_chat(model="nobody/knows"))).status_code == 404  # the server goes on
    assert turnstile.came == 0
    assert await auditor.requests(someone) == []


async def test_who_leaves_before_the_first_byte_stops_the_upstream(
    gateway: Gateway, customer: Customer, turnstile: Turnstile, swept: Any
) -> None:
    someone = await customer()
    line = await Line.opened(gateway.address)
    await line.ask(someone, SILENT)
    await eventually(lambda: turnstile.inside == 1)
    line.hang_up()
    await eventually(lambda: turnstile.inside == 0)
    row = await swept(someone)
    assert (row["state"], row["status"], row["error_code"]) == ("settled", 499, "client_gone")
    assert row["estimated"]  # nobody will ever say: the prompt, and no more
    assert row["charge_nanos"] < row["hold_nanos"]


async def test_a_generation_is_noted_while_its_stream_runs(
    gateway: Gateway, customer: Customer, auditor: Auditor
) -> None:
    someone = await customer()
    line = await Line.opened(gateway.address)
    await line.ask(someone, SLOW)
    await line.events(5)

    async def is_noted() -> bool:
        row = await auditor.request(someone)
        return row["state"] == "held" and row["generation_id"] == gateway.upstream.generations()[0]["id"]

    await eventually(is_noted)
    line.hang_up()


@BOTH_DOORS
async def test_who_leaves_while_its_stream_is_settled_pays_once(
    wire: Relay, gateway: Gateway, customer: Customer, turnstile: Turnstile, swept: Any
) -> None:
    someone = await customer()
    line = await Line.opened(gateway.address)
    await line.ask(someone, a_chat(FEW, model="sandbox/fault-slow", stream=True))
    await line.events(5)
    wire.stall()  # from here on the database is not heard of
    await line.until(b'"finish_reason":"stop"')
    await eventually(lambda: turnstile.inside == 0)
    line.hang_up()
    wire.restore()  # and now every call that was under way is cut
    row = await swept(someone)
    assert (row["state"], row["estimated"]) == ("settled", False)
    assert row["charge_nanos"] == gateway.upstream.owed_nanos


async def test_who_never_reads_is_given_up(
    monkeypatch: pytest.MonkeyPatch, gateway: Gateway, customer: Customer, turnstile: Turnstile, swept: Any
) -> None:
    monkeypatch.setattr(outlet, "UNREAD_SECONDS", 0.5)
    monkeypatch.setattr(outlet, "HEARTBEAT_SECONDS", 0.2)
    someone = await customer()
    line = await Line.of_one_who_never_reads(gateway.address)
    await line.ask(someone, ENDLESS)
    await eventually(lambda: turnstile.came == 1)
    await eventually(lambda: turnstile.inside == 0)
    row = await swept(someone)
    assert (row["error_code"], row["estimated"]) == ("client_gone", False)
    line.hang_up()


def halted(turnstile: Turnstile, messages: int) -> threading.Event:
    """The upstream's answers stop after so many messages, until this is set."""
    app, goes_on = turnstile.app, threading.Event()

    async def halting(scope: Scope, receive: Receive, send: Send) -> None:
        sent = 0

        async def send_in_turn(message: Message) -> None:
            nonlocal sent
            sent += 1
            while sent > messages and not goes_on.is_set():  # noqa: ASYNC110  # it is set by another thread
                await asyncio.sleep(0.01)
            await send(message)

        await app(scope, receive, send_in_turn)

    turnstile.app = halting
    return goes_on


@pytest.mark.parametrize(
    ("path", "end"), [(CHAT, "data: [DONE]\n\n"), (RESPONSES, "data: [DONE]\n\n"), (MESSAGES, '"message_stop"}\n\n')]
)
async def test_who_leaves_with_an_idempotency_key_finds_the_whole_answer_later(
    gateway: Gateway, customer: Customer, turnstile: Turnstile, auditor: Auditor, path: str, end: str
) -> None:
    someone = await customer()
    body = asking(path, FEW, model="sandbox/fault-slow", stream=True)
    key = {"idempotency-key": "once"}
    goes_on = halted(turnstile, messages=8)
    line = await Line.opened(gateway.address)
    await line.ask(someone, body, f"/v1{path}", **key)
    await line.events(5)
    line.hang_up()
    still = await gateway.post(someone, body, f"/v1{path}", **key)
    assert (still.status_code, still.json()["error"]["code"]) == (409, "request_in_progress")
    assert still.headers["x-should-retry"] == "true"
    goes_on.set()
    await auditor.ended(someone, "settled")
    again = await gateway.post(someone, body, f"/v1{path}", **key)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.text.endswith(end)
    assert path != CHAT or told(again.text) == FEW
    assert turnstile.came == 1
    await auditor.agree(someone, spent=gateway.upstream.owed_nanos)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        (CHAT, a_chat(), {}),
        (CHAT, a_chat(stream=True), {}),
        (CHAT, a_chat(stream=True), {"idempotency-key": "step-{}"}),
        (RESPONSES, asking(RESPONSES, "hello", stream=True), {}),
        (MESSAGES, asking(MESSAGES, "hello", stream=True), {"idempotency-key": "step-{}"}),
        (SPEECH, SPOKEN, {}),
        (IMAGES, STREAMED["images"], {}),
        (TRANSCRIPTIONS, STREAMED["transcriptions"], {}),
    ],
    ids=["plain", "stream", "kept", "response", "message, kept", "speech", "images", "transcript"],
)
async def test_a_call_that_is_stopped_at_any_of_its_awaits_leaves_no_hold_and_is_paid_once(
    door: Door, customer: Customer, sandbox: Upstream, turnstile: Turnstile, auditor: Auditor,
    path: str, body: dict[str, Any], headers: dict[str, str], times: int,
) -> None:  # fmt: skip
    someone = await customer(nanos=10**12)
    body = {**body, RENAMED["max_tokens"] if path == RESPONSES else "max_tokens": 50}
    watched = Watched(door)
    step, taken = 0, [0]
    async with app(watched, sandbox) as made:
        await Client(await customer(), a_chat()).call(made)  # so that it knows its models
        while taken[0] >= step:
            step += 1
            taken = [0]
            client = Client(
                someone, body, path=f"/v1{path}", **{name: value.format(step) for name, value in headers.items()}
            )
            call = asyncio.create_task(_whole(cancelled_at(range(step, step + times), client.call(made), taken)))
            await asyncio.wait([call])
            assert call.cancelled() == (taken[0] >= step), call
            await eventually(lambda: turnstile.inside == 0)
        assert step > 5
        await eventually(lambda: watched.under_way == 0)
        await auditor.ended(someone)
        await auditor.hasten(someone)
        async with rooms(door, sandbox.url) as ours:
            await ours.sweeper.sweep()
    await auditor.agree(someone)
    rows = await auditor.requests(someone)
    known = {row["generation_id"]: row for row in rows if row["generation_id"]}
    theirs = {one["id"]: one for one in sandbox.generations()[1:]}
    assert {one: row["charge_nanos"] for one, row in known.items()} == {one: theirs[one]["owed_nanos"] for one in known}
    estimated = [row for row in rows if row["estimated"]]
    assert len(theirs.keys() - known.keys()) <= len(estimated)
    assert len(estimated) <= 4  # only while an upstream was asked and had not answered yet


@pytest.mark.parametrize("body", [SLOW, STUCK], ids=["stream", "plain"])
async def test_a_server_that_is_stopped_in_the_middle_leaves_the_call_to_the_sweeper(
    wire: Relay, shared_database: str, customer: Customer, sandbox: Upstream, turnstile: Turnstile,
    auditor: Auditor, swept: Any, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(settlements, "FINISH_SECONDS", 30.0)
    someone = await customer()
    with running(database(wire, shared_database), sandbox) as gateway:
        line = await Line.opened(gateway.address)
        await line.ask(someone, body)
        await eventually(lambda: turnstile.inside == 1 and len(sandbox.generations()) == 1)
    (row,) = await auditor.requests(someone)
    assert (row["state"], row["generation_id"]) == ("unsettled", sandbox.generations()[0]["id"])
    await eventually(lambda: turnstile.inside == 0)
    assert not (await swept(someone))["estimated"]
    line.hang_up()


async def _whole(work: Any) -> Any:
    return await work
