"""One call at one upstream, as it is told how that goes."""

from typing import Any, NamedTuple

from tollgate.core.models import Route
from tollgate.upstreams.attempts.live_upstream import LiveUpstream, log
from tollgate.upstreams.org_shares import Shares


class Attempt(NamedTuple):
    station: LiveUpstream
    route: Route
    org_id: str
    shares: Shares

    def waits_for_a_checkup(self) -> bool:
        return self.station.waits_for_a_checkup(self.route.model, self.org_id)

    def begins(self) -> bool:
        """Whether it may. It must be told how that went: answered, succeeded, failed or abandoned."""
        return self.station.admits(self.route.model, self.org_id)

    def answered(self) -> None:
        self.station.breakers.answered(self.route.model, self.org_id)

    def succeeded(self) -> None:
        self.station.breakers.succeeded(self.route.model, self.org_id)

    def abandoned(self) -> None:
        self.station.breakers.abandoned(self.route.model, self.org_id)

    def failed(self, why: str, *, provoked: bool = True) -> None:
        """A request that was read may have provoked it. Where none was, the upstream is at fault whoever asked."""
        self.station.failed(self.route.model, self.org_id, why, provoked=provoked)

    def lacks_a_connection(self, why: str) -> None:
        """This process had none to spare: the upstream was not asked, and nothing is held against it."""
        self.abandoned()
        log.warning("no_connection", upstream=self.route.upstream.id, why=why)

    def end(self) -> None:
        """After the answer: its slot at the upstream and its part of the org's share are free again."""
        self.station.in_flight -= 1
        self.shares.give_back(self.org_id)

    def may_repeat(self) -> bool:
        return self.station.repeats(self.route.model, self.org_id)

    def facts(self, generation_id: str | None = None) -> dict[str, Any]:
        return facts(self.route, generation_id)


def facts(route: Route, generation_id: str | None = None) -> dict[str, Any]:
    """Whoever settles the call must know who may have worked for it, and under which id."""
    return {"upstream": route.upstream.id} | ({"generation_id": generation_id} if generation_id else {})
