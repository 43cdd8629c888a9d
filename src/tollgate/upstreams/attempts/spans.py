"""The span of each attempt, in the place of plain attempts where traces are sent. Servers of our own get its id."""

from typing import Any, Final

from opentelemetry.trace import SpanKind, Status, StatusCode

from tollgate.core.endpoints import OWN
from tollgate.core.models import SANDBOX, Upstream
from tollgate.process.telemetry import TRACE_HEADERS, Telemetry, known, trace_headers
from tollgate.upstreams.attempts import outcome as outcomes
from tollgate.upstreams.attempts.attempt import Attempt
from tollgate.upstreams.attempts.live_upstream import LiveUpstream
from tollgate.upstreams.attempts.outcome import Outcome
from tollgate.upstreams.attempts.reply import Reply
from tollgate.upstreams.attempts.routes_in_turn import Attempts
from tollgate.upstreams.rules import Body

ANSWERED: Final = "answered"


class TracedAttempts(Attempts):
    def __init__(self, telemetry: Telemetry, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._telemetry = telemetry

    def live(self, upstream: Upstream) -> LiveUpstream:
        live = super().live(upstream)
        if self._is_told(upstream) and TRACE_HEADERS[0] not in live.passed_on:
            live.passed_on += TRACE_HEADERS
        return live

    async def _once(self, attempt: Attempt, body: Body) -> Outcome:
        upstream = attempt.route.upstream
        names = {"tollgate.upstream": upstream.id, "tollgate.upstream_model": attempt.route.model}
        with self._telemetry.span("attempt", SpanKind.CLIENT, **names) as span:
            headers = {**attempt.call.headers, **trace_headers()}
            sent = attempt._replace(call=attempt.call._replace(headers=headers))
            outcome = await super()._once(sent, body)
            record = outcomes.recorded(outcome, attempt.route, 0)
            status = outcome.status if isinstance(outcome, Reply) else record.status
            verdict = {"tollgate.verdict": record.outcome, "tollgate.why": record.why, "error.type": record.error_code}
            span.set_attributes(known({**verdict, "http.response.status_code": status}))
            if record.outcome == "failed":
                span.set_status(Status(StatusCode.ERROR, record.why))
            return outcome

    def _is_told(self, upstream: Upstream) -> bool:
        """Whether the upstream gets the id of the attempt's span."""
        return self._telemetry.trace_vendors or (upstream.dialect in OWN and upstream.id != SANDBOX)
