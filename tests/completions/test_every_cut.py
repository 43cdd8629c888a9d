"""A stream arrives as its upstream wrote it, wherever the network cuts it, and each event as soon as it is whole."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from completions.asks import CALLS, STREAMED, path_of
from completions.twins import somebody_rich
from gateway import Upstream, running
from sandbox.serving import PATIENCE_SECONDS, a_chat, get
from tollgate.core.endpoints import Endpoint
from tollgate.sandbox.app import create_sandbox
from upstreams.scripted import Line, Play, Scripted, answer

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
TEXT = 'data: {"id":"gen-1","choices":[{"index":0,"delta":{"content":"é小🐦 \\" \\u00e9"},"finish_reason":null}]}'
STOP = 'data: {"id":"gen-1","choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}]}'
USAGE = 'data: {"id":"gen-1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"cost":0.000001}}'
DONE = b"data: [DONE]\n\n"

RESPONSE = (
    'event: response.created\ndata: {"type":"response.created","response":{"id":"gen-1","usage":null}}',
    'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"\\"usage\\": é小🐦"}',
    'event: response.completed\ndata: {"type":"response.completed","response":{"id":"gen-1","usage":'
    '{"input_tokens":3,"output_tokens":2,"cost":0.000001}}}',
)
MESSAGE = (
    'event: message_start\ndata: {"type":"message_start","message":{"id":"gen-1","usage":{"input_tokens":3}}}',
    'event: ping\ndata: {"type": "ping"}',
    'event: content_block_delta\ndata: {"type":"content_block_delta",'
    '"delta":{"type":"text_delta","text":"é小🐦 [DONE]"}}',
    'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},'
    '"usage":{"output_tokens":2,"cost":0.000001}}',
    'event: message_stop\ndata: {"type":"message_stop"}',
)
IMAGE = (
    'data: {"type":"image_generation.partial_image","b64_json":"aGk=","partial_image_index":0}',
    'data: {"type":"image_generation.completed","b64_json":"aGk=","usage":{"prompt_tokens":3,"cost":0.000001}}',
    "data: [DONE]",
)
TRANSCRIPT = (
    'data: {"type":"transcript.text.delta","delta":"é小🐦"}',
    'data: {"type":"transcript.text.done","text":"é小🐦","usage":{"seconds":1,"cost":0.000001}}',
)
WRITTEN: dict[Endpoint, tuple[str, ...]] = {
    "responses": RESPONSE,
    "messages": MESSAGE,
    "images": IMAGE,
    "transcriptions": TRANSCRIPT,
}
TYPED: dict[Endpoint, dict[str, bytes]] = {
    endpoint: {
        end: "".join(event.replace("\n", end) + end + end for event in events).encode() for end in ("\n", "\r\n")
    }
    for endpoint, events in WRITTEN.items()
}
line_ends = st.sampled_from(["\n", "\r\n", "\r"])
blocks = st.sampled_from(
    [TEXT, ": PROCESSING", ":", "", "event: x\ndata: 1\nid: 7", "data:", "data: {\ndata: }", "retry: 5", "data: [DONE"]
)
written = st.one_of(
    st.builds(lambda block, end: (block.replace("\n", end) + end + end).encode(), blocks, line_ends),
    st.binary(max_size=40).map(lambda noise: b"data: \xff" + noise.replace(b"[DONE]", b"") + b"\n\n"),
)
told = st.lists(written, max_size=8).map(lambda events: b"".join([*events, f"{STOP}\n\n{USAGE}\n\n".encode(), DONE]))
SHORT = f"{TEXT}\r\n\r\n{STOP}\n\n{USAGE}\n\n".encode() + DONE


class Stage:
    """Tollgate before an upstream that plays what it is given next."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.play = answer()

    async def upstream(self, line: Line) -> None:
        await self.play(line)

    async def streamed(self, play: Play, endpoint: Endpoint = "chat") -> bytes:
        self.play = play
        reply = await self.http.post(path_of(endpoint), json=STREAMED.get(endpoint) or CALLS[endpoint])
        assert reply.status_code == 200
        return reply.content


@pytest.fixture(scope="module")
async def stage(shared_database: str) -> AsyncIterator[Stage]:
    catalogue = answer((await get(create_sandbox(), "/api/v1/models", output_modalities="all")).content)
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as http:
        made = Stage(http)

        async def play(line: Line) -> None:
            await (catalogue if line.method == "GET" else made.upstream)(line)

        async with Scripted(play).listening() as upstream:
            settings_of_it = {"DATABASE_URL": shared_database}
            with running(settings_of_it, Upstream(create_sandbox(), upstream.url.removesuffix("/api/v1"))) as gateway:
                http.base_url = httpx.URL(gateway.address)
                http.headers["authorization"] = f"Bearer {await somebody_rich(shared_database)}"
                yield made


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """In pieces that end at these places, counted in thousandths."""
    ends = sorted({len(data) * place // 1000 for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(ends)]


def in_writes(pieces: Sequence[bytes]) -> Play:
    """Each by itself; the other side has its turn in between."""

    async def play(line: Line) -> None:
        for piece in pieces:
            await line.write(piece)
            await asyncio.sleep(0)

    return play


def chunked(pieces: Sequence[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


places = st.lists(st.integers(0, 1000), max_size=12)


@given(stream=told, chunks=places, writes=places)
@example(stream=SHORT, chunks=list(range(1001)), writes=[])
@example(stream=SHORT, chunks=[], writes=list(range(1001)))
@settings(max_examples=80)
async def test_every_byte_arrives_at_every_cut(
    stage: Stage, stream: bytes, chunks: list[int], writes: list[int]
) -> None:
    wire = HEAD + chunked(cut(stream, chunks))
    assert await stage.streamed(in_writes(cut(wire, writes))) == stream


@given(chunks=places, writes=places, end=st.sampled_from(["\n", "\r\n"]))
@example(chunks=list(range(1001)), writes=[], end="\n")
@example(chunks=[], writes=list(range(1001)), end="\r\n")
@pytest.mark.parametrize("endpoint", TYPED)
@settings(max_examples=20)
async def test_every_byte_of_typed_events_arrives_at_every_cut(
    stage: Stage, endpoint: Endpoint, chunks: list[int], writes: list[int], end: str
) -> None:
    stream = b": PROCESSING\n\n" + TYPED[endpoint][end]
    wire = HEAD + chunked(cut(stream, chunks))
    assert await stage.streamed(in_writes(cut(wire, writes)), endpoint) == stream


@given(sound=st.binary(min_size=1, max_size=300), chunks=places, writes=places)
@example(sound=b"data: [DONE]\n\n" * 3, chunks=list(range(1001)), writes=[])
@example(sound=b"\0", chunks=[], writes=list(range(1001)))
@settings(max_examples=20)
async def test_every_byte_of_sound_arrives_at_every_cut(
    stage: Stage, sound: bytes, chunks: list[int], writes: list[int]
) -> None:
    wire = HEAD.replace(b"text/event-stream", b"audio/mpeg") + chunked(cut(sound, chunks))
    assert await stage.streamed(in_writes(cut(wire, writes)), "speech") == sound


async def test_an_event_leaves_as_soon_as_it_is_whole(stage: Stage) -> None:
    first, rest = f"{TEXT}\n\n".encode(), SHORT
    arrived = asyncio.Event()

    async def play(line: Line) -> None:
        await line.start("content-type: text/event-stream")
        await line.chunk(first)
        await arrived.wait()
        await line.chunk(rest)
        await line.end()

    stage.play = play
    seen = b""
    async with stage.http.stream("POST", "/v1/chat/completions", json=a_chat(stream=True)) as reply:
        async for piece in reply.aiter_raw():
            seen += piece
            if seen == first:
                arrived.set()
    assert seen == first + rest
