"""How one attempt went: a reply, a refusal to pass on, or a failure."""

from collections.abc import Mapping
from typing import NamedTuple

from tollgate.core.errors import UpstreamError
from tollgate.core.models import Route
from tollgate.upstreams.attempts.reply import Reply
from tollgate.upstreams.rules import Step


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
    refused: Refused | None = None
    """The upstream's own error, where it says more than ours."""
    retry_after: float | None = None


Answered = Reply | Refused
Outcome = Answered | Failure
