"""What a paid call costs in database calls: two, three for a stream, fewer for many at once, one to be refused.

And what it leaves in memory: nothing."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.types import ASGIApp

from completions.asks import AT_OPENROUTER, CALLS, CHAT, STREAMED
from completions.paid import Auditor, Client, Watched, app, eventually
from gateway import Upstream
from people import Person
from sandbox.serving import Clock, a_chat
from tollgate.completions.paid_call import PaidCall
from tollgate.completions.settlements import LANES, MOST_TOGETHER
from tollgate.core.endpoints import ENDPOINTS, Endpoint
from tollgate.database import Door
from tollgate.keys.authentication import MOST_UNKNOWN_BYTES
from tollgate.vault.rules import Vault
from tollgate.vault.upstream_keys import UpstreamKeyHandlers

VAULT_KEY = "5e" * 32
Customer = Callable[..., Awaitable[Person]]


@pytest.fixture
def watched(door: Door) -> Watched:
    return Watched(door)


@pytest.fixture
async def warm(watched: Watched, sandbox: Upstream, customer: Customer) -> AsyncIterator[ASGIApp]:
    """A server that has served before: it knows its models."""
    async with app(watched, sandbox, clock=Clock()) as made:  # else it writes counts of refusals every 5 s
        await Client(await customer(), a_chat()).call(made)
        await asyncio.sleep(0)
        watched.calls.clear()
        yield made


async def status(app: ASGIApp, someone: Person, body: Any, path: str = CHAT, **headers: str) -> int:
    client = Client(someone, body, path=f"/v1{path}", **headers)
    await client.call(app)
    return int(client.messages[0]["status"])


@pytest.mark.parametrize("endpoint", [*AT_OPENROUTER, "count_tokens"])
async def test_a_plain_call_takes_two_and_a_stream_three(
    warm: ASGIApp, watched: Watched, customer: Customer, endpoint: Endpoint
) -> None:
    someone, form = await customer(), ENDPOINTS[endpoint]
    for body in (calls[endpoint] for calls in (CALLS, STREAMED) if endpoint in calls):
        watched.calls.clear()
        assert await status(warm, someone, body, form.path) == 200
        notes = ["note_generations"] if "stream" in body or form.answers_bytes else []
        assert watched.calls == ["admit", *notes, "settle"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_is_freed_when_it_ends_without_the_garbage_collector(
    warm: ASGIApp, customer: Customer, stream: bool
) -> None:
    someone = await customer()
    gc.collect()
    gc.disable()
    try:
        before = calls_in_memory()
        assert await status(warm, someone, a_chat(stream=stream)) == 200
        await eventually(lambda: calls_in_memory() == before)
    finally:
        gc.enable()


def calls_in_memory() -> int:
    return sum(type(one) is PaidCall for one in gc.get_objects())


async def test_a_call_that_does_not_wish_the_cache_tells_the_database_nothing_of_it(
    warm: ASGIApp, watched: Watched, customer: Customer
) -> None:
    someone = await customer()
    for _ in range(2):
        assert await status(warm, someone, a_chat()) == 200
    assert not [item for items in watched.items for item in items if "cache" in item]


async def test_a_miss_takes_as_many_as_without_the_cache_and_a_hit_takes_one(
    warm: ASGIApp, watched: Watched, customer: Customer
) -> None:
    someone = await customer()
    for _ in range(2):
        assert await status(warm, someone, a_chat(cache=True)) == 200
    assert watched.calls == ["admit", "settle", "admit"]


async def test_an_own_key_of_the_org_takes_no_more(door: Door, sandbox: Upstream, customer: Customer) -> None:
    watched, someone = Watched(door), await customer()
    handlers = UpstreamKeyHandlers(Vault([bytes.fromhex(VAULT_KEY)]), sandbox.url)
    await handlers.put(someone.at_the_door(), "openrouter", SecretStr("sk-or-v1-of-an-org-of-the-tests"))
    async with app(watched, sandbox, VAULT_KEY=VAULT_KEY) as made:
        await Client(await customer(), a_chat()).call(made)
        await asyncio.sleep(0)
        watched.calls.clear()
        assert await status(made, someone, a_chat()) == 200
        assert watched.calls == ["admit", "settle"]


async def test_many_at_once_take_fewer(
    warm: ASGIApp,
    watched: Watched,
    sandbox: Upstream,
    customer: Customer,
    shared_database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    someone = await customer()
    many, call = 100, watched.call

    def are_answered() -> bool:
        return sum(bool(one["finished"]) for one in sandbox.generations()) > many

    async def settles_when_all_are_answered(function: str, **arguments: Any) -> Any:
        """Else, before a slow sandbox, each would be settled before the next has its answer."""
        if function == "tollgate_settle":
            await eventually(are_answered)
        return await call(function, **arguments)

    monkeypatch.setattr(watched, "call", settles_when_all_are_answered)
    served = await asyncio.gather(*(status(warm, someone, a_chat(max_tokens=50)) for _ in range(many)))
    assert served == [200] * many
    assert set(watched.calls) == {"admit", "settle"}
    # The first of each lane goes alone; whoever comes meanwhile goes together.
    assert watched.calls.count("admit") <= LANES + -(-many // MOST_TOGETHER) + 1
    assert watched.calls.count("settle") < many / 2
    await Auditor(shared_database).agree(someone)


async def test_a_refusal_takes_one(warm: ASGIApp, watched: Watched, customer: Customer) -> None:
    assert await status(warm, await customer(nanos=0), a_chat()) == 402
    assert watched.calls == ["admit"]


async def test_a_key_that_nobody_knows_takes_one_and_then_none(warm: ASGIApp, watched: Watched, door: Door) -> None:
    nobody = Person(door)
    for _ in range(3):
        assert await status(warm, nobody, a_chat()) == 401
    assert watched.calls == ["admit"]


@pytest.mark.parametrize("fault", [[1, 2], a_chat(model="nobody/knows"), a_chat(max_tokens=0)])
async def test_a_fault_of_the_request_takes_one_and_is_told_only_to_a_key_that_may_come_in(
    warm: ASGIApp, watched: Watched, customer: Customer, shared_database: str, sql: Any, fault: Any
) -> None:
    someone, nobody = await customer(), Person(watched)
    assert await status(warm, someone, fault) in (400, 404)
    assert watched.calls == ["identify"]
    await sql(shared_database, "update tollgate.api_keys set disabled_at = now() where id = $1", someone.key_id)
    assert await status(warm, someone, fault) == 401
    assert await status(warm, nobody, fault) == 401
    assert watched.calls == ["identify"] * 3
    assert await status(warm, nobody, fault) == 401
    assert watched.calls == ["identify"] * 3


async def test_a_refusal_of_the_database_is_not_followed_by_a_question(
    warm: ASGIApp, watched: Watched, customer: Customer
) -> None:
    someone = await customer()
    assert await status(warm, someone, a_chat("one"), **{"idempotency-key": "once"}) == 200
    assert await status(warm, someone, a_chat("other"), **{"idempotency-key": "once"}) == 422
    assert watched.calls == ["admit", "settle", "admit"]


async def test_a_large_body_is_read_for_a_key_that_is_known(
    warm: ASGIApp, watched: Watched, customer: Customer
) -> None:
    large = a_chat("x" * MOST_UNKNOWN_BYTES, max_tokens=5)
    assert await status(warm, Person(watched), large) == 401
    assert watched.calls == ["identify"]
    assert await status(warm, await customer(), large) == 200
    assert watched.calls == ["identify", "identify", "admit", "settle"]


async def test_what_cannot_be_a_key_takes_none(warm: ASGIApp, watched: Watched, customer: Customer) -> None:
    someone = await customer()
    someone.secret = someone.secret[:-1] + ("a" if someone.secret[-1] != "a" else "b")
    assert await status(warm, someone, a_chat()) == 401
    assert watched.calls == []


async def test_a_replay_takes_one(warm: ASGIApp, watched: Watched, customer: Customer) -> None:
    someone = await customer()
    for _ in range(2):
        assert await status(warm, someone, a_chat(), **{"idempotency-key": "once"}) == 200
    assert watched.calls == ["admit", "settle", "admit"]


async def test_an_upstream_that_refuses_takes_two(warm: ASGIApp, watched: Watched, customer: Customer) -> None:
    assert await status(warm, await customer(), a_chat(model="sandbox/fault-moderation")) == 403
    assert watched.calls == ["admit", "settle"]
