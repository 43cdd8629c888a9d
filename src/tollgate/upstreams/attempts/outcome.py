"""What came of asking one upstream."""

from collections.abc import Mapping
from dataclasses import dataclass

from tollgate.core.errors import UpstreamError
from tollgate.core.models import Route
from tollgate.upstreams.attempts.exchange import Exchange
from tollgate.upstreams.rules import Refusal, Step


@dataclass(frozen=True)
class Refused:
    """An upstream's no, all of it."""

    route: Route
    refusal: Refusal
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Failure:
    """Why one attempt came to nothing, and what may follow."""

    step: Step
    error: UpstreamError
    refused: Refused | None = None
    """Its own no, where that says more than ours."""
    retry_after: float | None = None


Outcome = Exchange | Refused | Failure
