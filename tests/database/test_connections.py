"""Who gets which connection, and when one ends, on a real Postgres."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import asyncpg
import pytest

from sandbox.serving import until
from servers.postgres import Cluster
from tollgate.database.connections import MOST_IDLE_SECONDS, MOST_SECONDS, Connections

MOST = 3
WHO = "select pg_backend_pid()"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def to_close(postgres: Cluster, clock: Clock) -> Connections:
    return Connections(partial(asyncpg.connect, postgres.url()), most=MOST, clock=clock)


@pytest.fixture
async def connections(to_close: Connections) -> AsyncIterator[Connections]:
    yield to_close
    await to_close.close()


@pytest.fixture
async def observer(postgres: Cluster) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres.url())
    yield connection
    await connection.close()


async def who(connections: Connections, count: int) -> list[int]:
    """The sessions behind so many calls at once."""
    return await asyncio.gather(
        *(connections.value(f"{WHO} from pg_sleep(0.05)", []) for _ in range(count)),
    )


async def alive(observer: asyncpg.Connection, sessions: list[int]) -> set[int]:
    rows = await observer.fetch("select pid from pg_stat_activity where pid = any ($1)", sessions)
    return {row["pid"] for row in rows}


async def gone(observer: asyncpg.Connection, sessions: list[int]) -> None:
    """Postgres ends a session a moment after its client has left."""

    async def are_gone() -> bool:
        return not await alive(observer, sessions)

    await until(are_gone)


async def at_work(observer: asyncpg.Connection, query: str) -> None:
    async def is_at_work() -> bool:
        active = "select count(*) > 0 from pg_stat_activity where state = 'active' and query = $1"
        return bool(await observer.fetchval(active, query))

    await until(is_at_work)


async def test_calls_one_after_another_share_a_connection(connections: Connections) -> None:
    assert len({await connections.value(WHO, []) for _ in range(10)}) == 1


async def test_calls_at_once_have_one_each_and_never_more_than_may_be(connections: Connections) -> None:
    assert len(set(await who(connections, MOST))) == MOST
    assert len(set(await who(connections, 4 * MOST))) == MOST


async def test_the_one_that_came_back_last_goes_out_first(connections: Connections) -> None:
    await who(connections, MOST)
    last = await connections.value(WHO, [])
    assert {await connections.value(WHO, []) for _ in range(5)} == {last}


async def test_a_refusal_of_the_database_keeps_the_connection(connections: Connections) -> None:
    before = await connections.value(WHO, [])
    with pytest.raises(asyncpg.DivisionByZeroError):
        await connections.value("select 1 / 0", [])
    assert await connections.value(WHO, []) == before


async def test_a_call_that_is_given_up_ends_its_query_and_its_connection(
    connections: Connections, observer: asyncpg.Connection
) -> None:
    before = await connections.value(WHO, [])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await connections.value("select pg_sleep(30)", [])
    await gone(observer, [before])
    assert await connections.value(WHO, []) != before


async def test_connections_that_nobody_needs_any_more_end(
    connections: Connections, observer: asyncpg.Connection, clock: Clock
) -> None:
    sessions = await who(connections, MOST)
    clock.now += MOST_IDLE_SECONDS
    kept = [await connections.value(WHO, []) for _ in range(MOST)][-1]
    await gone(observer, [session for session in sessions if session != kept])
    assert await alive(observer, sessions) == {kept}


async def test_a_connection_retires(connections: Connections, observer: asyncpg.Connection, clock: Clock) -> None:
    before = await connections.value(WHO, [])
    clock.now += MOST_SECONDS
    assert await connections.value(WHO, []) == before  # what it has begun it ends
    assert await connections.value(WHO, []) != before
    await gone(observer, [before])


async def test_closing_waits_for_what_is_under_way_and_leaves_nothing_open(
    to_close: Connections, observer: asyncpg.Connection
) -> None:
    sessions = await who(to_close, MOST)
    gate = observer.get_server_pid()
    await observer.execute("select pg_advisory_lock($1)", gate)
    held_up = f"{WHO} from pg_advisory_xact_lock({gate})"
    running = asyncio.create_task(to_close.value(held_up, []))
    await at_work(observer, held_up)
    closing = asyncio.create_task(to_close.close())
    await asyncio.sleep(0.05)
    assert not closing.done()
    await observer.execute("select pg_advisory_unlock($1)", gate)
    await closing
    assert running.done()
    assert running.result() in sessions
    await gone(observer, sessions)


async def test_closing_that_is_cut_short_breaks_off_what_is_under_way(
    to_close: Connections, observer: asyncpg.Connection
) -> None:
    endless = f"select pg_sleep(60) /* of {observer.get_server_pid()} */"  # no other worker's
    running = asyncio.create_task(to_close.value(endless, []))
    await at_work(observer, endless)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await to_close.close()
    with pytest.raises((OSError, asyncpg.InterfaceError, asyncpg.PostgresError)):
        await running
