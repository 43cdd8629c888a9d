"""How connections are shared among orgs, over each transport: nobody takes the last, and our lack is no one's fault."""

import asyncio
import contextlib
import os
import resource
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.core.errors import ServerBusy, TollgateError, TooManyInFlight
from tollgate.core.models import SANDBOX
from tollgate.process import open_files
from tollgate.process.http_client import Http
from tollgate.upstreams.client import Answered
from tollgate.upstreams.org_shares import Shares
from tollgate.upstreams.transports import open_transport
from upstreams.scripted import COMPLETION, EVENT, Line, Scripted, Side, a_call, a_route, answer, hang, streamed


async def stalling(line: Line) -> None:
    """A stream without end for who asks for one, an answer for all others."""
    await (streamed(EVENT, then=hang) if line.document.get("stream") else answer())(line)


@contextlib.asynccontextmanager
async def crowd(side: Side, there: Scripted, *orgs: str, name: str = "openrouter") -> AsyncIterator[list[Answered]]:
    """As many stalled streams as each of these orgs may have, one after the other in turn."""
    replies: list[Answered] = []
    waiting = list(orgs)
    while waiting:
        org = waiting.pop(0)
        with contextlib.suppress(TooManyInFlight):
            replies.append(await side.upstreams.open(a_call(a_route(there, name), stream=True, org=org)))
            waiting.append(org)
    yield replies
    for reply in replies:
        await reply.close()


async def test_stalled_streams_of_one_org_leave_connections_to_the_others(a_side: Callable[..., Side]) -> None:
    side = a_side(most=40)
    async with Scripted(stalling).listening() as there, crowd(side, there, "attacker") as replies:
        assert len(replies) == 30
        with pytest.raises(TooManyInFlight) as refused:
            await side.plain([a_route(there)], org="attacker")
        assert refused.value.facts == {"limit": 30, "in_flight": 30, "of": "server share"}
        assert refused.value.headers == {"retry-after": "1"}
        victims = (side.plain([a_route(there)], org=f"org_{number}") for number in range(10))
        assert set(await asyncio.gather(*victims)) == {COMPLETION}
        for _ in range(3):
            await replies.pop().close()
        assert await side.plain([a_route(there)], org="attacker") == COMPLETION


async def test_two_orgs_that_want_all_share_it_and_still_leave_some(a_side: Callable[..., Side]) -> None:
    side = a_side(most=35)
    async with Scripted(stalling).listening() as there, crowd(side, there, "one", "other") as replies:
        assert len(replies) == 30
        assert await side.plain([a_route(there)], org="a third") == COMPLETION


async def test_whatever_becomes_of_a_call_its_share_is_given_back(a_side: Callable[..., Side]) -> None:
    side = a_side(most=4, total_seconds=2)

    plays = [answer(), answer(b"{}", status=400), answer(b"{}", status=500), answer(b""), streamed(EVENT), hang]
    async with Scripted(*plays).listening() as there:
        for _ in plays:
            with contextlib.suppress(TollgateError):
                await side.plain([a_route(there, "gpu")])
        calls = [asyncio.ensure_future(side.plain([a_route(there)])) for _ in range(3)]
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        there.plays = [stalling]
        async with crowd(side, there, "org_1") as replies:
            assert len(replies) == 3


async def test_calls_of_test_keys_have_connections_of_their_own(a_side: Callable[..., Side]) -> None:
    side = a_side(most=8, most_of_tests=4)
    async with Scripted(stalling).listening() as there, crowd(side, there, "attacker", name=SANDBOX) as replies:
        assert len(replies) == 3
        async with crowd(side, there, "attacker") as paid:
            assert len(paid) == 6


async def test_waiting_in_vain_for_a_connection_is_no_fault_of_the_upstream(a_side: Callable[..., Side]) -> None:
    """An org without any call under way is not refused: it queues, as long as it may take to connect."""
    side = a_side(most=3)
    async with Scripted(stalling).listening() as there:
        gpu = a_route(there, "gpu", connect_seconds=1.5)
        orders = [a_call(gpu, stream=True, org=f"org_{number}") for number in range(3)]
        held = [await side.upstreams.open(order) for order in orders]
        late = (side.plain([gpu], org=f"late_{number}") for number in range(20))
        failures = await asyncio.gather(*late, return_exceptions=True)
        assert {type(failure) for failure in failures} == {ServerBusy}
        (state,) = side.upstreams.states()
        assert (state.breaker, state.failures) == ("closed", 0)
        await held.pop().close()
        assert await side.plain([gpu], org="late_0") == COMPLETION
        for reply in held:
            await reply.close()
        assert side.busy() == 0


@contextlib.contextmanager
def no_file_left() -> Iterator[None]:
    """As when clients have taken all that the system gives a process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_process_without_files_is_no_fault_of_the_upstream(side: Side) -> None:
    async with Scripted(answer()).listening() as there:
        gpu = a_route(there, "gpu")
        with no_file_left():
            for _ in range(20):
                with pytest.raises(ServerBusy):
                    await side.plain([gpu])
        assert side.upstreams.states()[0].breaker == "closed"
        assert await side.plain([gpu]) == COMPLETION


def test_no_more_calls_go_upstream_than_the_process_may_have_files_for() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        assert open_transport(Http(), long_lived=True).places == 341
        open_files.raise_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(open_files.WANTED, hard)
        assert open_transport(Http(), long_lived=True).places == 1000
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@given(st.integers(1, 50), st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=200))
def test_no_org_takes_the_last_place_unless_it_is_its_first(places: int, moves: list[tuple[int, bool]]) -> None:
    shares, taken = Shares(places), [0] * 4
    for org, comes in moves:
        left = places - sum(taken)
        if not comes:
            if taken[org]:
                shares.give_back(str(org))
                taken[org] -= 1
            continue
        try:
            shares.take(str(org))
        except TooManyInFlight:
            assert taken[org] >= max(1, 3 * left)
        else:
            assert not taken[org] or taken[org] < 3 * left
            taken[org] += 1
