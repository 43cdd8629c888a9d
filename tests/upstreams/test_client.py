"""What comes of a call, over each transport, before an upstream that does as it is told."""

import asyncio
import contextlib
import gzip
import io
import json
from collections.abc import AsyncIterator, Callable
from decimal import Decimal

import pytest
import respx

from servers.process import free_port
from tollgate import __version__
from tollgate.core.endpoints import ENDPOINTS, Endpoint
from tollgate.core.errors import (
    UpstreamBusy,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbled,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from tollgate.process import logs
from tollgate.upstreams.attempts import routes_in_turn
from tollgate.upstreams.rules import AttemptRecord, has_no_key
from upstreams.scripted import (
    COMPLETION,
    EVENT,
    SECRET,
    Line,
    Play,
    Scripted,
    Side,
    a_call,
    a_route,
    an_upstream,
    answer,
    cut,
    hang,
    pieces,
    raw,
    streamed,
    until,
)

PROBLEM = b'{"error":{"code":429,"message":"Slow down","metadata":{"raw":"\\u00e9"}}, "user_id":"u"}'
NOWHERE = "http://127.0.0.1:1/v1"


@pytest.fixture
def log() -> io.StringIO:
    stream = io.StringIO()
    logs.configure("info", [], stream)
    return stream


async def collect(pieces: AsyncIterator[bytes], seen: list[bytes]) -> None:
    """What came before a failure counts too."""
    async for piece in pieces:
        seen.append(piece)  # noqa: PERF401


async def test_a_reply_comes_as_it_was_sent(side: Side) -> None:
    async with Scripted(
        answer(COMPLETION, "x-generation-id: gen-1", "server: nginx", "set-cookie: a=b")
    ).listening() as there:
        reply = await side.upstreams.open(a_call(a_route(there)))
        assert (reply.status, reply.refused, reply.generation_id) == (200, False, "gen-1")
        assert reply.headers == {"content-type": "application/json", "x-generation-id": "gen-1"}
        assert await reply.read() == COMPLETION
        assert side.busy() == 0
        await reply.close()
        await reply.close()


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_each_endpoint_has_its_path(side: Side, endpoint: Endpoint) -> None:
    async with Scripted(answer()).listening() as there:
        with contextlib.suppress(UpstreamGarbled):  # an answer of JSON is no speech
            await side.plain([a_route(there)], endpoint=endpoint)
    path = "/images" if endpoint == "images" else ENDPOINTS[endpoint].path
    assert (there.seen[0].method, there.seen[0].target) == ("POST", f"/api/v1{path}")


async def test_only_what_is_allowed_goes_up(side: Side) -> None:
    clients = {
        "authorization": "Bearer tg_live_the_clients",
        "x-api-key": "tg_live_the_clients",
        "cookie": "session=1",
        "host": "tollgate.example",
        "connection": "upgrade",
        "transfer-encoding": "chunked",
        "content-length": "7",
        "accept-encoding": "gzip, br",
        "user-agent": "openai-python",
        "x-forwarded-for": "203.0.113.7",
        "idempotency-key": "k",
        "x-openrouter-cache": "true",
        "x-tollgate-usage": "true",
        "http-referer": "https://app.example",
        "x-title": "App",
        "x-openrouter-title": "App",
        "x-openrouter-categories": "chat",
        "x-openrouter-metadata": "enabled",
        "x-session-id": "s1",
    }
    async with Scripted(answer()).listening() as there:
        await side.plain([a_route(there)], headers=clients)
        await side.plain([a_route(there, "gpu")], headers=clients)
    openrouter, gpu = (line.headers for line in there.seen)
    ours = {
        "authorization": f"Bearer {SECRET}",
        "host": f"127.0.0.1:{there.port}",
        "accept": "*/*",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "user-agent": f"tollgate/{__version__}",
        "content-length": str(len(there.seen[0].body)),
    }
    passed = ("http-referer", "x-title", "x-openrouter-title", "x-openrouter-categories", "x-openrouter-metadata")
    assert gpu == ours
    assert openrouter == ours | {name: clients[name] for name in (*passed, "x-session-id")}


@pytest.mark.parametrize("odd", ["a\r\nx-evil: 1", "a\nb", "a\0b", "caf\xe9", "x" * 2000])
async def test_a_header_that_could_end_its_line_stays_here(side: Side, odd: str) -> None:
    async with Scripted(answer()).listening() as there:
        await side.plain([a_route(there)], headers={"x-title": odd, "x-session-id": "s"})
    assert "x-title" not in there.seen[0].headers
    assert "x-evil" not in there.seen[0].headers
    assert there.seen[0].headers["x-session-id"] == "s"


async def test_a_cookie_never_comes_back(side: Side) -> None:
    async with Scripted(answer(COMPLETION, "set-cookie: a=b; Path=/")).listening() as there:
        for _ in range(2):
            await side.plain([a_route(there)])
    assert "cookie" not in there.seen[1].headers


async def test_connections_are_kept(side: Side) -> None:
    async with Scripted(answer()).listening() as there:
        for _ in range(5):
            await side.plain([a_route(there)])
        assert there.connections == 1


async def test_the_body_goes_up_untouched_but_for_what_the_route_needs(side: Side) -> None:
    async with Scripted(answer()).listening() as there:
        await side.plain([a_route(there, model="other/name")], bound=77, new_parameter={"a": [1, 2.50]})
        await side.plain([a_route(there)], new_parameter=1)
    first, second = (line.document for line in there.seen)
    assert (first["model"], first["max_completion_tokens"], first["new_parameter"]) == (
        "other/name",
        77,
        {"a": [1, 2.5]},
    )
    assert there.seen[1].body == a_call(new_parameter=1).body
    assert "stream_options" not in second


@pytest.mark.parametrize("status", [400, 404, 405, 409, 413, 415, 422, 403])
async def test_a_clients_fault_is_passed_on_once(side: Side, status: int) -> None:
    async with Scripted(answer(PROBLEM, status=status)).listening() as there:
        for _ in range(20):
            reply = await side.upstreams.open(a_call(a_route(there), a_route(there, "gpu")))
            assert (reply.status, reply.refused, await reply.read()) == (status, True, PROBLEM)
    assert len(there.seen) == 20
    (state,) = side.upstreams.states()
    assert (state.breaker, state.failures, state.in_flight) == ("closed", 0, 0)


@pytest.mark.parametrize(("status", "who"), [(401, "openrouter"), (402, "openrouter"), (401, "gpu"), (403, "gpu")])
async def test_our_own_trouble_is_an_operators_and_no_clients(
    side: Side, log: io.StringIO, status: int, who: str
) -> None:
    async with Scripted(answer(b'{"error":"Unauthorized"}', status=status)).listening() as there:
        with pytest.raises(UpstreamUnavailable) as refused:
            await side.upstreams.open(a_call(a_route(there, who)))
    assert refused.value.status == 502
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["level"] for line in lines if line["event"] == "upstream_refuses_us"] == ["error"]
    assert SECRET not in log.getvalue()
    assert len(there.seen) == 1


async def test_our_trouble_here_is_none_elsewhere(side: Side) -> None:
    async with Scripted(answer(PROBLEM, status=402), answer()).listening() as there:
        assert await side.plain([a_route(there), a_route(there, "gpu")]) == COMPLETION


@pytest.mark.parametrize("status", [429, 503])
async def test_what_is_safe_is_tried_twice_more(side: Side, status: int) -> None:
    async with Scripted(answer(PROBLEM, status=status), answer(PROBLEM, status=status), answer()).listening() as there:
        assert await side.plain([a_route(there)]) == COMPLETION
    assert side.pauses.taken == [0.1875, 0.375]
    assert side.busy() == 0


async def test_and_then_its_own_no_is_passed_on(side: Side) -> None:
    async with Scripted(answer(PROBLEM, "retry-after: 2", status=429)).listening() as there:
        reply = await side.upstreams.open(a_call(a_route(there)))
        assert (reply.status, reply.refused, await reply.read()) == (429, True, PROBLEM)
        assert reply.headers["retry-after"] == "2"
    assert len(there.seen) == 3
    assert side.pauses.taken == [2.0, 2.0]


@pytest.mark.parametrize(
    "header",
    ["retry-after: 6", "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nretry-after: Sun, 06 Nov 1994 08:50:37 GMT"],
)
async def test_a_long_wait_is_not_waited_for(side: Side, header: str) -> None:
    async with Scripted(answer(PROBLEM, header, status=503), answer()).listening() as there:
        assert await side.plain([a_route(there, "gpu"), a_route(there)]) == COMPLETION
    assert side.pauses.taken == []
    assert "max_tokens" not in there.seen[1].document


@pytest.mark.parametrize("status", [408, 500, 502, 504, 520, 524, 529])
async def test_openrouter_is_not_asked_twice_for_what_may_have_begun(side: Side, status: int) -> None:
    async with Scripted(answer(PROBLEM, status=status), answer()).listening() as there:
        routes = [a_route(there), a_route(there, model="another/model")]
        reply = await side.upstreams.open(a_call(*routes, models=["another/model"]))
        assert (reply.status, reply.refused, await reply.read()) == (status, True, PROBLEM)
        assert len(there.seen) == 1
        there.plays.insert(0, answer(PROBLEM, status=status))
        assert await side.plain([a_route(there), a_route(there, "gpu")]) == COMPLETION


@pytest.mark.parametrize(
    ("status", "error"),
    [(500, UpstreamUnavailable), (502, UpstreamUnavailable), (503, UpstreamBusy), (524, UpstreamTimeout)],
)
async def test_a_page_instead_of_an_error_is_not_shown(side: Side, status: int, error: type[UpstreamError]) -> None:
    async with Scripted(answer(b"<html>10.0.0.7 broke</html>", status=status, kind="text/html")).listening() as there:
        with pytest.raises(error):
            await side.upstreams.open(a_call(a_route(there)))


async def test_a_connection_refused_is_tried_again_and_then_elsewhere(side: Side) -> None:
    async with Scripted(answer()).listening() as there:
        assert await side.plain([a_route(NOWHERE), a_route(there, "gpu")]) == COMPLETION
    assert len(side.pauses.taken) == 2
    with pytest.raises(UpstreamUnavailable):
        await side.upstreams.open(a_call(a_route(NOWHERE)))
    assert side.busy() == 0


async def test_a_name_that_does_not_exist_is_unavailable(side: Side) -> None:
    with pytest.raises(UpstreamUnavailable):
        await side.upstreams.open(a_call(a_route("http://nowhere.invalid/v1")))


async def test_tls_that_is_none_is_unavailable(side: Side) -> None:
    async def speak_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"no TLS here\r\n\r\n")
        writer.close()
        await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])

    async with await asyncio.start_server(speak_plainly, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(UpstreamUnavailable):
            await side.upstreams.open(a_call(a_route(f"https://127.0.0.1:{port}/v1")))


async def test_a_storm_is_not_multiplied(side: Side) -> None:
    """A fifth of all calls may be repeated, and a few."""
    async with Scripted(answer(PROBLEM, status=429)).listening() as there:
        for _ in range(100):
            await side.upstreams.open(a_call(a_route(there)))
    assert 120 <= len(there.seen) <= 126


@pytest.mark.parametrize("who", ["openrouter", "gpu"])
@pytest.mark.parametrize("play", [cut, raw(b"HTTP/1.1 200 OK\r\ncontent-ty")], ids=["at once", "in the head"])
async def test_a_connection_lost_before_the_answer(side: Side, play: Play, who: str) -> None:
    """OpenRouter may have been at work, and be paid for it; our own server may be asked again."""
    async with Scripted(play, answer()).listening() as there:
        if who == "gpu":
            assert await side.plain([a_route(there, who)]) == COMPLETION
            return
        with pytest.raises(UpstreamCut) as lost:
            await side.upstreams.open(a_call(a_route(there), a_route(there, "gpu")))
    assert lost.value.facts == {"upstream": "openrouter"}
    assert len(there.seen) == 1


async def test_a_connection_that_died_while_it_was_kept_proves_nothing(side: Side) -> None:
    async with Scripted(answer(), cut, answer()).listening() as there:
        await side.plain([a_route(there)])
        with pytest.raises(UpstreamCut):
            await side.plain([a_route(there)])
        assert (there.connections, len(there.seen)) == (1, 2)


async def test_silence_before_the_first_byte(side: Side) -> None:
    async with Scripted(hang, answer()).listening() as there:
        with pytest.raises(UpstreamTimeout) as late:
            await side.upstreams.open(
                a_call(a_route(there, first_byte_seconds=1.0), a_route(there, "gpu"), stream=True)
            )
        assert late.value.facts == {"phase": "first_byte", "upstream": "openrouter"}
        await until(lambda: there.seen[0].left.is_set())
        assert len(there.seen) == 1
        there.plays.insert(0, hang)
        there.plays.insert(1, streamed(EVENT))
        routes = [a_route(there, "gpu", first_byte_seconds=1.0), a_route(there)]
        assert await side.plain(routes, stream=True) == EVENT
    assert side.busy() == 0


async def test_a_connection_that_nobody_takes(a_side: Callable[..., Side]) -> None:
    """TEST-NET is routed nowhere. Where the network says so at once, that is as good."""
    with pytest.raises((UpstreamTimeout, UpstreamUnavailable)) as late:
        await a_side().upstreams.open(a_call(a_route("http://192.0.2.1/v1", connect_seconds=0.05)))
    assert late.value.facts in ({}, {"phase": "connect", "upstream": "openrouter"})


async def test_a_stream_that_stalls(side: Side) -> None:
    async with Scripted(streamed(EVENT, then=hang)).listening() as there:
        reply = await side.upstreams.open(a_call(a_route(there, idle_seconds=0.05), stream=True))
        seen: list[bytes] = []
        with pytest.raises(UpstreamTimeout) as late:
            await collect(pieces(reply), seen)
        assert seen == [EVENT]
        assert late.value.facts["phase"] == "idle"
        await until(lambda: there.seen[0].left.is_set())
    assert side.busy() == 0


async def test_a_trickle_ends_at_the_total_deadline(a_side: Callable[..., Side]) -> None:
    async def trickle(line: Line) -> None:
        while not line.left.is_set():
            await line.chunk(EVENT)
            await asyncio.sleep(0.01)

    side = a_side(total_seconds=1.0)  # with the connection
    async with Scripted(streamed(then=trickle)).listening() as there:
        with pytest.raises(UpstreamTimeout) as late:
            await side.plain([a_route(there, idle_seconds=60)], stream=True)
        assert late.value.facts["phase"] == "total"
        await until(lambda: there.seen[0].left.is_set())
    (state,) = side.upstreams.states()
    assert (state.breaker, state.in_flight, state.last_error) == ("closed", 0, "total timeout")


async def test_a_whole_reply_has_until_the_total_deadline(a_side: Callable[..., Side]) -> None:
    side = a_side(total_seconds=1.0)  # with the connection
    async with Scripted(hang).listening() as there:
        with pytest.raises(UpstreamTimeout) as late:
            await side.plain([a_route(there, first_byte_seconds=0.01), a_route(there, "gpu")])
    assert late.value.facts["phase"] == "total"
    assert len(there.seen) == 1


async def test_a_call_may_have_less_time_than_others(side: Side) -> None:
    """Of a batch: its own end comes first."""
    async with Scripted(hang).listening() as there:
        call = a_call(a_route(there))._replace(until=asyncio.get_running_loop().time() + 1.0)
        with pytest.raises(UpstreamTimeout) as late:
            await side.upstreams.open(call)
    assert late.value.facts["phase"] == "total"


@pytest.mark.parametrize("ending", [cut, raw(b"")], ids=["reset", "closed"])
async def test_a_stream_that_breaks_off_gives_all_that_came(side: Side, ending: Play) -> None:
    async with Scripted(streamed(EVENT, EVENT, then=ending)).listening() as there:
        reply = await side.upstreams.open(a_call(a_route(there), stream=True))
        coming = pieces(reply)
        seen = [await anext(coming)]
        await asyncio.sleep(0.05)  # the end has come, and is not read yet
        with pytest.raises(UpstreamCut):
            await collect(coming, seen)
        assert b"".join(seen) == EVENT * 2
    assert side.busy() == 0


@pytest.mark.parametrize("who", ["openrouter", "gpu"])
@pytest.mark.parametrize(
    "play",
    [
        answer(b"<html>", kind="text/html"),
        answer(b"", status=200),
        raw(b"HTTP/1.1 204 No Content\r\n\r\n"),
        answer(b"", "location: http://169.254.169.254/", status=302),
        answer(gzip.compress(b"{}" * 10_000_000), "content-encoding: gzip"),
        answer(b"{}", kind="text/plain"),
        raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"),
        raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1_000_000 + b"\r\n\r\n"),
    ],
    ids=["page", "empty", "204", "redirect", "packed", "text", "no type", "no HTTP", "endless head"],
)
async def test_what_is_no_answer(side: Side, play: Play, who: str) -> None:
    """Nobody else is asked where it may have cost something."""
    async with Scripted(play, answer()).listening() as there:
        if who == "gpu":
            assert await side.plain([a_route(there, who), a_route(there, "gpu2")]) == COMPLETION
            return
        with pytest.raises(UpstreamGarbled):
            await side.upstreams.open(a_call(a_route(there), a_route(there, "gpu")))
    assert len(there.seen) == 1
    assert side.busy() == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_an_empty_body_is_noticed_when_it_is_read(side: Side, stream: bool) -> None:
    async def nothing(line: Line) -> None:
        await line.start("content-type: application/json", "x-generation-id: gen-9")
        await line.end()

    async with Scripted(nothing).listening() as there:
        with pytest.raises(UpstreamGarbled) as empty:
            await side.plain([a_route(there)], stream=stream)
    assert empty.value.facts == {"upstream": "openrouter", "generation_id": "gen-9"}


async def test_an_endless_reply_is_not_kept(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tollgate.upstreams.attempts.reply.MOST_REPLY_BYTES", 100_000)

    async def endless(line: Line) -> None:
        await line.start("content-type: application/json")
        while not line.left.is_set():
            await line.chunk(b" " * 10_000)

    async with Scripted(endless).listening() as there:
        with pytest.raises(UpstreamGarbled):
            await side.plain([a_route(there)])
        await until(lambda: there.seen[0].left.is_set())


async def test_an_error_in_a_reply_is_a_reply(side: Side) -> None:
    body = b'{"error":{"message":"Provider returned error","code":502}}'
    async with Scripted(answer(body)).listening() as there:
        assert await side.plain([a_route(there)], stream=True) == body


async def test_a_full_upstream_is_passed_over(side: Side) -> None:
    async with Scripted(streamed(EVENT, then=hang)).listening() as there, Scripted(answer()).listening() as other:
        gpu = a_route(there, "gpu", concurrency=1)
        first = await side.upstreams.open(a_call(gpu, stream=True))
        assert await side.plain([gpu, a_route(other)]) == COMPLETION
        with pytest.raises(UpstreamBusy) as full:
            await side.upstreams.open(a_call(gpu))
        assert full.value.headers == {"retry-after": "2"}
        await first.close()
        assert side.busy() == 0
        there.plays = [answer()]
        assert await side.plain([gpu]) == COMPLETION


async def test_a_broken_upstream_gets_a_rest_and_then_one_probe(side: Side) -> None:
    async with Scripted(answer(PROBLEM, status=500)).listening() as there:
        gpu = a_route(there, "gpu")
        for number in range(5):
            await side.upstreams.open(a_call(gpu, org=f"org_{number % 2}"))
        with pytest.raises(UpstreamBusy) as resting:
            await side.upstreams.open(a_call(gpu))
        assert resting.value.facts == {"retry_after": 1}
        assert len(there.seen) == 5
        assert side.upstreams.states()[0].breaker == "open"
        assert await side.upstreams.open(a_call(a_route(there, "gpu", model="b/model"))), "another model is not spared"
        side.clock.now += 1.1
        there.plays = [answer()]
        assert await side.plain([gpu]) == COMPLETION
        assert side.upstreams.states()[0].breaker == "closed"


PROVOKED: list[Play] = [
    answer(PROBLEM, status=500),
    cut,
    raw(b"nonsense\r\n\r\n"),
    answer(b"<html>", kind="text/html"),
    hang,
    streamed(EVENT, then=cut),
    streamed(EVENT, then=hang),
]


@pytest.mark.parametrize("play", PROVOKED, ids=["500", "reset", "no HTTP", "page", "silence", "cut", "stall"])
async def test_what_one_org_provokes_rests_that_org_alone(side: Side, play: Play) -> None:
    async with Scripted(play).listening() as there:
        silence = {"first_byte_seconds": 0.5} if play is hang else {}
        gpu = a_route(there, "gpu", idle_seconds=0.2, **silence)  # the victim has no more time
        for _ in range(5):
            with contextlib.suppress(UpstreamError):
                await side.plain([gpu], stream=True, org="attacker")
        seen = len(there.seen)
        with pytest.raises(UpstreamBusy):
            await side.plain([gpu], stream=True, org="attacker")
        assert len(there.seen) == seen
        there.plays = [streamed(EVENT)]
        assert await side.plain([gpu], stream=True, org="victim") == EVENT
        assert side.upstreams.states()[0].breaker == "closed"


async def test_an_upstream_that_nobody_can_reach_rests_for_all(side: Side) -> None:
    for _ in range(2):
        with pytest.raises(UpstreamUnavailable):
            await side.plain([a_route(NOWHERE, "gpu")], org="one")
    with pytest.raises(UpstreamBusy):
        await side.plain([a_route(NOWHERE, "gpu")], org="other")
    assert side.upstreams.states()[0].breaker == "open"


@pytest.mark.parametrize(
    "said",
    [
        b'{"error":{"message":"Expected 1 image","type":"BadRequestError","code":500}}',
        b'{"error":{"message":"no such tool","type":"invalid_request_error","code":null}}',
        b'{"object":"error","message":"Expected 1 image","type":"BadRequestError","code":400}',
        b'{"error":{"message":"too long","type":"InternalServerError","code":400}}',
    ],
)
async def test_a_500_that_blames_the_request_is_a_400_and_rests_nobody(side: Side, said: bytes) -> None:
    async with Scripted(answer(said, status=500)).listening() as there:
        for number in range(20):
            reply = await side.upstreams.open(a_call(a_route(there, "gpu"), org=f"org_{number % 3}"))
            assert (reply.status, reply.refused) == (400, True)
        assert len(there.seen) == 20


class Sick:
    """An upstream with a health path, whose calls fail while it is sick."""

    def __init__(self) -> None:
        self.health = 503
        self.call: Play = answer(PROBLEM, status=500)
        self.asked = 0

    async def __call__(self, line: Line) -> None:
        if line.method == "GET":
            self.asked += 1
            await answer(b"{}", status=self.health)(line)
        else:
            await self.call(line)


async def test_with_a_health_path_no_call_goes_to_a_rested_upstream_before_it_is_well(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes_in_turn, "CHECKUP_SECONDS", 60)
    sick = Sick()
    async with Scripted(sick).listening() as there:
        gpu = a_route(there, "gpu", health_path="/health")
        for number in range(5):
            await side.upstreams.open(a_call(gpu, org=f"org_{number % 2}"))
        for seconds in (1.1, 2.1):
            side.clock.now += seconds
            with pytest.raises(UpstreamBusy):
                await side.plain([gpu])
        assert (sick.asked, len(there.seen)) == (2, 7), "each rest ended with one look at its health"
        assert there.seen[-1].target == "/health"
        sick.health, sick.call = 200, answer()
        side.clock.now += 4.1
        assert set(await asyncio.gather(*(side.plain([gpu]) for _ in range(9)))) == {COMPLETION}
        assert (sick.asked, len(there.seen)) == (3, 17)


async def test_no_call_waits_long_for_a_health_that_does_not_come(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes_in_turn, "CHECKUP_SECONDS", 0.01)
    sick = Sick()
    async with Scripted(sick).listening() as there, Scripted(answer()).listening() as other:
        gpu = a_route(there, "gpu", health_path="/health")
        for number in range(5):
            await side.upstreams.open(a_call(gpu, org=f"org_{number % 2}"))
        there.plays = [hang]
        side.clock.now += 1.1
        for _ in range(3):
            assert await side.plain([gpu, a_route(other)]) == COMPLETION
        await until(lambda: len(there.seen) > 5)
        assert [line.method for line in there.seen[5:]] == ["GET"], "one look is enough for all"


@pytest.mark.parametrize("is_sandbox", [True, False])
async def test_only_a_sandbox_is_told_which_fault_is_wanted(side: Side, is_sandbox: bool) -> None:
    async with Scripted(answer()).listening() as there:
        await side.plain([a_route(there, is_sandbox=is_sandbox)], headers={"x-sandbox-fault": "cut", "x-title": "t"})
    assert there.seen[0].headers.get("x-sandbox-fault") == ("cut" if is_sandbox else None)
    assert there.seen[0].headers["x-title"] == "t"


async def test_streams_that_stall_count_though_their_heads_were_good(side: Side) -> None:
    async with Scripted(streamed(EVENT, then=hang)).listening() as there:
        gpu = a_route(there, "gpu", idle_seconds=0.02)
        for _ in range(5):
            with pytest.raises(UpstreamTimeout):
                await side.plain([gpu], stream=True)
        with pytest.raises(UpstreamBusy):
            await side.upstreams.open(a_call(gpu))


async def test_a_probe_that_was_abandoned_leaves_room_for_another(side: Side) -> None:
    async with Scripted(answer(PROBLEM, status=500)).listening() as there:
        gpu = a_route(there, "gpu")
        for _ in range(5):
            await side.upstreams.open(a_call(gpu))
        side.clock.now += 1.1
        there.plays = [hang]
        probing = asyncio.ensure_future(side.upstreams.open(a_call(gpu)))
        await until(lambda: len(there.seen) == 6)
        with pytest.raises(UpstreamBusy):
            await side.upstreams.open(a_call(gpu))
        probing.cancel()
        await asyncio.wait([probing])
        there.plays = [answer()]
        assert await side.plain([gpu]) == COMPLETION


@pytest.mark.parametrize("secrets", [{}, {"OURS": ""}, {"OURS": "a\nb"}])
async def test_without_our_key_an_upstream_is_unavailable(
    a_side: Callable[..., Side], log: io.StringIO, secrets: dict[str, str]
) -> None:
    side = a_side(secrets=secrets)
    async with Scripted(answer()).listening() as there:
        for _ in range(3):
            with pytest.raises(UpstreamUnavailable):
                await side.upstreams.open(a_call(a_route(there)))
        assert [json.loads(line)["event"] for line in log.getvalue().splitlines()] == ["upstream_has_no_key"]
        assert there.seen == []
        assert await side.plain([a_route(there), a_route(there, "gpu", secret_name=None)]) == COMPLETION
        assert "authorization" not in there.seen[0].headers


async def test_settings_that_change_hold_from_the_next_call(side: Side) -> None:
    async with Scripted(answer()).listening() as there, Scripted(answer()).listening() as moved:
        await side.plain([a_route(there)])
        await side.plain([a_route(there)])
        await side.plain([a_route(moved)])
        assert (len(there.seen), len(moved.seen)) == (2, 1)


async def test_weights_choose_within_a_priority_but_not_over_the_clients_fallbacks(a_side: Callable[..., Side]) -> None:
    side = a_side(randomness=lambda: 0.999)
    async with Scripted(answer()).listening() as first, Scripted(answer()).listening() as second:
        routes = [a_route(first), a_route(second, "gpu")]
        await side.plain(routes)
        assert (len(first.seen), len(second.seen)) == (0, 1)
        await side.plain(routes, models=["b/model"])
        assert (len(first.seen), len(second.seen)) == (1, 1)


async def test_a_generation_is_looked_up(side: Side) -> None:
    record = b'{"data":{"id":"gen-1","total_cost":0.0000000000000000123,"is_byok":false}}'
    async with Scripted(answer(record)).listening() as there:
        found = await side.upstreams.look_up(an_upstream(there.url), "gen-1 &x=/")
        assert found == {"id": "gen-1", "total_cost": Decimal("1.23E-17"), "is_byok": False}
    assert there.seen[0].target == "/api/v1/generation?id=gen-1%20%26x%3D%2F"
    assert there.seen[0].headers["authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    ("play", "error"),
    [
        (answer(PROBLEM, status=500), UpstreamUnavailable),
        (answer(PROBLEM, status=401), UpstreamUnavailable),
        (answer(PROBLEM, status=429), UpstreamUnavailable),
        (answer(b"[]"), UpstreamGarbled),
        (answer(b"{}"), UpstreamGarbled),
        (answer(b"<html>"), UpstreamGarbled),
        (answer(b"", "location: /x", status=302), UpstreamUnavailable),
        (cut, UpstreamUnavailable),
    ],
)
async def test_a_look_up_that_fails_says_so(side: Side, play: Play, error: type[UpstreamError]) -> None:
    async with Scripted(play).listening() as there:
        with pytest.raises(error):
            await side.upstreams.look_up(an_upstream(there.url), "gen-1")


async def test_a_generation_that_is_not_there_yet_is_none(side: Side) -> None:
    async with Scripted(answer(PROBLEM, status=404)).listening() as there:
        assert await side.upstreams.look_up(an_upstream(there.url), "gen-1") is None


async def test_respx_can_stand_in_for_an_upstream() -> None:
    side = Side(long_lived=False)
    with respx.mock:
        route = respx.post("https://openrouter.ai/api/v1/chat/completions").respond(json={"id": "gen-1"})
        reply = await side.plain([a_route("https://openrouter.ai/api/v1")])
    await side.close()
    assert json.loads(reply) == {"id": "gen-1"}
    assert route.calls.last.request.headers["authorization"] == f"Bearer {SECRET}"


async def test_an_upstream_may_die_and_come_back(side: Side) -> None:
    dying = Scripted(answer())
    dying.port = free_port()  # nobody else is given it meanwhile
    async with dying.listening() as there:
        await side.plain([a_route(there, "gpu")])
    with pytest.raises(UpstreamUnavailable):
        await side.plain([a_route(there, "gpu")])
    async with there.listening():
        assert await side.plain([a_route(there, "gpu")]) == COMPLETION


async def test_each_attempt_is_recorded_with_what_came_of_it(side: Side) -> None:
    """Also those that were not made."""
    records: list[AttemptRecord] = []
    typed = raw(b"HTTP/1.1 302 So\r\ncontent-type: a/b\r\ncontent-length: 0\r\n\r\n")
    async with (
        Scripted(answer(status=503), answer(status=500)).listening() as ill,
        Scripted(typed).listening() as odd,
        Scripted(answer()).listening() as well,
    ):
        locked = a_route(well, "locked", secret_name="UPSTREAM_NOT_SET", priority=1)
        routes = [locked, a_route(ill, "ill", priority=2), a_route(odd, "odd", priority=3), a_route(well, "well")]
        reply = await side.upstreams.open(a_call(*routes)._replace(record_attempt=records.append))
        await reply.read()
        await reply.close()
    assert [(one.upstream, one.outcome, one.status, one.error_code, one.why) for one in records] == [
        ("locked", "skipped", None, None, f"not usable: {has_no_key('UPSTREAM_NOT_SET')}"),
        ("ill", "failed", 503, "upstream_busy", "HTTP 503"),
        ("ill", "failed", 500, "upstream_unavailable", "HTTP 500"),
        ("odd", "failed", 302, "upstream_garbled", "HTTP 302, a/b"),
        ("well", "answered", None, None, None),
    ]
