"""The drain rings at every moment of a call: the client is told, no hold stays open, and all is paid for once."""

import asyncio
import contextlib
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from typing import Any

import pytest

from completions.paid import Auditor, Client, Watched, given, rooms
from gateway import BOTH_DOORS, Upstream
from people import Person
from sandbox.serving import PATIENCE_SECONDS, a_chat
from tollgate import settings
from tollgate.app import create_app
from tollgate.core.errors import ServerRestarting
from tollgate.database import Door
from tollgate.process.drain import Drain
from tollgate.web.application import Application

pytestmark = BOTH_DOORS

Customer = Callable[..., Awaitable[Person]]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is under way when the server closes has as long as a busy machine needs."""
    monkeypatch.setattr("tollgate.completions.settlements.FINISH_SECONDS", PATIENCE_SECONDS / 2)


@types.coroutine
def ringing_at(step: int, work: Coroutine[Any, Any, Any], drain: Drain, taken: list[int]) -> Generator[Any, Any, Any]:
    """Does the work, and rings while it waits at this one of its awaits. Counts them in `taken`."""
    thrown: BaseException | None = None
    while True:
        try:
            waits_for = work.send(None) if thrown is None else work.throw(thrown)
        except StopIteration as end:
            return end.value
        taken[0] += 1
        if taken[0] == step:
            asyncio.get_running_loop().call_soon(drain.end_all)
        thrown = None
        try:
            yield waits_for
        except BaseException as error:  # noqa: BLE001  # it is the work's
            thrown = error


@contextlib.asynccontextmanager
async def app(door: Door, upstream: Upstream, drain: Drain) -> AsyncIterator[Application]:
    environ = given(upstream.url)
    made = create_app(settings.read(environ), door=door, environ=environ, drain=drain)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(made.router.lifespan_context(made))
        yield made


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_whenever_it_rings_the_client_has_an_end_and_the_books_are_closed(
    door: Door, customer: Customer, sandbox: Upstream, shared_database: str, stream: bool
) -> None:
    someone, auditor = await customer(nanos=10**12), Auditor(shared_database)
    body = a_chat(stream=stream, max_tokens=50)
    watched = Watched(door)
    step, taken, ends = 0, [0], set()
    while taken[0] >= step:
        step += 1
        taken = [0]
        drain = Drain()
        async with app(watched, sandbox, drain) as made:
            await Client(someone, a_chat()).call(made)  # so that it knows its models
            client = Client(someone, body)
            await asyncio.wait_for(
                asyncio.create_task(_whole(ringing_at(step, client.call(made), drain, taken))), PATIENCE_SECONDS
            )
        ends.add(an_end_of(client, stream))
    assert step > 5
    assert ends == {"whole", "server_restarting"}
    assert {row["state"] for row in await auditor.requests(someone)} <= {"settled", "released", "unsettled"}
    await auditor.hasten(someone)
    async with rooms(door, sandbox.url) as ours:
        await ours.sweeper.sweep()
    await auditor.agree(someone)
    rows = await auditor.requests(someone)
    theirs = {one["id"]: one["owed_nanos"] for one in sandbox.generations()}
    known = {row["generation_id"]: row["charge_nanos"] for row in rows if row["generation_id"]}
    assert known == {one: theirs[one] for one in known}
    assert len([row for row in rows if row["estimated"]]) >= len(theirs.keys() - known.keys())


def an_end_of(client: Client, stream: bool) -> str:
    """Which of the two ends that there may be."""
    told = client.body.decode()
    assert not client.messages[-1].get("more_body")
    if '"server_restarting"' in told:
        assert "[DONE]" not in told
        has_begun = client.messages[0]["status"] == 200
        assert told.startswith("data: ") if has_begun else client.messages[0]["status"] == 503
        return "server_restarting"
    assert client.messages[0]["status"] == 200
    assert told.endswith("data: [DONE]\n\n" if stream else "}")
    return "whole"


async def test_what_begins_after_it_has_rung_is_refused_before_it_costs_anything(
    door: Door, customer: Customer, sandbox: Upstream, shared_database: str
) -> None:
    someone, drain = await customer(), Drain()
    async with app(door, sandbox, drain) as made:
        drain.end_all()
        client = Client(someone, a_chat())
        await client.call(made)
    assert client.messages[0]["status"] == 503
    assert sandbox.generations() == []
    row = await Auditor(shared_database).request(someone)
    assert (row["state"], row["error_code"]) == ("released", "server_restarting")


async def test_a_block_that_was_ended_for_another_reason_is_not_taken_for_it() -> None:
    drain = Drain()

    async def bounded() -> None:
        with drain.bounds():
            await asyncio.sleep(60)

    stopped, ended = asyncio.create_task(bounded()), asyncio.create_task(bounded())
    await asyncio.sleep(0)
    stopped.cancel()
    drain.end_all()
    await asyncio.wait([stopped, ended])
    assert stopped.cancelled()
    assert isinstance(ended.exception(), ServerRestarting)


async def _whole(work: Any) -> Any:
    return await work
