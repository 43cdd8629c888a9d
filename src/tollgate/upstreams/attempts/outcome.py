"""How one attempt went: a reply, a refusal to pass on, or a failure."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from tollgate.core import strict_json
from tollgate.core.errors import UpstreamError
from tollgate.core.models import Route
from tollgate.upstreams.attempts.reply import Reply
from tollgate.upstreams.rules import AttemptRecord, Step

MOST_WHY: Final = 200


class Refused(NamedTuple):
    """An upstream's error that the client gets: its own mistake, or a limit. It is complete, and is read as a Reply."""

    route: Route
    status: int
    headers: Mapping[str, str]
    body: bytes
    generation_id: str | None = None
    refused: bool = True

    async def read(self) -> bytes:
        return self.body

    async def close(self) -> None:
        """Nothing is open."""


class Failure(NamedTuple):
    """Why an attempt failed, and what may follow."""

    step: Step
    error: UpstreamError
    why: str
    """For the operator: it names no address, and of what the upstream sent at most a content type."""
    refused: Refused | None = None
    """The upstream's own error, where it says more than ours."""
    retry_after: float | None = None
    status: int | None = None
    """The upstream's HTTP status, where it sent one."""


Answered = Reply | Refused
Outcome = Answered | Failure


def recorded(outcome: Outcome, route: Route, seconds: float) -> AttemptRecord:
    made = AttemptRecord(route.upstream.id, route.model, "answered", round(seconds * 1000))
    if isinstance(outcome, Reply):
        return made
    if isinstance(outcome, Refused):
        return made._replace(outcome="refused", status=outcome.status)
    return made._replace(
        outcome="failed",
        status=outcome.status,
        error_code=outcome.error.code,
        why=strict_json.printable(outcome.why, MOST_WHY),
    )
