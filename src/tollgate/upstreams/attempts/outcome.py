"""What came of asking one upstream."""

from collections.abc import Mapping
from typing import NamedTuple

from tollgate.core.errors import UpstreamError
from tollgate.core.models import Route
from tollgate.upstreams.attempts.exchange import Exchange
from tollgate.upstreams.rules import Refusal, Step


class Refused(NamedTuple):
    """An upstream's no, all of it."""

    route: Route
    refusal: Refusal
    headers: Mapping[str, str]


class Failure(NamedTuple):
    """Why one attempt came to nothing, and what may follow."""

    step: Step
    error: UpstreamError
    refused: Refused | None = None
    """Its own no, where that says more than ours."""
    retry_after: float | None = None


Outcome = Exchange | Refused | Failure
