"""An upstream that does as it is told, on a real socket, and a Tollgate's eye view of it."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from tollgate.core import request_body, sound_requests
from tollgate.core.endpoints import ENDPOINTS, Endpoint
from tollgate.core.models import Route, Upstream
from tollgate.core.sound_lengths import Length
from tollgate.core.sound_requests import Given
from tollgate.process.http_client import Http
from tollgate.upstreams.attempts.reply import Reply
from tollgate.upstreams.client import Answered, Upstreams
from tollgate.upstreams.rules import UpstreamCall
from tollgate.upstreams.transports import open_transport

SECRET = "sk-or-v1-ours-and-nobody-elses"
PATIENCE_SECONDS = 60.0
COMPLETION = b'{"id":"gen-1","object":"chat.completion","choices":[],"usage":{"cost":0.5}}'
EVENT = b'data: {"id":"gen-1","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'


class Line:
    """One request that has come, and the way to answer it."""

    def __init__(self, start: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter) -> None:
        self.method, self.target, _ = start.split(" ", 2)
        self.headers = headers
        self.body = body
        self.writer = writer
        self.left = asyncio.Event()

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def start(self, *headers: str, status: int = 200) -> None:
        """A head, and then chunks."""
        lines = [f"HTTP/1.1 {status} So", "transfer-encoding: chunked", *headers]
        await self.write(("\r\n".join(lines) + "\r\n\r\n").encode())

    async def chunk(self, data: bytes) -> None:
        await self.write(b"%x\r\n%s\r\n" % (len(data), data))

    async def end(self) -> None:
        await self.write(b"0\r\n\r\n")

    async def cut(self) -> None:
        self.writer.transport.abort()


Play = Callable[[Line], Awaitable[None]]


def answer(body: bytes = COMPLETION, *headers: str, status: int = 200, kind: str = "application/json") -> Play:
    head = "\r\n".join((f"HTTP/1.1 {status} So", f"content-type: {kind}", f"content-length: {len(body)}", *headers))

    async def play(line: Line) -> None:
        await line.write(head.encode() + b"\r\n\r\n" + body)

    return play


def raw(data: bytes) -> Play:
    async def play(line: Line) -> None:
        await line.write(data)
        await line.cut() if not data else line.writer.close()

    return play


def streamed(*events: bytes, then: Callable[[Line], Awaitable[None]] | None = None) -> Play:
    async def play(line: Line) -> None:
        await line.start("content-type: text/event-stream")
        for event in events:
            await line.chunk(event)
        await (then(line) if then else line.end())

    return play


async def hang(line: Line) -> None:
    await line.left.wait()


async def cut(line: Line) -> None:
    await line.cut()


class Scripted:
    """Plays what it is given, one answer a request; the last one again and again."""

    def __init__(self, *plays: Play, reads_bodies: bool = True) -> None:
        self.plays = list(plays)
        self._reads_bodies = reads_bodies
        self.seen: list[Line] = []
        self.connections = 0
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    @property
    def connected(self) -> int:
        return len(self._open)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v1"

    @contextlib.asynccontextmanager
    async def listening(self, tls: ssl.SSLContext | None = None) -> AsyncIterator["Scripted"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=2**16, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for writer in self._open:
                writer.transport.abort()
            await until(lambda: self.connected == 0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        self.connections += 1
        try:
            while (line := await self._read(reader, writer)) is not None:
                await self._play(line, reader)
                if not self._reads_bodies:
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            self._open.discard(writer)

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Line | None:
        head = await reader.readuntil(b"\r\n\r\n")
        start, *rest = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in rest) if name}
        body = await reader.readexactly(int(headers.get("content-length", 0)) if self._reads_bodies else 0)
        return Line(start, headers, body, writer)

    async def _play(self, line: Line, reader: asyncio.StreamReader) -> None:
        self.seen.append(line)
        play = self.plays.pop(0) if len(self.plays) > 1 else self.plays[0]
        watching = asyncio.ensure_future(self._watch(line, reader))
        try:
            await play(line)
        except ConnectionError:
            line.left.set()
            raise
        finally:
            watching.cancel()
            await asyncio.wait([watching])

    async def _watch(self, line: Line, reader: asyncio.StreamReader) -> None:
        """Tells when the other end has left. Nobody sends a second request before the first is answered."""
        with contextlib.suppress(OSError):
            await reader.read(1)
        line.left.set()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110  # what is waited for happens in a server
            await asyncio.sleep(0.002)


class Pauses:
    """Takes no time, and remembers how much it was asked to take."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Side:
    """Our side: an Upstreams over one of the transports, and all that it was given."""

    def __init__(self, *, long_lived: bool, **settings: Any) -> None:
        self.http = Http()
        if not long_lived:
            self.http.client()  # takes its time, which must not count as an upstream's
        self.clock = Clock()
        self.pauses = Pauses()
        given = {
            "secrets": {"OURS": SECRET},
            "allow_private": True,
            "total_seconds": PATIENCE_SECONDS,
            "clock": self.clock,
            "randomness": lambda: 0.25,
            "sleep": self.pauses,
        }
        transport, of_tests = (
            open_transport(self.http, long_lived=long_lived, most=settings.pop(most, None))
            for most in ("most", "most_of_tests")
        )
        self.upstreams = Upstreams(transport, of_tests=of_tests, **{**given, **settings})

    async def close(self) -> None:
        await self.upstreams.close()
        await self.http.close()

    async def plain(self, routes: Sequence[Route], **call: Any) -> bytes:
        reply = await self.upstreams.open(a_call(*routes, **call))
        try:
            return await reply.read()
        finally:
            await reply.close()

    def busy(self) -> int:
        return sum(state.in_flight for state in self.upstreams.states())


async def pieces(reply: Answered) -> AsyncIterator[bytes]:
    assert isinstance(reply, Reply)
    while piece := await reply.piece():
        yield piece


def an_upstream(url: str, name: str = "openrouter", **settings: Any) -> Upstream:
    dialect = settings.pop("dialect", "openrouter" if name == "openrouter" else "vllm")
    return Upstream(name, dialect, url, **{"secret_name": "OURS", "trusted": True, **settings})


def a_route(where: Scripted | str, name: str = "openrouter", model: str = "a/model", **settings: Any) -> Route:
    url = where if isinstance(where, str) else where.url
    priority, weight = settings.pop("priority", 100), settings.pop("weight", 1)
    return Route(an_upstream(url, name, **settings), model, None, priority=priority, weight=weight)


def a_call(
    *routes: Route,
    endpoint: Endpoint = "chat",
    stream: bool = False,
    bound: int | None = None,
    headers: dict[str, str] | None = None,
    org: str = "org_1",
    **more: Any,
) -> UpstreamCall:
    form = ENDPOINTS[endpoint]
    if form.takes_file:
        ask = sound_requests.read(Given({"model": "a/model"}, ()), Length(10, 10), endpoint)
        return UpstreamCall(ask, b"{}", bound, routes, headers or {}, org)
    asked: dict[str, Any] = {form.prompt: [{"role": "user", "content": "hi"}] if form.has_messages else "hi"}
    if form.repeated:
        asked = {form.prompt: ["hi"], form.repeated: "hi"}
    document = {"model": "a/model", **asked, **({"stream": True} if stream else {}), **more}
    body = json.dumps(document).encode()
    return UpstreamCall(request_body.read(body, endpoint), body, bound, routes, headers or {}, org)
