"""The spans of a paid call arrive at a receiver of OTLP, as children of the client's span; without one, nothing is
imported."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from unittest.mock import Mock

import pytest
from starlette.types import Message

from completions.paid import Client, app
from completions.stage import Stage
from completions.test_own_servers import DONE, STOP, USAGE, own_server, word
from gateway import CHAT, ONE_DOOR, Upstream
from people import Person
from sandbox.serving import a_chat
from servers.otlp import Receiver, attributes, receiver
from tollgate.app import PLAIN, traceable
from tollgate.core import models
from tollgate.database import Door
from tollgate.process import telemetry
from tollgate.process.clock import monotonic
from tollgate.process.telemetry import Telemetry
from tollgate.settings import read
from tollgate.upstreams.address_guard import Guard
from tollgate.upstreams.attempts.spans import TracedAttempts
from upstreams.scripted import answer, streamed

TRACE = "0af7651916cd43dd8448eb211c80319c"
CLIENTS_SPAN = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{CLIENTS_SPAN}-01"
SCRAPER = "metrics-token-of-the-tests"
OPEN_METRICS = "application/openmetrics-text"
DURATIONS = "tollgate_http_request_duration_seconds"
ERROR = 2
"""The status of a span."""
BUSY = answer(b'{"error": {"message": "busy"}}', status=503)
SPEAKS = streamed(word("Hi"), STOP, USAGE, DONE)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The receiver may take as long as a busy machine needs."""
    monkeypatch.setattr(telemetry, "FLUSH_SECONDS", 60.0)


async def scraped(stage: Stage, accept: str) -> str:
    headers = {"authorization": f"Bearer {SCRAPER}", "accept": accept}
    answer = await stage.http.get(f"{stage.gateway.address}/metrics", headers=headers)
    assert answer.headers["content-type"].startswith(accept)
    return answer.text


def sending_to(found: Receiver) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": found.address, "OTEL_EXPORTER_OTLP_HEADERS": "x-team=blue%20one"}


async def test_the_trace_of_a_stream_has_the_clients_span_as_its_parent(
    shared_database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with receiver() as found:
        given = {"LOG_LEVEL": "info", "METRICS_TOKEN": SCRAPER, **sending_to(found)}
        async with own_server(shared_database, "vllm", BUSY, SPEAKS, **given) as of_test:
            stage, server, someone, body = of_test
            answered = await stage.post(someone, body, traceparent=TRACEPARENT)
            row = await stage.row(someone)
            plain, open_metrics = [await scraped(stage, accept) for accept in ("text/plain", OPEN_METRICS)]
    assert answered.status_code == 200
    operation = found.named(f"chat {body['model']}")
    request = found.named(f"POST {CHAT}")
    failed, attempt = sorted(
        (one for one in found.spans if one.name == "attempt"), key=lambda one: one.end_time_unix_nano
    )
    assert [attributes(one)["tollgate.verdict"] for one in (failed, attempt)] == ["failed", "answered"]
    assert (failed.status.code, attributes(failed)["http.response.status_code"]) == (ERROR, 503)
    assert request.parent_span_id.hex() == CLIENTS_SPAN
    children = {span.name for span in found.spans if span.parent_span_id == request.span_id}
    assert children == {"gate", "admit", operation.name, "settle"}
    assert {span.name for span in found.spans if span.parent_span_id == operation.span_id} == {"attempt", "relay"}
    assert {span.trace_id.hex() for span in found.spans if span.name != "GET /metrics"} == {TRACE}
    assert server.seen[-1].headers["traceparent"] == f"00-{TRACE}-{attempt.span_id.hex()}-01"
    assert found.services == {"tollgate"}
    assert all(headers["x-team"] == "blue one" for headers in found.headers)
    told = attributes(operation)
    assert (told["gen_ai.operation.name"], told["gen_ai.provider.name"]) == ("chat", "vllm")
    assert told["gen_ai.usage.output_tokens"] == row["completion_tokens"]
    assert told["tollgate.paid_request_id"] == row["id"]
    (first,) = operation.events
    assert first.name == "first_token"
    assert operation.start_time_unix_nano <= first.time_unix_nano <= operation.end_time_unix_nano
    assert attributes(found.named("settle"))["tollgate.charge_nanos"] == row["charge_nanos"]
    assert attributes(request)["http.response.status_code"] == 200
    assert "Count what is there" not in str(found.spans)
    for name in ("http.server.request.duration", "gen_ai.client.operation.duration", "gen_ai.client.token.usage"):
        assert name in found.metrics
    exemplars = [line for line in open_metrics.splitlines() if TRACE in line]
    assert [line.partition(" # ")[0].partition("{")[0] for line in exemplars] == [f"{DURATIONS}_bucket"]
    assert TRACE not in plain
    assert open_metrics.endswith("\n# EOF\n")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (line,) = [one for one in lines if one["event"] == "request" and one["route"] == CHAT]
    assert (line["trace_id"], line["span_id"]) == (TRACE, request.span_id.hex())


class Watching(Client):
    """Remembers what the receiver had when the last bytes of the answer left."""

    def __init__(self, found: Receiver, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._found = found
        self.arrived: set[str] = set()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.arrived = {span.name for span in self._found.spans}
        await super().send(message)


@ONE_DOOR
async def test_a_host_that_may_freeze_has_sent_the_trace_before_the_last_bytes(
    door: Door, sandbox: Upstream, customer: Callable[..., Awaitable[Person]]
) -> None:
    vercel = {"VERCEL": "1", "DATABASE_URL": "postgresql://the-door-is-given"}
    with receiver() as found:
        async with app(door, sandbox, **vercel, **sending_to(found)) as made:
            client = Watching(found, await customer(), a_chat(model="sandbox/fault-status"))
            await client.call(made)
    assert {"gate", "admit", "attempt", "chat sandbox/fault-status", "settle", f"POST {CHAT}"} <= client.arrived
    request = found.named(f"POST {CHAT}")
    assert request.status.code == ERROR == found.named("chat sandbox/fault-status").status.code
    assert attributes(found.named("attempt"))["http.response.status_code"] == 500
    assert not request.parent_span_id


@pytest.mark.parametrize("tells", [False, True])
def test_vendors_get_the_trace_only_where_the_operator_says_so(tells: bool) -> None:
    off = {"OTEL_METRICS_EXPORTER": "none", "TRACE_VENDORS": str(tells)}
    telemetry = Telemetry(read(off), may_freeze=False)
    attempts = TracedAttempts(
        telemetry, Mock(places=1), Guard(allow_private=False), of_tests=Mock(places=1), secrets={}, total_seconds=1,
        clock=monotonic, randomness=lambda: 0.0, sleep=asyncio.sleep,
    )  # fmt: skip
    vendors = [
        models.Upstream("openrouter", "openrouter", "https://a.example"),
        models.Upstream("v", "anthropic", "https://b.example"),
    ]
    for upstream in vendors:
        headers = attempts.live(upstream).headers({"traceparent": TRACEPARENT}, "chat")
        assert ("traceparent" in headers) is tells
    own = attempts.live(models.Upstream("own", "vllm", "https://c.example"))
    assert own.headers({"traceparent": TRACEPARENT}, "chat")["traceparent"] == TRACEPARENT


def test_without_a_receiver_the_parts_are_the_plain_ones() -> None:
    """Then OpenTelemetry's SDK is not imported either: tests/house/test_cold_start.py would see it."""
    assert traceable(read({"OTEL_TRACES_EXPORTER": "none"}), {}) is PLAIN
    assert traceable(read({"OTEL_TRACES_EXPORTER": "otlp"}), {}).flow is not PLAIN.flow
