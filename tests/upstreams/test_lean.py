"""What only the lean client has to get right: the pool, the wire and the bytes."""

import asyncio
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from tollgate.upstreams.address_guard import Forbidden
from tollgate.upstreams.rules import (
    ConnectionLost,
    ConnectTimeout,
    NoConnection,
    NotHttp,
    Resolve,
    TransportFailed,
    Unreachable,
)
from tollgate.upstreams.transports.with_httptools import HttptoolsTransport, pool
from tollgate.upstreams.transports.with_httptools.answer import MOST_UNREAD_BYTES, HttptoolsAnswer
from upstreams.scripted import COMPLETION, EVENT, Line, Play, Scripted, answer, hang, streamed, until

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
Ask = Callable[..., Awaitable[HttptoolsAnswer]]


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Both loops: their transports differ where it hurts."""
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture
async def lean(places: int) -> AsyncIterator[HttptoolsTransport]:
    transport = HttptoolsTransport(places)
    yield transport
    await transport.close()


@pytest.fixture
def places() -> int:
    return 1000


def asking(transport: HttptoolsTransport, url: str, resolve: Resolve | None = None, seconds: float = 60.0) -> Ask:
    async def ask(method: str = "POST", body: bytes = b"{}", **headers: str) -> HttptoolsAnswer:
        return await transport.send(method, url, headers, body, connect_seconds=seconds, resolve=resolve)

    return ask


async def whole(asked: HttptoolsAnswer) -> bytes:
    body = b""
    while piece := await asked.piece():
        body += piece
    return body


def keeping(data: bytes) -> Play:
    async def play(line: Line) -> None:
        await line.write(data)

    return play


def closing(data: bytes) -> Play:
    async def play(line: Line) -> None:
        await line.write(data)
        line.writer.close()

    return play


@pytest.mark.parametrize(
    ("data", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab", 200, b"ab"),
        (CHUNKED + b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n", 200, b"abcde"),
        (CHUNKED + b'2;name="value"\r\nab\r\n0;x\r\ndigest: 1\r\nx-two: 2\r\n\r\n', 200, b"ab"),
        (b"HTTP/1.1 100 Continue\r\nx: 1\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab", 200, b"ab"),
        (b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 204 None\r\n\r\n", 204, b""),
        (b"HTTP/1.1 204 None\r\ncontent-length: 7\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Same\r\ncontent-length: 7\r\n\r\n", 304, b""),
        (b"HTTP/1.1 200 OK\r\nupgrade: h2\r\nconnection: upgrade\r\ncontent-length: 2\r\n\r\nab", 200, b"ab"),
    ],
    ids=["length", "chunks", "extensions", "100", "103", "204", "304", "offer"],
)
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "by bytes"])
async def test_an_answer_however_it_is_cut_leaves_its_wire_to_the_next(
    lean: HttptoolsTransport, data: bytes, status: int, body: bytes, at_once: bool
) -> None:
    async def play(line: Line) -> None:
        for piece in [data] if at_once else [data[n : n + 1] for n in range(len(data))]:
            await line.write(piece)
            await asyncio.sleep(0)

    async with Scripted(play).listening() as there:
        ask = asking(lean, there.url)
        for _ in range(3):
            asked = await ask()
            assert (asked.status, await whole(asked)) == (status, body)
            assert "digest" not in asked.headers
            assert "x" not in asked.headers
        assert there.connections == 1


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nabHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nabcd",
        CHUNKED + b"2\r\nab\r\n0\r\n\r\nHTT",
    ],
    ids=["1.0", "close", "another answer", "rest", "rest after close", "rest after chunks"],
)
async def test_a_wire_that_cannot_be_trusted_is_not_used_again(lean: HttptoolsTransport, data: bytes) -> None:
    async with Scripted(keeping(data)).listening() as there:
        for _ in range(2):
            assert await whole(await asking(lean, there.url)()) == b"ab"
        assert there.connections == 2
        await until(lambda: there.connected == 0)


async def test_what_comes_unasked_ends_a_wire(lean: HttptoolsTransport) -> None:
    async def and_then_more(line: Line) -> None:
        await answer(b"ab")(line)
        await said.wait()
        await line.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
        await line.left.wait()

    said = asyncio.Event()
    async with Scripted(and_then_more).listening() as there:
        assert await whole(await asking(lean, there.url)()) == b"ab"
        said.set()
        await until(lambda: there.connected == 0)
        assert await whole(await asking(lean, there.url)()) == b"ab"
        assert there.connections == 2


async def test_a_body_without_a_length_ends_with_its_connection(lean: HttptoolsTransport) -> None:
    async with Scripted(closing(b"HTTP/1.1 200 OK\r\n\r\nabc")).listening() as there:
        assert await whole(await asking(lean, there.url)()) == b"abc"


async def test_but_not_by_breaking_off(lean: HttptoolsTransport) -> None:
    async def reset(line: Line) -> None:
        await line.write(b"HTTP/1.1 200 OK\r\n\r\nabc")
        await heard.wait()
        line.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await line.cut()

    heard = asyncio.Event()
    async with Scripted(reset).listening() as there:
        asked = await asking(lean, there.url)()
        assert await asked.piece() == b"abc"
        heard.set()
        with pytest.raises(ConnectionLost):
            await asked.piece()


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab", CHUNKED + b"2\r\nab\r\n", CHUNKED + b"4\r\nab"]
)
async def test_a_body_cut_short_is_handed_out_and_then_lost(lean: HttptoolsTransport, data: bytes) -> None:
    async with Scripted(closing(data)).listening() as there:
        asked = await asking(lean, there.url)()
        assert await asked.piece() == b"ab"
        for _ in range(2):
            with pytest.raises(ConnectionLost):
                await asked.piece()
        assert asked.at_hand() is None


@pytest.mark.parametrize(
    "data",
    [
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"HTTP/1.1 20x OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nab",
        b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000,
        b"HTTP/1.1 103 Hints\r\n\r\n" * 10_000,
    ],
    ids=["TLS", "status", "two lengths", "both", "packed chunks", "packed", "switch", "endless head", "hints"],
)
async def test_what_is_no_http_is_refused_and_left(lean: HttptoolsTransport, data: bytes) -> None:
    async def play(line: Line) -> None:
        await line.write(data)
        await line.left.wait()

    async with Scripted(play).listening() as there:
        with pytest.raises(NotHttp):
            await asking(lean, there.url)()
        await until(lambda: there.connected == 0)


@pytest.mark.parametrize("rest", [b"0\r\nx: " + b"y" * 400_000, b"2;" + b"y" * 400_000], ids=["trailer", "extension"])
async def test_what_says_nothing_is_not_kept_without_end(lean: HttptoolsTransport, rest: bytes) -> None:
    async def play(line: Line) -> None:
        await line.write(CHUNKED + b"2\r\nab\r\n")
        await heard.wait()
        await line.write(rest)
        await line.left.wait()

    heard = asyncio.Event()
    async with Scripted(play).listening() as there:
        asked = await asking(lean, there.url)()
        assert await asked.piece() == b"ab"
        heard.set()
        with pytest.raises(NotHttp):
            await asked.piece()
        await until(lambda: there.connected == 0)


async def test_a_wire_left_by_the_other_side_is_not_used(lean: HttptoolsTransport) -> None:
    async def and_goodbye(line: Line) -> None:
        await answer()(line)
        line.writer.close()

    async with Scripted(and_goodbye).listening() as there:
        for _ in range(20):
            assert await whole(await asking(lean, there.url)()) == COMPLETION
            await until(lambda: there.connected == 0)
            await asyncio.sleep(0.001)  # the news of it is on its way
        assert there.connections == 20


async def test_a_wire_grows_old(lean: HttptoolsTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Scripted(answer()).listening() as there:
        ask = asking(lean, there.url)
        monkeypatch.setattr(pool, "KEPT_ALIVE_SECONDS", 0.05)
        await whole(await ask())
        assert there.connected == 1
        await until(lambda: there.connected == 0)
        monkeypatch.setattr(pool, "KEPT_ALIVE_SECONDS", -1.0)
        for _ in range(2):
            await whole(await ask())
        assert there.connections == 3


async def test_the_wire_used_last_is_used_first(lean: HttptoolsTransport) -> None:
    async with Scripted(streamed(EVENT)).listening() as there:
        ask = asking(lean, there.url)
        many = await asyncio.gather(*(ask() for _ in range(5)))
        for asked in many:
            await whole(asked)
        last = there.seen[-1]
        for _ in range(3):
            await whole(await ask())
        ports = {line.writer.get_extra_info("peername") for line in there.seen[5:]}
        assert (len(ports), there.connections) == (1, 5)
        assert last.method == "POST"


async def test_no_wire_serves_who_came_by_another_leave(lean: HttptoolsTransport) -> None:
    async def here(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    async def nowhere(host: str, port: int) -> Sequence[str]:
        raise Forbidden("not there")

    async with Scripted(answer()).listening() as there:
        await whole(await asking(lean, there.url)())
        await whole(await asking(lean, there.url, here)())
        assert there.connections == 2
        with pytest.raises(Forbidden):
            await asking(lean, there.url, nowhere)()


async def test_the_addresses_are_tried_in_turn_and_no_other(lean: HttptoolsTransport) -> None:
    async def some(host: str, port: int) -> Sequence[str]:
        return addresses

    async with Scripted(answer()).listening() as there:
        url = f"http://upstream.invalid:{there.port}/v1"
        addresses = ["127.0.0.9", "::1", "127.0.0.1"]
        assert await whole(await asking(lean, url, some)()) == COMPLETION
        await lean.close()
        for wrong in ([], ["127.0.0.9"]):
            addresses = wrong
            with pytest.raises(Unreachable):
                await asking(lean, url, some)()


narrow = pytest.mark.parametrize("places", [2])


@narrow
async def test_a_crowd_waits_in_line_for_the_wires_there_are(lean: HttptoolsTransport) -> None:
    async with Scripted(streamed(EVENT)).listening() as there:
        ask = asking(lean, there.url)
        replies = await asyncio.gather(*(_read(ask) for _ in range(50)))
        assert set(replies) == {EVENT}
        assert there.connections == 2


@narrow
async def test_and_gives_up_in_time(lean: HttptoolsTransport) -> None:
    async with Scripted(streamed(EVENT, then=hang)).listening() as there:
        held = [await asking(lean, there.url)() for _ in range(2)]
        with pytest.raises(NoConnection):
            await asking(lean, there.url, seconds=0.02)()
        waiting = asyncio.ensure_future(asking(lean, there.url)())
        await asyncio.sleep(0)
        await held[0].close()
        assert (await waiting).status == 200
        assert there.connections == 3


@narrow
async def test_a_kept_wire_makes_room_for_another_place(lean: HttptoolsTransport) -> None:
    async with Scripted(answer()).listening() as one, Scripted(answer()).listening() as other:
        for there in (one, other, one, other):
            replies = await asyncio.gather(*(_read(asking(lean, there.url)) for _ in range(9)))
            assert set(replies) == {COMPLETION}
        mixed = (asking(lean, (one, other)[n % 2].url) for n in range(30))
        assert set(await asyncio.gather(*map(_read, mixed))) == {COMPLETION}
        await until(lambda: one.connected + other.connected <= 2)


@narrow
async def test_who_leaves_the_line_takes_nobodys_turn(lean: HttptoolsTransport) -> None:
    async with Scripted(answer()).listening() as there:
        ask = asking(lean, there.url)
        for moment in range(60):
            calls = [asyncio.ensure_future(_read(ask)) for _ in range(10)]
            for _ in range(moment):
                await asyncio.sleep(0)
            for call in calls[::2]:
                call.cancel()
            done = await asyncio.gather(*calls, return_exceptions=True)
            assert set(done[1::2]) == {COMPLETION}
        assert set(await asyncio.gather(*(_read(ask) for _ in range(10)))) == {COMPLETION}
        await until(lambda: there.connected <= 2)


async def _read(ask: Ask) -> bytes:
    asked = await ask()
    try:
        return await whole(asked)
    finally:
        await asked.close()


async def test_closing_a_read_answer_leaves_the_next_ones_wire_alone(lean: HttptoolsTransport) -> None:
    async with Scripted(answer(), streamed(EVENT)).listening() as there:
        first = await asking(lean, there.url)()
        second = await asking(lean, there.url)()
        await first.close()
        assert (await whole(first), await whole(second)) == (COMPLETION, EVENT)
        assert there.connections == 1


async def test_closing_wakes_who_waits(lean: HttptoolsTransport) -> None:
    async with Scripted(streamed(EVENT, then=hang)).listening() as there:
        asked = await asking(lean, there.url)()
        assert await asked.piece() == EVENT
        reading = asyncio.ensure_future(asked.piece())
        await asyncio.sleep(0)
        await asked.close()
        with pytest.raises(ConnectionLost):
            await reading
        await until(lambda: there.connected == 0)


async def test_an_answer_before_the_request_was_taken_ends_the_wire(lean: HttptoolsTransport) -> None:
    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Much\r\ncontent-length: 2\r\n\r\nno")

    accepted: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(hasty, "127.0.0.1", 0, limit=1024) as server:
        ask = asking(lean, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        for _ in range(2):
            asked = await ask(body=b"x" * 50_000_000)
            assert (asked.status, await whole(asked)) == (413, b"no")
        assert len(accepted) == 2
        for writer in accepted:
            writer.transport.abort()


@pytest.mark.parametrize("value", ["a\r\nx: 1", "a\nb", "a\rb", "a\0b", "a\r\n", "caf\u2603"])
async def test_what_would_end_its_line_is_not_sent(lean: HttptoolsTransport, value: str) -> None:
    async with Scripted(answer()).listening() as there:
        with pytest.raises(Unreachable):
            await asking(lean, there.url)(x=value)
        for url in (f"{there.url}/{value}", f"{there.url}?{value}", there.url.replace("127", f"127{value}")):
            with pytest.raises(Unreachable):
                await asking(lean, url)()
        with pytest.raises(Unreachable):
            await asking(lean, there.url)(f"GET /{value}")
        assert there.connections == 0


@pytest.mark.parametrize(
    "url", ["ftp://x/", "http://", "http://a b/", "http://u@x/", "http://x:y/", "http://x:99999/", "x"]
)
async def test_an_address_that_is_none_is_unreachable(lean: HttptoolsTransport, url: str) -> None:
    with pytest.raises(Unreachable):
        await asking(lean, url)()


async def test_a_request_is_written_as_it_should_be(lean: HttptoolsTransport) -> None:
    async with Scripted(answer()).listening() as there:
        host = f"127.0.0.1:{there.port}"
        await whole(await asking(lean, f"http://{host}?a=%20b#part")("GET", b"", accept="*/*"))
        await whole(await asking(lean, f"http://{host}/x//y?")("POST", b""))
    get, post = there.seen
    assert (get.method, get.target, get.headers) == ("GET", "/?a=%20b", {"host": host, "accept": "*/*"})
    assert (post.method, post.target, post.headers) == ("POST", "/x//y", {"host": host, "content-length": "0"})


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    named = ["-subj", "/CN=upstream.test", "-addext", "subjectAltName=DNS:upstream.test"]
    subprocess.run([*made, *named, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context, certificate


async def here(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


async def test_tls_is_verified_by_the_name_and_by_the_systems_authorities(
    certified: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, certificate = certified
    async with Scripted(streamed(EVENT)).listening(context) as there:
        good = f"https://upstream.test:{there.port}/v1"
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        trusting = HttptoolsTransport(1000)
        for _ in range(3):
            assert await whole(await asking(trusting, good, here)()) == EVENT
        assert there.connections == 1
        assert there.seen[0].headers["host"] == f"upstream.test:{there.port}"
        monkeypatch.delenv("SSL_CERT_FILE")
        strict = HttptoolsTransport(1000)
        for transport, url in ((strict, good), (trusting, good.replace("upstream", "other"))):
            with pytest.raises(Unreachable):
                await asking(transport, url, here)()
            await transport.close()
        assert len(there.seen) == 3


async def test_cancelled_calls_over_tls_leave_nothing(certified: tuple[ssl.SSLContext, Path]) -> None:
    context, certificate = certified
    lean = HttptoolsTransport(1000, ssl.create_default_context(cafile=str(certificate)))
    async with Scripted(streamed(EVENT, then=hang)).listening(context) as there:
        ask = asking(lean, f"https://upstream.test:{there.port}/v1", here)
        for moment in range(0, 200, 2):
            calls = [asyncio.ensure_future(_read(ask)) for _ in range(3)]
            for _ in range(moment % 100):
                await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
        await until(lambda: there.connected == 0)
        await lean.close()


async def test_a_server_that_never_shakes_hands_is_left_in_time() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        gone.set()

    gone = asyncio.Event()
    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        lean = HttptoolsTransport(1000)
        with pytest.raises(ConnectTimeout):
            await asking(lean, f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/", seconds=0.05)()
        async with asyncio.timeout(60):
            await gone.wait()
        await lean.close()


@pytest.mark.parametrize("over_tls", [False, True], ids=["plain", "TLS"])
async def test_who_reads_slowly_holds_little_and_gets_all(
    certified: tuple[ssl.SSLContext, Path], over_tls: bool
) -> None:
    async def flood(line: Line) -> None:
        await line.start("content-type: text/event-stream")
        for _ in range(20):
            await line.chunk(b"x" * 500_000)
        await line.end()

    context, certificate = certified
    lean = HttptoolsTransport(1000, ssl.create_default_context(cafile=str(certificate)))
    async with Scripted(flood).listening(context if over_tls else None) as there:
        url = f"http{'s' * over_tls}://upstream.test:{there.port}/v1"
        asked = await asking(lean, url, here)()
        lengths = []
        while piece := await asked.piece():
            lengths.append(len(piece))
            await asyncio.sleep(0.05 if len(lengths) < 4 else 0)
        assert sum(lengths) == 10_000_000
        assert MOST_UNREAD_BYTES // 2 < max(lengths) < MOST_UNREAD_BYTES * 3
        assert await whole(await asking(lean, url, here)()) == b"x" * 10_000_000
        assert there.connections == 1
        await lean.close()


async def test_a_transport_that_closes_leaves_no_call_waiting(lean: HttptoolsTransport) -> None:
    async with Scripted(streamed(EVENT, then=hang)).listening() as there:
        asked = await asking(lean, there.url)()
        await asked.piece()
        reading = asyncio.ensure_future(asked.piece())
        await asyncio.sleep(0)
        await lean.close()
        with pytest.raises(TransportFailed):
            await reading
        await until(lambda: there.connected == 0)
