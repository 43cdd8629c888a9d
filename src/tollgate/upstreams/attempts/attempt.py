"""One call to one upstream, and the reports on how it went."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import SecretStr

from tollgate.core.endpoints import ENDPOINTS
from tollgate.core.models import Route
from tollgate.upstreams import rules
from tollgate.upstreams.attempts.live_upstream import LiveUpstream, log
from tollgate.upstreams.org_shares import Shares
from tollgate.upstreams.rules import AttemptRecord, UpstreamCall
from tollgate.upstreams.transports import Transport


class Connections(NamedTuple):
    """A transport, and how each org shares in its connections."""

    transport: Transport
    shares: Shares


class Attempt(NamedTuple):
    live: LiveUpstream
    route: Route
    call: UpstreamCall
    connections: Connections
    until: float
    """When the total deadline of the call ends, by the loop's clock."""

    @property
    def org_key(self) -> SecretStr | None:
        """The org's own key for this upstream, and no other."""
        return self.call.org_keys.get(self.route.upstream.id)

    @property
    def is_usable(self) -> bool:
        return self.live.is_allowed if self.org_key else self.live.is_usable

    def needs_checkup(self) -> bool:
        """Health checks are made with our key, so without one the call itself is the check."""
        return self.live.needs_checkup(self.route.model, self.call.org_id) and self.live.is_usable

    def begin(self) -> bool:
        """Whether it may. Then one of answered, succeeded, failed or abandoned must report on it."""
        if not self.is_usable or self.needs_checkup():
            return False
        return self.live.admits(self.route.model, self.call.org_id)

    def skipped(self) -> AttemptRecord:
        why = self.live.why_not(self.route.model, self.call.org_id, is_usable=self.is_usable)
        return AttemptRecord(self.route.upstream.id, self.route.model, "skipped", why=why)

    def can_read(self, headers: Mapping[str, str]) -> bool:
        """Whether they announce what was asked for."""
        ask = self.call.ask
        as_bytes = ENDPOINTS[ask.endpoint].answers_bytes
        return rules.is_readable(headers, stream=ask.stream, as_bytes=as_bytes, as_text=ask.as_text)

    def was_sent(self) -> None:
        self.call.note_at_work(self.route)

    def answered(self) -> None:
        self.live.breakers.answered(self.route.model, self.call.org_id)

    def succeeded(self) -> None:
        self.live.breakers.succeeded(self.route.model, self.call.org_id)

    def abandoned(self) -> None:
        self.live.breakers.abandoned(self.route.model, self.call.org_id)

    def failed(self, why: str, *, provoked: bool = True) -> None:
        """`provoked`: the upstream read the request, so the request may have caused the failure."""
        self.live.failed(self.route.model, self.call.org_id, why, provoked=provoked)

    def lacks_a_connection(self, why: str) -> None:
        """This process had no free connection. That does not count against the upstream."""
        self.abandoned()
        log.warning("no_connection", upstream=self.route.upstream.id, why=why)

    def end(self) -> None:
        """After the answer: frees its slot at the upstream, and its part of the org's share."""
        self.live.in_flight -= 1
        self.connections.shares.give_back(self.call.org_id)

    def may_repeat(self) -> bool:
        return self.live.may_repeat(self.route.model, self.call.org_id)

    def facts(self, generation_id: str | None = None) -> dict[str, Any]:
        return facts(self.route, generation_id)


def facts(route: Route, generation_id: str | None = None) -> dict[str, Any]:
    """The upstream that may have worked for the call, and under which id: the settlement needs both."""
    return {"upstream": route.upstream.id} | ({"generation_id": generation_id} if generation_id else {})
