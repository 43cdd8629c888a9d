"""Counts the requests of this process for /metrics: by method, route and status, by error code, and by duration.

Labels are bounded: routes are templates, and other methods than HTTP's own count as `other`.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
NO_ROUTE = "none"
OTHER = "other"
BOUNDS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Exemplar(NamedTuple):
    """A request that is in the trace of this id."""

    trace_id: str
    seconds: float
    at: float


class Durations:
    """How many durations fall into each bucket, and their sum."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_SECONDS) + 1)
        self.total_seconds = 0.0
        self.exemplars: dict[int, Exemplar] = {}
        """The last traced one of each bucket; none where no traces are sent."""

    def add(self, seconds: float) -> None:
        self.counts[bucket_of(seconds)] += 1
        self.total_seconds += seconds


def bucket_of(seconds: float) -> int:
    return bisect_left(BOUNDS_SECONDS, seconds)


class RequestCounts:
    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.errors: Counter[str] = Counter()
        self.limits: Counter[str] = Counter()
        self.durations: defaultdict[str, Durations] = defaultdict(Durations)

    def count(self, method: str, route: str | None, status: int, seconds: float, facts: Mapping[str, Any]) -> None:
        """`facts` are those of the log line."""
        named = route or NO_ROUTE
        self.requests[method if method in METHODS else OTHER, named, status] += 1
        self.durations[named].add(seconds)
        if "error_code" in facts:
            self.errors[facts["error_code"]] += 1
        if "limit" in facts:
            self.limits[facts["limit"]] += 1
