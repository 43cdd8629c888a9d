"""The spans of a paid call, in the place of the plain parts of the flow where traces are sent.

Names are those of OpenTelemetry's conventions for generative AI. No prompt and no answer is in a span.
"""

import time
from collections.abc import Mapping
from typing import Any, Final, cast

from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from starlette.types import Receive, Scope, Send

from tollgate.completions.admission import Admission, Quote
from tollgate.completions.flow import AnswerToClient, Flow
from tollgate.completions.own_counts import AnyAnswer
from tollgate.completions.paid_call import PaidCall
from tollgate.completions.settlements import Settled
from tollgate.core.endpoints import Endpoint
from tollgate.core.models import Dialect
from tollgate.process import logs
from tollgate.process.telemetry import Telemetry, known

NANOSECONDS: Final = 1_000_000_000
NANOSECONDS_OF_A_MILLISECOND: Final = 1_000_000
OPERATIONS: Final[Mapping[Endpoint, str]] = {
    "chat": "chat",
    "responses": "chat",
    "messages": "chat",
    "completions": "text_completion",
    "generate": "text_completion",
    "embeddings": "embeddings",
}
"""Endpoints without a name in the conventions keep their own."""
PROVIDERS: Final[Mapping[Dialect, str]] = {
    "openai-platform": "openai",
    "azure-openai": "azure.ai.openai",
    "mistral": "mistral_ai",
}
"""The same for dialects."""


class TracedAdmission(Admission):
    def __init__(self, telemetry: Telemetry, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._telemetry = telemetry

    async def admit(self, call: PaidCall, quote: Quote) -> Mapping[str, Any] | None:
        with self._telemetry.span("admit") as span:
            found = await super().admit(call, quote)
            span.set_attribute("tollgate.granted", found is None)
            return found


class TracedFlow(Flow):
    def __init__(self, telemetry: Telemetry, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._telemetry = telemetry
        meter = telemetry.meter
        self._seconds = meter.create_histogram("gen_ai.client.operation.duration", "s")
        self._seconds_to_first = meter.create_histogram("gen_ai.client.operation.time_to_first_chunk", "s")
        self._tokens = meter.create_histogram("gen_ai.client.token.usage", "{token}")
        self._charges = meter.create_counter("tollgate.charge", "{nano}", "What orgs were charged.")

    async def run(self, call: PaidCall, scope: Scope, receive: Receive, send: Send) -> None:
        """The gate has done its work when this begins: the key is read, and the body."""
        now = time.time_ns()
        self._telemetry.tracer.start_span("gate", start_time=now - _nanoseconds(call)).end(now)
        await super().run(call, scope, receive, send)

    async def _send_and_relay(self, call: PaidCall, answer: AnswerToClient) -> None:
        asked = _asked(call)
        began, sent_ms = time.time_ns() - _nanoseconds(call), call.elapsed_ms
        with self._telemetry.span(
            f"{asked['gen_ai.operation.name']} {call.ask.model}", SpanKind.CLIENT, **asked
        ) as span:
            try:
                await super()._send_and_relay(call, cast("AnswerToClient", _Relayed(answer, self._telemetry)))
            finally:
                _tell(span, call, began, sent_ms)
                self._measure(call, sent_ms)

    async def _settle(self, call: PaidCall, answer: AnswerToClient) -> Settled | None:
        with self._telemetry.span("settle") as span:
            settled = await super()._settle(call, answer)
            charge = (settled or {}).get("charge_nanos")
            outcome = logs.noted().get("outcome")
            span.set_attributes(known({"tollgate.outcome": outcome, "tollgate.charge_nanos": charge}))
            self._charges.add(charge or 0, _of_metric(call))
            return settled

    def _measure(self, call: PaidCall, sent_ms: int) -> None:
        names = _of_metric(call)
        self._seconds.record((call.elapsed_ms - sent_ms) / 1000, names)
        if call.first_token_ms is not None:
            self._seconds_to_first.record((call.first_token_ms - sent_ms) / 1000, names)
        for kind, count in _usage(call).items():
            if count is not None:
                self._tokens.record(count, {**names, "gen_ai.token.type": kind})


class _Relayed:
    """An answer whose relay is a span."""

    def __init__(self, answer: AnswerToClient, telemetry: Telemetry) -> None:
        self._answer = answer
        self._telemetry = telemetry

    async def relay(self, reply: AnyAnswer) -> None:
        with self._telemetry.span("relay"):
            await self._answer.relay(reply)


def _nanoseconds(call: PaidCall) -> int:
    """Since its arrival."""
    return int((call.clock() - call.started) * NANOSECONDS)


def _asked(call: PaidCall) -> dict[str, Any]:
    ask = call.ask
    return {
        "gen_ai.operation.name": OPERATIONS.get(ask.endpoint, ask.endpoint),
        "gen_ai.request.model": ask.model,
        "gen_ai.request.stream": ask.stream,
        "gen_ai.request.max_tokens": ask.bound,
        "tollgate.paid_request_id": call.id,
        "tollgate.org_id": call.grant.org_id,
    }


def _tell(span: Span, call: PaidCall, began: int, sent_ms: int) -> None:
    """What is known when the answer has ended. `began` is when the call arrived."""
    first_ms, usage = call.first_token_ms, _usage(call)
    if first_ms is not None:
        span.add_event("first_token", timestamp=began + first_ms * NANOSECONDS_OF_A_MILLISECOND)
    told = {
        **_of_metric(call),
        "gen_ai.response.model": call.tally.model,
        "gen_ai.response.id": call.generation_id,
        "gen_ai.response.finish_reasons": list(call.tally.finish_reasons.values()) or None,
        "gen_ai.response.time_to_first_chunk": None if first_ms is None else (first_ms - sent_ms) / 1000,
        "gen_ai.usage.input_tokens": usage["input"],
        "gen_ai.usage.output_tokens": usage["output"],
    }
    span.set_attributes(known(told))
    if error := _error(call):
        span.set_status(Status(StatusCode.ERROR, error))


def _of_metric(call: PaidCall) -> dict[str, Any]:
    dialect = call.reply.route.upstream.dialect if call.reply else None
    return known(
        {
            "gen_ai.operation.name": OPERATIONS.get(call.ask.endpoint, call.ask.endpoint),
            "gen_ai.request.model": call.ask.model,
            "gen_ai.provider.name": PROVIDERS.get(dialect, dialect) if dialect else None,
            "error.type": _error(call),
        }
    )


def _error(call: PaidCall) -> str | None:
    """Our code, or the status of an upstream's own error."""
    if call.failure:
        return call.failure.code
    return str(call.reply.status) if call.reply and call.reply.refused else None


def _usage(call: PaidCall) -> dict[str, int | None]:
    stated = call.tally.usage or {}
    counts = {"input": stated.get("prompt_tokens"), "output": stated.get("completion_tokens")}
    return {kind: count if isinstance(count, int) else None for kind, count in counts.items()}
