"""Bodies that are not in memory: sent as fast as the upstream takes them, and again where another must do."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tollgate.core.errors import UpstreamCut, UpstreamTimeout
from tollgate.core.multipart import Part, Parts
from tollgate.upstreams.rules import Upload, UpstreamCall
from upstreams.scripted import Line, Scripted, Side, a_call, a_route, answer, cut

SIZE = 3_000_000
UNREAD_SIZE = 30_000_000
"""More than the system takes for a server that reads nothing."""
PIECE = bytes(range(250)) * 200
REFUSAL = b'{"error":{"message":"Too much.","type":"invalid_request_error","code":null,"param":null}}'


class Sound:
    """Counts what is read of it."""

    def __init__(self, size: int = SIZE) -> None:
        self.size = size
        self.read = 0

    async def pieces(self) -> AsyncIterator[bytes]:
        for _ in range(self.size // len(PIECE)):
            self.read += len(PIECE)
            yield PIECE


def an_upload(*routes: Any, sound: Sound | None = None, **more: Any) -> UpstreamCall:
    upload = Upload((("model", b"a/model"), ("language", b"de")), Part("file", "a.wav"), sound or Sound(), "b" * 32)
    return a_call(*routes, **more)._replace(body=b"", upload=upload)


def form_of(line: Line, boundary: bytes = b"b" * 32) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for one in Parts(boundary).feed(line.body):
        if isinstance(one, Part):
            found.append((one.name, b""))
        else:
            found[-1] = found[-1][0], found[-1][1] + one
    return found


SENT = [("model", b"theirs"), ("language", b"de"), ("file", PIECE * (SIZE // len(PIECE)))]


async def test_an_upload_arrives_whole_and_its_connection_is_kept(side: Side) -> None:
    async with Scripted(answer()).listening() as there:
        route = a_route(there, model="theirs")
        for _ in range(2):
            reply = await side.upstreams.open(an_upload(route))
            await reply.read()
            await reply.close()
        assert there.connections == 1
    for line in there.seen:
        assert line.headers["content-type"] == "multipart/form-data; boundary=" + "b" * 32
        assert int(line.headers["content-length"]) == len(line.body)
        assert "transfer-encoding" not in line.headers
        assert form_of(line) == SENT


async def test_an_answer_that_comes_before_the_end_of_an_upload_is_taken() -> None:
    """On long-lived hosts: httpx reads no answer before it has sent everything, or cannot send any more."""
    side, taken = Side(long_lived=True), asyncio.Event()

    async def refuse(line: Line) -> None:
        await answer(REFUSAL, status=413)(line)
        await taken.wait()

    sound = Sound(UNREAD_SIZE)
    async with Scripted(refuse, reads_bodies=False).listening() as there:
        reply = await side.upstreams.open(an_upload(a_route(there), sound=sound))
        assert (reply.status, await reply.read()) == (413, REFUSAL)
        await reply.close()
        taken.set()
    assert sound.read < UNREAD_SIZE
    await side.close()


async def test_another_server_gets_the_whole_upload_again(side: Side) -> None:
    async def cut_in_the_middle(line: Line) -> None:
        await line.cut()

    async with (
        Scripted(cut_in_the_middle, reads_bodies=False).listening() as broken,
        Scripted(answer()).listening() as other,
    ):
        routes = a_route(broken, "one", "theirs"), a_route(other, "two", "theirs", priority=200)
        reply = await side.upstreams.open(an_upload(*routes))
        await reply.read()
        await reply.close()
    assert form_of(other.seen[0]) == SENT


async def test_openrouter_never_gets_a_second_upload(side: Side) -> None:
    async with Scripted(cut).listening() as there:
        with pytest.raises(UpstreamCut):
            await side.upstreams.open(an_upload(a_route(there)))
    assert len(there.seen) == 1


async def test_an_upload_that_is_not_taken_is_given_up_in_time(a_side: Callable[..., Side]) -> None:
    side, given_up = a_side(total_seconds=1.5), asyncio.Event()

    async def wait(line: Line) -> None:
        await given_up.wait()

    sound = Sound(UNREAD_SIZE)
    async with Scripted(wait, reads_bodies=False).listening() as there:
        with pytest.raises(UpstreamTimeout):
            await side.upstreams.open(an_upload(a_route(there), sound=sound))
        given_up.set()
    assert 0 < sound.read < UNREAD_SIZE
