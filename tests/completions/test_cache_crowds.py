"""Identical calls at once, and the cache while its levels fail."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from completions.paid import Auditor, Client, Turnstile, Watched, app, database
from gateway import BOTH_DOORS, ONE_DOOR, Upstream, running
from people import Person
from sandbox.serving import a_chat, serving, until
from servers.redis import Redis, redis
from servers.relay import Relay
from tollgate.cache import level
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.database import Door
from tollgate.sandbox.app import create_sandbox
from tollgate.sandbox.state import Habits

pytestmark = BOTH_DOORS

STORM = [a_chat(f"Storm {number}.", cache=True) for number in range(10)]
BODY = a_chat("All together.", cache=True)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis may take as long as a busy machine needs."""
    monkeypatch.setattr(level, "ANSWER_SECONDS", 60)


@pytest.fixture
def gate() -> Turnstile:
    """A closed one, before a sandbox."""
    return Turnstile(create_sandbox(Habits(list_faults=True, generation_delay_seconds=0.0)), is_open=False)


@contextlib.asynccontextmanager
async def instance(door: Door, gate: Turnstile, address: str, **more: str) -> AsyncIterator[ASGIApp]:
    """Its calls wait as long as the test does, unless it says otherwise."""
    async with app(door, Upstream(gate.app, address), **{"CACHE_WAIT_SECONDS": "300", **more}) as made:
        yield made


def headers(client: Client) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in client.messages[0]["headers"]}


def outcomes(clients: list[Client]) -> list[str]:
    assert {client.messages[0]["status"] for client in clients} == {200}
    return sorted(headers(client)["x-tollgate-cache"] for client in clients)


async def a_round(tollgate: ASGIApp, someone: Person, many: int = 1) -> list[Client]:
    """So many of each call at once."""
    clients = [Client(someone, body) for body in STORM for _ in range(many)]
    await asyncio.gather(*(client.call(tollgate) for client in clients))
    return clients


async def looked_up(door: Watched, many: int) -> None:
    """Until so many calls were told to wait, or have begun."""

    async def have() -> bool:
        return len({item["id"] for items in door.items for item in items if "cache" in item}) >= many

    await until(have)


async def test_of_two_hundred_identical_misses_one_goes_upstream_and_is_charged(
    customer: Any, door: Door, wire: Relay, gate: Turnstile, shared_database: str
) -> None:
    someone = await customer()
    stream = bool(wire.path_prefix)  # each once
    watched = Watched(door)
    with serving(gate) as address:
        async with instance(watched, gate, address) as tollgate:
            clients = [Client(someone, {**BODY, "stream": stream}) for _ in range(200)]
            calls = asyncio.gather(*(client.call(tollgate) for client in clients))
            await looked_up(watched, 200)
            gate.is_open = True
            await calls
    assert outcomes(clients) == ["hit"] * 199 + ["miss"]
    assert gate.came == 1
    assert len({client.body for client in clients}) <= 2  # the hits state another charge than the miss
    auditor = Auditor(shared_database)
    assert len(await auditor.charges(someone)) == 1
    assert len(await auditor.requests(someone)) == 200
    await auditor.agree(someone)


@ONE_DOOR
async def test_another_instance_waits_too(customer: Any, door: Door, gate: Turnstile) -> None:
    someone = await customer()
    watched = Watched(door)
    with serving(gate) as address:
        async with instance(watched, gate, address) as one, instance(watched, gate, address) as other:
            clients = [Client(someone, BODY) for _ in range(2)]
            first = asyncio.create_task(clients[0].call(one))
            await looked_up(watched, 1)
            second = asyncio.create_task(clients[1].call(other))
            await looked_up(watched, 2)
            gate.is_open = True
            await asyncio.gather(first, second)
    assert outcomes(clients) == ["hit", "miss"]
    assert gate.came == 1


@ONE_DOOR
async def test_those_who_waited_for_an_answer_that_is_not_stored_go_upstream_together(
    customer: Any, door: Door, gate: Turnstile, shared_database: str
) -> None:
    someone = await customer()
    watched = Watched(door)
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    with serving(gate) as address:
        async with instance(watched, gate, address) as tollgate:
            clients = [Client(someone, {**BODY, "model": "sandbox/tools", "tools": tools}) for _ in range(8)]
            first = asyncio.create_task(clients[0].call(tollgate))
            await looked_up(watched, 1)
            others = asyncio.gather(*(client.call(tollgate) for client in clients[1:]))
            await looked_up(watched, 8)
            gate.is_open = True
            await asyncio.gather(first, others)
    assert outcomes(clients) == ["miss"] * 8
    assert gate.came == 8
    assert len(await Auditor(shared_database).charges(someone)) == 8


@ONE_DOOR
async def test_a_call_waits_only_so_long(customer: Any, door: Door, gate: Turnstile) -> None:
    someone = await customer()
    watched = Watched(door)
    with serving(gate) as address:
        async with instance(watched, gate, address, CACHE_WAIT_SECONDS="0.05") as tollgate:
            clients = [Client(someone, BODY) for _ in range(2)]
            first = asyncio.create_task(clients[0].call(tollgate))
            await looked_up(watched, 1)
            second = asyncio.create_task(clients[1].call(tollgate))

            async def both_came() -> bool:
                return gate.came == 2

            await until(both_came)
            gate.is_open = True
            await asyncio.gather(first, second)
    assert outcomes(clients) == ["miss", "miss"]


async def test_an_admission_whose_answer_was_lost_gets_the_hit_again_and_is_charged_once(
    customer: Any, door: Door, gate: Turnstile, shared_database: str
) -> None:
    someone = await customer()
    watched = Watched(door)
    gate.is_open = True
    with serving(gate) as address:
        async with instance(watched, gate, address, CACHE_HIT_SHARE="0.5") as tollgate:
            await Client(someone, BODY).call(tollgate)
            losses = iter([True])
            watched.loses = lambda function: function == "admit" and next(losses, False)
            again = Client(someone, BODY)
            await again.call(tollgate)
    assert headers(again)["x-tollgate-cache"] == "hit"
    auditor = Auditor(shared_database)
    (_, full), (_, half) = await auditor.charges(someone)
    assert half == -(-full // 2) == int(headers(again)["x-tollgate-charge-nanos"])
    await auditor.agree(someone, spent=full + half)


@ONE_DOOR
async def test_a_hit_that_cannot_be_told_is_given_back(
    customer: Any, door: Door, gate: Turnstile, shared_database: str
) -> None:
    someone = await customer()
    watched = Watched(door)
    gate.is_open = True
    with serving(gate) as address:
        async with instance(watched, gate, address, CACHE_HIT_SHARE="1") as tollgate:
            await Client(someone, BODY).call(tollgate)
            watched.loses = lambda function: function == "admit"
            lost = Client(someone, BODY)
            await lost.call(tollgate)
            assert lost.messages[0]["status"] == 503
            auditor = Auditor(shared_database)

            async def is_given_back() -> bool:
                return [row["charge_nanos"] == 0 for row in await auditor.requests(someone)] == [False, True]

            await until(is_given_back)
    (_, first), (_, second) = await auditor.charges(someone)
    assert first == second
    assert await auditor.balance(someone) == NANOS_PER_CREDIT - first


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with redis(tmp_path_factory.mktemp("redis")) as made:
        yield made


@ONE_DOOR
async def test_redis_spares_postgres_the_answer_and_decides_nothing(
    customer: Any, door: Door, gate: Turnstile, server: Redis
) -> None:
    someone = await customer()
    watched = Watched(door)
    gate.is_open = True
    with serving(gate) as address:
        async with instance(watched, gate, address, REDIS_URL=server.url) as tollgate:
            clients = [Client(someone, BODY) for _ in range(4)]
            for client in clients[:2]:
                await client.call(tollgate)
            assert watched.items[-1][0]["cache"]["held"] == headers(clients[0])["x-tollgate-request-id"]
            await door.call("tollgate_clear_cache", caller={"console": "tests"}, filters={"org_id": someone.org_id})
            await clients[2].call(tollgate)
            await clients[3].call(tollgate)
    assert [headers(client)["x-tollgate-cache"] for client in clients] == ["miss", "hit", "miss", "hit"]
    generations = [json.loads(client.body)["id"] for client in clients]
    assert generations[0] == generations[1] != generations[2] == generations[3]


@ONE_DOOR
async def test_nothing_fails_while_redis_is_killed_and_started_again(
    customer: Any, door: Door, gate: Turnstile, server: Redis, shared_database: str
) -> None:
    someone = await customer(nanos=100 * NANOS_PER_CREDIT)
    gate.is_open = True
    with serving(gate) as address:
        async with instance(door, gate, address, REDIS_URL=server.url) as tollgate:
            assert outcomes(await a_round(tollgate, someone, 4)).count("miss") == len(STORM)
            storm = asyncio.gather(*(a_round(tollgate, someone, 3) for _ in range(5)))
            server.kill()
            outcomes([client for clients in await storm for client in clients])
            assert outcomes(await a_round(tollgate, someone)) == ["hit"] * len(STORM)
            server.start()
            assert outcomes(await a_round(tollgate, someone)) == ["hit"] * len(STORM)
    assert gate.came == len(STORM)
    auditor = Auditor(shared_database)
    assert len(await auditor.charges(someone)) == len(STORM)
    await auditor.agree(someone)


async def test_without_postgres_nothing_is_answered_and_afterwards_all_is(
    customer: Any, gate: Turnstile, server: Redis, wire: Relay, shared_database: str
) -> None:
    someone = await customer(nanos=100 * NANOS_PER_CREDIT)
    gate.is_open = True
    more = {"REDIS_URL": server.url, "CACHE_WAIT_SECONDS": "300"}
    with (
        serving(gate) as address,
        running(database(wire, shared_database), Upstream(gate.app, address), **more) as gateway,
    ):

        async def ask(many: int = 1) -> list[httpx.Response]:
            return await asyncio.gather(*(gateway.post(someone, body) for body in STORM for _ in range(many)))

        assert {answer.status_code for answer in await ask(2)} == {200}
        failing_over = asyncio.gather(*(ask() for _ in range(3)))
        wire.drop_connections()
        assert {answer.status_code for answers in await failing_over for answer in answers} == {200}

        wire.cut = True
        wire.drop_connections()
        assert {answer.status_code for answer in await ask()} == {503}
        wire.restore()
        assert [answer.headers["x-tollgate-cache"] for answer in await ask()] == ["hit"] * len(STORM)
    assert gate.came == len(STORM)
    auditor = Auditor(shared_database)
    assert len(await auditor.charges(someone)) == len(STORM)
    await auditor.ended(someone)
    await auditor.agree(someone)


@ONE_DOOR
async def test_warming_copies_the_newest_answers_to_a_redis_that_has_forgotten(
    customer: Any, person: Any, door: Door, gate: Turnstile, server: Redis
) -> None:
    someone, operator = await customer(), await person("admin")
    watched = Watched(door)
    gate.is_open = True
    with serving(gate) as address:
        async with instance(watched, gate, address, REDIS_URL=server.url) as tollgate:
            await a_round(tollgate, someone)
            server.kill()
            server.start()
            warm = Client(operator, {"org_id": someone.org_id, "limit": 2}, path="/admin/cache/warm")
            await warm.call(tollgate)
            assert json.loads(warm.body) == {"warmed": 2, "redis": "working"}
            await a_round(tollgate, someone)
            held = [item for items in watched.items for item in items if "held" in item.get("cache", {})]
    assert len(held) == 2
