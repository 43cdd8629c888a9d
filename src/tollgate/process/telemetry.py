"""Traces and metrics, sent over OTLP. Imported only where the settings name a receiver: the library is large.

A request never waits for the receiver and never fails because of it, except that a serverless host sends what it has
before the last bytes of an answer, within a second, since it may freeze afterwards.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from os import getpid
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.re import parse_env_headers
from structlog.typing import EventDict, WrappedLogger

from tollgate import __version__
from tollgate.settings import Settings

FLUSH_SECONDS: Final = 1.0
"""How long a serverless host waits for the receiver before the last bytes of an answer, and a server when it stops."""
TRACE_HEADERS: Final = ("traceparent", "tracestate")

Attributes = Mapping[str, str | int | float | bool | list[str] | None]
"""None is unknown, and left out."""

_W3C: Final = TraceContextTextMapPropagator()


class Telemetry:
    """The traces and metrics of one app. Nothing in it is global to the process."""

    def __init__(self, chosen: Settings, *, may_freeze: bool) -> None:
        """`may_freeze`: the host may freeze the process when a response ends."""
        self.may_freeze = may_freeze
        self.trace_vendors = chosen.trace_vendors
        resource = Resource.create(
            {
                "service.name": chosen.otel_service_name,
                "service.version": __version__,
                "service.instance.id": f"{socket.gethostname()}:{getpid()}",
            }
        )
        sent = parse_env_headers(chosen.otel_headers.get_secret_value(), liberal=True) if chosen.otel_headers else None
        self._tracing = TracerProvider(resource=resource, shutdown_on_exit=False)
        if chosen.traces_to:
            exporter = OTLPSpanExporter(endpoint=chosen.traces_to, headers=sent)
            self._tracing.add_span_processor(BatchSpanProcessor(exporter))
        readers = []
        if chosen.metrics_to:
            readers.append(PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=chosen.metrics_to, headers=sent)))
        self._metering = MeterProvider(metric_readers=readers, resource=resource, shutdown_on_exit=False)
        self.tracer = self._tracing.get_tracer("tollgate", __version__)
        self.meter: Meter = self._metering.get_meter("tollgate", __version__)

    @contextmanager
    def span(self, name: str, kind: SpanKind = SpanKind.INTERNAL, **attributes: Any) -> Iterator[Span]:
        """A child of the current span, and the current one during the block."""
        with self.tracer.start_as_current_span(name, kind=kind, attributes=known(attributes)) as made:
            yield made

    async def flush(self) -> None:
        """Sends what is waiting, or gives up after a moment."""
        await _in_time(self._flush)

    async def close(self) -> None:
        await _in_time(self._close)

    def _flush(self) -> None:
        self._tracing.force_flush()
        self._metering.force_flush()

    def _close(self) -> None:
        self._tracing.shutdown()
        self._metering.shutdown()


def known(attributes: Attributes) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


def parent_of(headers: Mapping[str, str]) -> Context:
    """The span that the caller works in, as its `traceparent` says."""
    return _W3C.extract(headers, context=Context())


def trace_headers() -> dict[str, str]:
    """Name the current span as the parent of what a server does for us."""
    headers: dict[str, str] = {}
    _W3C.inject(headers)
    return headers


def with_ids(logger: WrappedLogger, level: str, facts: EventDict) -> EventDict:
    """Adds the ids of the current span to a log line."""
    at = trace.get_current_span().get_span_context()
    if not at.is_valid:
        return facts
    return {**facts, "trace_id": trace.format_trace_id(at.trace_id), "span_id": trace.format_span_id(at.span_id)}


async def _in_time(work: Callable[[], None]) -> None:
    """In a thread that the process does not wait for when it ends: a receiver may hang."""
    thread = threading.Thread(target=work, name="telemetry", daemon=True)
    thread.start()
    await asyncio.to_thread(thread.join, FLUSH_SECONDS)
