"""Much, slowly, and cut short: what is held meanwhile, and what is left behind."""

import asyncio
import tracemalloc
from collections.abc import Callable

import pytest

from tollgate.core.errors import UpstreamUnavailable
from upstreams.scripted import (
    COMPLETION,
    EVENT,
    PATIENCE_SECONDS,
    Line,
    Scripted,
    Side,
    a_call,
    a_route,
    answer,
    hang,
    pieces,
    streamed,
    until,
)

MEGABYTE = 1_000_000


class Flood:
    """Sends one event without end, and counts what the network took."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.sent = 0

    async def __call__(self, line: Line) -> None:
        while self.sent < self.most:
            await line.chunk(b"x" * 50_000)
            self.sent += 50_000
        await line.end()


async def test_a_large_event_flows_through_and_is_not_kept(side: Side) -> None:
    async with Scripted(streamed(b"data: ", then=Flood(10 * MEGABYTE))).listening() as there:
        reply = await side.upstreams.open(a_call(a_route(there), stream=True))
        tracemalloc.start()
        length = 0
        async for piece in pieces(reply):
            length += len(piece)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert length == 10 * MEGABYTE + 6
    assert most < 2 * MEGABYTE


async def test_a_slow_reader_makes_the_upstream_wait(a_side: Callable[..., Side]) -> None:
    side = a_side(total_seconds=30)
    flood = Flood(100 * MEGABYTE)
    async with Scripted(streamed(EVENT, then=flood)).listening() as there:
        reply = await side.upstreams.open(a_call(a_route(there), stream=True))
        await anext(pieces(reply))
        sent = -1
        while sent < flood.sent:
            sent = flood.sent
            await asyncio.sleep(0.1)
        assert flood.sent < 20 * MEGABYTE, "the rest is in the kernel's buffers"
        await reply.close()


async def test_a_silence_of_the_reader_is_none_of_the_upstream(side: Side) -> None:
    async with Scripted(streamed(EVENT, then=Flood(5 * MEGABYTE))).listening() as there:
        reply = await side.upstreams.open(a_call(a_route(there, idle_seconds=1.5), stream=True))
        length = 0
        async for piece in pieces(reply):
            if not length:
                await asyncio.sleep(2)
            length += len(piece)
    assert length == 5 * MEGABYTE + len(EVENT)


async def test_pieces_come_as_they_arrive(side: Side) -> None:
    said = asyncio.Event()

    async def word_by_word(line: Line) -> None:
        for word in (b": ping\n\n", b"data: \xc3", b"\xa9\n", b"\n"):
            await line.chunk(word)
            await said.wait()
            said.clear()
        await line.end()

    async with Scripted(streamed(then=word_by_word)).listening() as there:
        reply = await side.upstreams.open(a_call(a_route(there), stream=True))
        seen = []
        async for piece in pieces(reply):
            seen.append(piece)
            said.set()
    assert seen == [b": ping\n\n", b"data: \xc3", b"\xa9\n", b"\n"]


async def test_closing_stops_the_upstream(side: Side) -> None:
    async with Scripted(streamed(EVENT, then=hang)).listening() as there:
        reply = await side.upstreams.open(a_call(a_route(there), stream=True))
        await anext(pieces(reply))
        assert side.busy() == 1
        async with asyncio.timeout(PATIENCE_SECONDS):
            await reply.close()
            await there.seen[0].left.wait()
        assert side.busy() == 0
        await reply.close()
        assert side.upstreams.states()[0].failures == 0


async def test_a_reader_that_is_cancelled_can_still_close(side: Side) -> None:
    async with Scripted(streamed(EVENT, then=hang)).listening() as there:
        reply = await side.upstreams.open(a_call(a_route(there), stream=True))

        async def read() -> None:
            try:
                await reply.read()
            finally:
                await reply.close()

        reading = asyncio.ensure_future(read())
        await asyncio.sleep(0.02)
        reading.cancel()
        await asyncio.wait([reading])
        assert reading.cancelled()
        await until(lambda: there.seen[0].left.is_set())
    assert side.busy() == 0


async def test_a_read_that_was_interrupted_goes_on(side: Side) -> None:
    more = asyncio.Event()

    async def later(line: Line) -> None:
        await more.wait()
        await line.chunk(EVENT)
        await line.end()

    async with Scripted(streamed(EVENT, then=later)).listening() as there:
        reply = await side.upstreams.open(a_call(a_route(there), stream=True))
        first = pieces(reply)
        assert await anext(first) == EVENT
        more.set()
        assert [piece async for piece in first] == [EVENT]
        assert [piece async for piece in pieces(reply)] == []


async def test_a_call_that_is_cancelled_leaves_nothing_behind(side: Side) -> None:
    async with Scripted(hang).listening() as there:
        opening = asyncio.ensure_future(side.upstreams.open(a_call(a_route(there))))
        await until(lambda: len(there.seen) == 1)
        opening.cancel()
        await asyncio.wait([opening])
        assert opening.cancelled()
        await until(lambda: there.seen[0].left.is_set())
    assert side.busy() == 0


async def test_a_pause_that_is_cancelled_leaves_nothing_behind(a_side: Callable[..., Side]) -> None:
    side = a_side(sleep=asyncio.sleep)
    async with Scripted(answer(b"{}", "retry-after: 4", status=429)).listening() as there:
        opening = asyncio.ensure_future(side.upstreams.open(a_call(a_route(there, "gpu", concurrency=1))))
        await until(lambda: len(there.seen) == 1)
        await asyncio.sleep(0.05)
        opening.cancel()
        await asyncio.wait([opening])
        assert opening.cancelled()
        there.plays = [answer()]
        assert await side.plain([a_route(there, "gpu", concurrency=1)]) == COMPLETION


async def test_a_thousand_cancelled_calls_leak_no_connection(a_side: Callable[..., Side]) -> None:
    """At every moment of a call: before it is sent, while it waits, and in its stream."""
    side = a_side(total_seconds=30)
    async with Scripted(streamed(EVENT, EVENT, then=hang)).listening() as there:
        for moment in range(50):
            calls = [asyncio.ensure_future(side.plain([a_route(there)], stream=True)) for _ in range(20)]
            for _ in range(moment):
                await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            assert all(call.cancelled() for call in calls)
        assert side.busy() == 0
        await until(lambda: there.connected == 0)
        there.plays = [answer()]
        assert await side.plain([a_route(there)]) == COMPLETION


async def test_many_at_once_get_their_own_answers(side: Side) -> None:
    async def echo(line: Line) -> None:
        body = b'{"id":"%s"}' % str(line.document["user"]).encode()
        await answer(body)(line)

    async with Scripted(echo).listening() as there:
        replies = await asyncio.gather(*(side.plain([a_route(there)], user=f"u{n}") for n in range(80)))
    assert replies == [b'{"id":"u%d"}' % n for n in range(80)]


class Names:
    """A resolver whose answers change."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return [self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/v1",
        "http://[::1]:{port}/v1",
        "http://169.254.169.254/v1",
        "http://2130706433:{port}/v1",
        "http://user:word@upstream.example/v1",
        "ftp://upstream.example/v1",
        "http://upstream.example:{port}/v1",
    ],
)
async def test_an_address_within_is_not_called(a_side: Callable[..., Side], url: str) -> None:
    side = a_side(allow_private=False, resolve=Names("127.0.0.1"))
    async with Scripted(answer()).listening() as there:
        route = a_route(url.format(port=there.port), "gpu", trusted=False)
        with pytest.raises(UpstreamUnavailable):
            await side.upstreams.open(a_call(route))
        assert there.connections == 0
        assert await side.plain([route, a_route(there)]) == COMPLETION


async def test_the_address_that_was_looked_at_is_the_one_that_is_called(a_side: Callable[..., Side]) -> None:
    """An answer that changes between the look and the call would lead elsewhere."""
    names = Names("127.0.0.1", "127.0.0.99")
    side = a_side(resolve=names)
    async with Scripted(answer()).listening() as there:
        route = a_route(f"http://upstream.example:{there.port}/v1", "gpu", trusted=False)
        assert await side.plain([route]) == COMPLETION
        assert there.seen[0].headers["host"] == f"upstream.example:{there.port}"
    assert names.asked == ["upstream.example"]


async def test_metadata_is_never_called_even_where_private_addresses_are(a_side: Callable[..., Side]) -> None:
    for address in ("169.254.169.254", "fd00:ec2::254", "fe80::1", "::ffff:169.254.169.254"):
        side = a_side(resolve=Names(address), allow_private=True)
        with pytest.raises(UpstreamUnavailable):
            await side.upstreams.open(a_call(a_route("http://upstream.example/v1", "gpu", trusted=False)))
        (state,) = side.upstreams.states()
        assert "never allowed" in str(state.last_error)


async def test_who_is_trusted_is_found_by_the_system(a_side: Callable[..., Side]) -> None:
    names = Names("192.0.2.1")
    async with Scripted(answer()).listening() as there:
        await a_side(allow_private=False, resolve=names).plain([a_route(f"http://localhost:{there.port}/v1")])
    assert names.asked == []
