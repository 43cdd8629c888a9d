"""The span of each request and the exemplars of /metrics, in the place of the plain parts where traces are sent.

It has the template of the route and not the path, into which a client may have put a secret.
"""

import time
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from starlette.types import Message, Receive, Scope, Send

from tollgate.process import logs
from tollgate.process.telemetry import Telemetry, known, parent_of
from tollgate.web.client_address import headers_of
from tollgate.web.middleware import CLIENT_GONE, RequestMiddleware, route_of
from tollgate.web.request_counts import METHODS, NO_ROUTE, Exemplar, RequestCounts, bucket_of

NOTED: Final = (
    "org_id",
    "key_id",
    "user_id",
    "paid_request_id",
    "model",
    "upstream",
    "outcome",
    "charge_nanos",
    "cached",
)
"""Facts of the log line that the span has too."""
SERVER_ERROR: Final = 500


class TracedCounts(RequestCounts):
    """Also remembers the last trace of each bucket of durations."""

    def count(self, method: str, route: str | None, status: int, seconds: float, facts: Mapping[str, Any]) -> None:
        super().count(method, route, status, seconds, facts)
        at = trace.get_current_span().get_span_context()
        if at.trace_flags.sampled:
            exemplar = Exemplar(trace.format_trace_id(at.trace_id), seconds, time.time())
            self.durations[route or NO_ROUTE].exemplars[bucket_of(seconds)] = exemplar


class TracedMiddleware(RequestMiddleware):
    def __init__(self, *given: Any, telemetry: Telemetry, **options: Any) -> None:
        super().__init__(*given, **options)
        self._telemetry = telemetry
        self._seconds = telemetry.meter.create_histogram("http.server.request.duration", "s")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await super().__call__(scope, receive, send)
        parent = parent_of(headers_of(scope))
        span = self._telemetry.tracer.start_span(_method(scope), parent, SpanKind.SERVER)
        answered = _Answered(scope, span, send, self._telemetry)
        started = time.perf_counter()
        with trace.use_span(span):
            try:
                await super().__call__(scope, receive, answered.send)
            finally:
                answered.end()
                self._seconds.record(time.perf_counter() - started, answered.of_metric())


class _Answered:
    """Sees the status of a response. Where the process may freeze when the response ends, ends the span and sends it
    before the last bytes."""

    def __init__(self, scope: Scope, span: trace.Span, send: Send, telemetry: Telemetry) -> None:
        self._scope = scope
        self._span = span
        self._send = send
        self._telemetry = telemetry
        self._status = CLIENT_GONE
        self._has_ended = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
        elif self._telemetry.may_freeze and not message.get("more_body", False):
            self.end()
            await self._telemetry.flush()
        await self._send(message)

    def end(self) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        span, facts, route = self._span, logs.noted(), route_of(self._scope)
        if route:
            span.update_name(f"{_method(self._scope)} {route}")
        error_code = facts.get("error_code")
        told = {f"tollgate.{name}": facts.get(name) for name in (*NOTED, "error_code", "request_id")}
        span.set_attributes(known({**self.of_metric(), **told}))
        if self._status >= SERVER_ERROR:
            span.set_status(Status(StatusCode.ERROR, error_code))
        span.end()

    def of_metric(self) -> dict[str, Any]:
        is_error = self._status >= SERVER_ERROR
        return known(
            {
                "http.request.method": _method(self._scope),
                "http.route": route_of(self._scope),
                "http.response.status_code": self._status,
                "error.type": (logs.noted().get("error_code") or str(self._status)) if is_error else None,
            }
        )


def _method(scope: Scope) -> str:
    """Others than HTTP's own have one name, since a client may make up any number."""
    method: str = scope["method"]
    return method if method in METHODS else "_OTHER"
