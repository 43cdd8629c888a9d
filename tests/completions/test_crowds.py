"""An org that has its share of this server in flight: refused before anything is held, or with its hold released."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator

import pytest

from completions.paid import Auditor, Client, Turnstile, Watched, app, eventually
from gateway import Upstream
from people import Person
from sandbox.serving import Clock, a_chat, serving
from tollgate.app import MOST_TEST_CALLS
from tollgate.database import Door
from tollgate.sandbox.app import create_sandbox
from tollgate.sandbox.state import Habits
from tollgate.upstreams import transports

Customer = Callable[..., Awaitable[Person]]
PLACES = 8
SHARE = 6


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transports, "MOST_CONNECTIONS", PLACES)


@pytest.fixture
def turnstile() -> Turnstile:
    return Turnstile(create_sandbox(Habits(generation_delay_seconds=0.0)))


@pytest.fixture
def slow(turnstile: Turnstile) -> Iterator[Upstream]:
    with serving(turnstile) as address:
        yield Upstream(turnstile.app, address)


async def test_calls_of_test_keys_are_bounded_and_take_nothing_from_paid_ones(
    door: Door, slow: Upstream, turnstile: Turnstile, customer: Customer
) -> None:
    tester = await customer(environment="test")
    payer = await customer()
    async with app(door, slow, SANDBOX_BASE_URL=slow.url) as server:
        turnstile.is_open = False
        share = MOST_TEST_CALLS * 3 // 4
        tests = [asyncio.ensure_future(Client(tester, a_chat()).call(server)) for _ in range(2 * share)]
        await eventually(lambda: turnstile.came == share and sum(call.done() for call in tests) == share)
        paid = [asyncio.ensure_future(Client(payer, a_chat()).call(server)) for _ in range(SHARE)]
        await eventually(lambda: turnstile.came == share + SHARE)
        turnstile.is_open = True
        await asyncio.gather(*tests, *paid)


@pytest.mark.parametrize("stream", [False, True])
async def test_one_org_s_crowd_is_refused_and_pays_nothing_while_another_org_is_served(
    door: Door, slow: Upstream, turnstile: Turnstile, customer: Customer, shared_database: str, stream: bool
) -> None:
    attacker, victim, auditor, watched = await customer(), await customer(), Auditor(shared_database), Watched(door)
    async with app(watched, slow, clock=Clock()) as server:  # else it writes counts of refusals every 5 s
        turnstile.is_open = False
        clients = [Client(attacker, a_chat(stream=stream)) for _ in range(2 * SHARE)]
        calls = [asyncio.ensure_future(client.call(server)) for client in clients]
        await eventually(lambda: turnstile.came == SHARE and sum(call.done() for call in calls) == SHARE)
        refused = [client for client, call in zip(clients, calls, strict=True) if call.done()]
        for client in refused:
            error = json.loads(client.body)["error"]
            assert (client.messages[0]["status"], error["code"]) == (429, "too_many_in_flight")
            assert (error["limit"], error["in_flight"], error["of"]) == (SHARE, SHARE, "server share")
        rows = await auditor.requests(attacker)
        assert sorted(row["state"] for row in rows) == ["held"] * SHARE + ["released"] * SHARE
        ended = [(row["status"], row["error_code"]) for row in rows if row["state"] == "released"]
        assert ended == [(429, "too_many_in_flight")] * SHARE

        watched.calls.clear()
        known = Client(attacker, a_chat(stream=stream))
        await known.call(server)
        assert known.messages[0]["status"] == 429
        assert (b"retry-after", b"1") in known.messages[0]["headers"]
        assert watched.calls == [], "an org that is known is refused before anything is held"

        served = asyncio.ensure_future((client := Client(victim, a_chat(stream=stream))).call(server))
        await eventually(lambda: turnstile.came == SHARE + 1)
        turnstile.is_open = True
        await asyncio.gather(*calls, served)
        assert client.messages[0]["status"] == 200
    await auditor.agree(attacker)
    await auditor.agree(victim)
