"""How servers of our own are asked for their health, over real sockets and with both transports."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from people import refused
from servers.process import free_port
from tollgate.core.errors import BadRequest
from tollgate.core.models import Upstream
from tollgate.process.http_client import Http
from tollgate.settings import Settings
from tollgate.upstreams import health_checks, key_variables, rules
from tollgate.upstreams.address_guard import Guard
from tollgate.upstreams.health_checks import Checkup, Probe
from tollgate.upstreams.transports import Transport, open_transport
from upstreams.scripted import SECRET, Line, Play, Scripted, answer, cut, hang, raw

OPEN_ADDRESS = "8.8.8.8"


@pytest.fixture(params=["httptools", "httpx"])
async def transport(request: pytest.FixtureRequest) -> AsyncIterator[Transport]:
    http = Http()
    if request.param == "httpx":
        http.client()  # takes its time, which must not count as an upstream's
    made = open_transport(http, long_lived=request.param == "httptools")
    yield made
    await made.close()
    await http.close()


def a_checkup(transport: Transport, *, allow_private: bool = True, **guard: Any) -> Checkup:
    return Checkup(transport, Guard(allow_private=allow_private, **guard), {"UPSTREAM_KEY": SECRET})


def a_server(where: Scripted | str, name: str = "ups_1", **settings: Any) -> Upstream:
    return Upstream(name, "vllm", where if isinstance(where, str) else where.url, **settings)


async def probed(transport: Transport, *plays: Play, **settings: Any) -> tuple[Probe, list[Line]]:
    async with Scripted(*plays).listening() as there:
        (probe,) = await a_checkup(transport).probe([a_server(there, **settings)])
        return probe, there.seen


async def test_one_that_answers_is_up(transport: Transport) -> None:
    probe, (line,) = await probed(transport, answer(b"[]"), secret_name="UPSTREAM_KEY")
    assert (probe.status, probe.http_status, probe.error) == ("up", 200, None)
    assert probe.latency_ms is not None
    assert (line.method, line.target) == ("GET", "/api/v1/models")
    assert line.headers["authorization"] == f"Bearer {SECRET}"


async def test_a_health_path_is_one_of_the_server(transport: Transport) -> None:
    _, (line,) = await probed(transport, answer(b"ok"), health_path="/health")
    assert line.target == "/health"
    assert "authorization" not in line.headers


@pytest.mark.parametrize("path", ["//elsewhere.example/x", "/@elsewhere.example", "/\\elsewhere.example"])
async def test_no_health_path_leads_to_another_host(transport: Transport, path: str) -> None:
    probe, (line,) = await probed(transport, answer(b"ok"), health_path=path)
    assert probe.status == "up"
    assert line.headers["host"].startswith("127.0.0.1:")


@pytest.mark.parametrize("status", [401, 404, 429, 500, 503])
async def test_one_that_refuses_is_down_and_nothing_of_what_it_says_is_told(transport: Transport, status: int) -> None:
    probe, _ = await probed(transport, answer(b'{"error":"internal"}', status=status))
    assert (probe.status, probe.http_status, probe.error) == ("down", status, f"HTTP {status}")


async def test_a_redirect_is_not_followed(transport: Transport) -> None:
    async with Scripted(answer(b"secret")).listening() as inside:
        probe, lines = await probed(transport, answer(b"", f"location: {inside.url}", status=302))
        assert (probe.status, probe.error, len(lines)) == ("down", "HTTP 302", 1)
        assert inside.seen == []


@pytest.mark.parametrize("play", [cut, raw(b"SSH-2.0-OpenSSH_9.9\r\n")], ids=["cut", "not http"])
async def test_one_that_breaks_off_is_down_and_its_words_are_not_told(transport: Transport, play: Play) -> None:
    probe, _ = await probed(transport, play)
    assert (probe.status, probe.http_status, probe.latency_ms) == ("down", None, None)
    assert probe.error
    assert "SSH" not in probe.error


async def test_where_nobody_listens_it_is_down(transport: Transport) -> None:
    gone = Scripted(hang)
    gone.port = free_port()  # nobody else is given it meanwhile
    async with gone.listening():
        pass
    (probe,) = await a_checkup(transport).probe([a_server(gone)])
    assert (probe.status, probe.http_status) == ("down", None)


async def test_silence_ends_at_the_deadline(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_checks, "PROBE_SECONDS", 0.1)
    probe, _ = await probed(transport, hang)
    assert (probe.status, probe.error) == ("down", "no answer in time")


async def test_a_few_are_asked_at_once_and_the_rest_after_them(transport: Transport) -> None:
    at_once: list[int] = []
    under_way = 0
    full = asyncio.Event()

    async def play(line: Line) -> None:
        nonlocal under_way
        under_way += 1
        at_once.append(under_way)
        if under_way == health_checks.MOST_AT_ONCE:
            full.set()
        await full.wait()
        await asyncio.wait([asyncio.ensure_future(line.left.wait())], timeout=0.02)
        under_way -= 1
        await answer(b"ok")(line)

    async with Scripted(play).listening() as there:
        servers = [a_server(there, f"ups_{number}") for number in range(20)]
        probes = await a_checkup(transport).probe(servers)
    assert [probe.upstream_id for probe in probes] == [server.id for server in servers]
    assert {probe.status for probe in probes} == {"up"}
    assert max(at_once) == health_checks.MOST_AT_ONCE


async def test_whose_turn_does_not_come_in_time_is_left_out(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_checks, "ROUND_SECONDS", 1.0)
    async with Scripted(hang).listening() as there:
        servers = [a_server(there, f"ups_{number}") for number in range(health_checks.MOST_AT_ONCE + 3)]
        probes = await a_checkup(transport).probe(servers)
    assert 0 < len(probes) <= health_checks.MOST_AT_ONCE
    assert [probe.upstream_id for probe in probes] == [server.id for server in servers[: len(probes)]]
    assert {probe.error for probe in probes} == {"no answer in time"}


async def test_without_its_key_nothing_is_sent(transport: Transport) -> None:
    probe, lines = await probed(transport, answer(b"ok"), secret_name="UPSTREAM_OTHER_KEY")
    assert (probe.status, probe.error, lines) == ("down", rules.has_no_key("UPSTREAM_OTHER_KEY"), [])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "169.254.169.254", "[::1]", "2130706433"])
async def test_the_guard_stands_before_a_probe(transport: Transport, host: str) -> None:
    async with Scripted(answer(b"ok")).listening() as there:
        url = f"http://{host}:{there.port}/v1"
        (probe,) = await a_checkup(transport, allow_private=False).probe([a_server(url)])
        assert (probe.status, there.connections) == ("down", 0)


async def test_a_name_that_turns_inward_between_the_look_and_the_probe_leads_nowhere(transport: Transport) -> None:
    answers = iter([[OPEN_ADDRESS], ["127.0.0.1"]])

    async def resolve(host: str, port: int) -> list[str]:
        return next(answers)

    async with Scripted(answer(b"ok")).listening() as there:
        checkup = a_checkup(transport, allow_private=False, resolve=resolve)
        url = f"http://rebinding.example:{there.port}/v1"
        await checkup.refuse_forbidden(url)
        (probe,) = await checkup.probe([a_server(url)])
        assert (probe.status, there.connections) == ("down", 0)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://8.8.8.8/v1",
        "http://10.0.0.1/v1",
        "http://127.1/v1",
        "http://[::ffff:127.0.0.1]/v1",
        "http://169.254.169.254/latest",
        "http://user@8.8.8.8/v1",
        "http://inner.example/v1",
        "http://8.8.8.8:99999/v1",
    ],
)
async def test_where_no_call_would_go_may_not_be_written(transport: Transport, url: str) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["192.168.0.9"]

    error = await refused(a_checkup(transport, allow_private=False, resolve=resolve).refuse_forbidden(url))
    assert isinstance(error, BadRequest)
    assert error.param == "base_url"


async def test_what_clouds_keep_is_forbidden_even_where_private_addresses_are_not(transport: Transport) -> None:
    await a_checkup(transport).refuse_forbidden("http://10.0.0.1/v1")
    assert isinstance(await refused(a_checkup(transport).refuse_forbidden("http://169.254.169.254")), BadRequest)


async def test_a_name_that_leads_nowhere_yet_may_be_written(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unknown(host: str, port: int) -> list[str]:
        raise OSError

    async def slow(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(health_checks, "LOOK_UP_SECONDS", 0.05)
    for resolve in (unknown, slow):
        await a_checkup(transport, allow_private=False, resolve=resolve).refuse_forbidden("https://gpu.example/v1")


def test_only_what_was_set_apart_can_be_named() -> None:
    assert key_variables.is_offered("UPSTREAM_GPU_1_KEY")
    ours = {str(field.alias) for field in Settings.model_fields.values()}
    assert {"KEY_PEPPER", "DATABASE_URL", "SUPABASE_SECRET_KEY", "CRON_SECRET", "OPENROUTER_API_KEY"} < ours
    others = {"AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "SUPABASE_SERVICE_ROLE_KEY", "PATH", "GPU_KEY", "UPSTREAM_", ""}
    shapes = {
        "upstream_key",
        "UPSTREAM_key",
        "UPSTREAM_KEY ",
        "UPSTREAM_KEY\n",
        " UPSTREAM_KEY",
        "UPSTREAM_" + "A" * 120,
    }
    assert not any(key_variables.is_offered(name) for name in ours | others | shapes)


def test_none_of_our_own_is_there_for_upstreams() -> None:
    environ = {"KEY_PEPPER": "a", "SUPABASE_SERVICE_ROLE_KEY": "b", "OPENROUTER_API_KEY": "c", "UPSTREAM_KEY": "d"}
    assert key_variables.without_ours(environ) == {"UPSTREAM_KEY": "d"}
