"""Two hundred at once on a balance for thirty-seven: through two instances on one database."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

import pytest

from completions.asks import AT_OPENROUTER, CALLS, SAYING, asking
from completions.paid import Auditor, Line, Turnstile, database, eventually, rooms
from gateway import CHAT, Gateway, Upstream, running
from people import Person
from sandbox.serving import a_chat, serving
from servers.relay import Relay
from tollgate.core.endpoints import ENDPOINTS
from tollgate.database import Door
from tollgate.sandbox.app import create_sandbox
from tollgate.sandbox.state import Habits

Customer = Callable[..., Awaitable[Person]]

ALL = 200
COVERED = 37
OUTPUT = 200
PAID = {name: ENDPOINTS[name] for name in AT_OPENROUTER}
BODY = a_chat("say it", model="sandbox/words", max_tokens=OUTPUT)
BODIES = {
    **{form.path: CALLS[name] | dict.fromkeys(form.bounds[:1], OUTPUT) for name, form in PAID.items()},
    **{path: asking(path, "say it", model="sandbox/words", max_tokens=OUTPUT) for path in SAYING},
}
"""Their holds are not all of one size."""


@pytest.fixture
def auditor(shared_database: str) -> Auditor:
    return Auditor(shared_database)


@pytest.fixture
def turnstile() -> Turnstile:
    return Turnstile(create_sandbox(Habits(generation_delay_seconds=0.0)))


@pytest.fixture
def sandbox(turnstile: Turnstile) -> Iterator[Upstream]:
    """Behind a turnstile."""
    with serving(turnstile) as address:
        yield Upstream(turnstile.app, address)


@pytest.fixture(params=[1, 2])
def instances(
    request: pytest.FixtureRequest, wire: Relay, shared_database: str, sandbox: Upstream
) -> Iterator[Sequence[Gateway]]:
    with contextlib.ExitStack() as stack:
        settings = database(wire, shared_database)
        yield [stack.enter_context(running(settings, sandbox)) for _ in range(request.param)]


@contextlib.asynccontextmanager
async def all_at_once(
    instances: Sequence[Gateway], turnstile: Turnstile, someone: Person, paths: Sequence[str]
) -> AsyncIterator[list[tuple[int, str]]]:
    """The statuses and paths of those that were refused, while the upstream keeps all others waiting."""
    turnstile.is_open, turnstile.came = False, 0
    ended: list[tuple[int, str]] = []

    async def one(number: int) -> None:
        path = paths[number % len(paths)]
        line = await Line.opened(instances[number % len(instances)].address)
        await line.ask(someone, BODIES[path], f"/v1{path}")
        ended.append((await line.status(), path))
        line.hang_up()

    sent = [asyncio.create_task(one(number)) for number in range(ALL)]
    await eventually(lambda: turnstile.came + len(ended) >= ALL)
    yield ended
    turnstile.is_open = True
    await asyncio.gather(*sent)


async def hold_of_one(customer: Customer, gateway: Gateway, auditor: Auditor, path: str = SAYING[0]) -> int:
    rich = await customer()
    assert (await gateway.post(rich, BODIES[path], f"/v1{path}")).status_code == 200
    return int((await auditor.request(rich))["hold_nanos"])


async def test_exactly_as_many_are_served_at_once_as_the_balance_covers(
    instances: Sequence[Gateway], door: Door, customer: Customer, turnstile: Turnstile, auditor: Auditor
) -> None:
    """Of each endpoint before two instances, and of chat completions before one."""
    for path in BODIES if len(instances) > 1 else SAYING[:1]:
        hold = await hold_of_one(customer, instances[0], auditor, path)
        someone = await customer(nanos=COVERED * hold + hold - 1)
        already_owed = instances[0].upstream.owed_nanos
        async with all_at_once(instances, turnstile, someone, [path]) as ended:
            assert (turnstile.came, Counter(ended)) == (COVERED, {(402, path): ALL - COVERED})
        assert Counter(ended) == {(200, path): COVERED, (402, path): ALL - COVERED}
        assert len(await auditor.requests(someone)) == COVERED
        assert await auditor.balance(someone) >= 0
        await agree(auditor, door, someone, instances[0].upstream, already_owed)


async def agree(auditor: Auditor, door: Door, someone: Person, upstream: Upstream, already_owed: int) -> None:
    """After a sweep, since of speech only OpenRouter's record states the cost."""
    await eventually(upstream.all_ended)
    await auditor.hasten(someone)
    async with rooms(door, upstream.url) as made:
        await made.sweeper.sweep()
    await auditor.agree(someone, spent=upstream.owed_nanos - already_owed)


async def test_calls_of_all_endpoints_at_once_spend_the_balance_and_never_more(
    instances: Sequence[Gateway], door: Door, customer: Customer, turnstile: Turnstile, auditor: Auditor
) -> None:
    """Whatever was refused did not fit into what was left at the end."""
    holds = {path: await hold_of_one(customer, instances[0], auditor, path) for path in BODIES}
    nanos = COVERED * sum(holds.values()) // len(holds)
    someone = await customer(nanos=nanos)
    already_owed = instances[0].upstream.owed_nanos
    async with all_at_once(instances, turnstile, someone, list(BODIES)) as ended:
        left = nanos - sum(row["hold_nanos"] for row in await auditor.requests(someone))
        assert left >= 0
        assert {status for status, _ in ended} == {402}
        assert all(holds[path] > left for _, path in ended)
        served = turnstile.came
    assert Counter(status for status, _ in ended) == {200: served, 402: ALL - served}
    await agree(auditor, door, someone, instances[0].upstream, already_owed)


async def test_one_after_the_other_they_spend_the_balance_down_to_less_than_one_hold(
    instances: Sequence[Gateway], customer: Customer, auditor: Auditor
) -> None:
    hold = await hold_of_one(customer, instances[0], auditor)
    someone = await customer(nanos=COVERED * hold + hold - 1)
    already_owed = instances[0].upstream.owed_nanos
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(each.client(someone)) for each in instances]
        statuses = [(await clients[number % len(clients)].post(CHAT, json=BODY)).status_code for number in range(ALL)]
    served = statuses.count(200)
    assert statuses == [200] * served + [402] * (ALL - served)
    assert COVERED <= served < ALL
    assert 0 <= await auditor.balance(someone) < hold
    await auditor.agree(someone, spent=instances[0].upstream.owed_nanos - already_owed)
