"""The traffic of one deployment: what the ingress counts. Draining, idleness and demand are decided by it."""

import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Final

from tollgate.process.clock import Monotonic

REMEMBERED: Final = 256
"""Requests whose times are remembered for percentiles."""


class Traffic:
    def __init__(self, clock: Monotonic) -> None:
        self._clock = clock
        self.in_flight = 0
        self.waiting = 0
        """For the model to load."""
        self.used_at = clock()
        self.passed_at = clock()
        """When the last bytes of an answer passed."""
        self._first_bytes: deque[float] = deque(maxlen=REMEMBERED)
        self._latencies: deque[float] = deque(maxlen=REMEMBERED)

    @property
    def is_idle(self) -> bool:
        return not self.in_flight and not self.waiting

    @contextlib.contextmanager
    def flight(self) -> Iterator["Flight"]:
        self.in_flight += 1
        flight = Flight(self._clock)
        try:
            yield flight
        finally:
            self.in_flight -= 1
            self.used_at = self._clock()
            if flight.first_bytes is not None:
                self._first_bytes.append(flight.first_bytes)
                self._latencies.append(self.used_at - flight.began)

    @contextlib.contextmanager
    def wait(self) -> Iterator[None]:
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1
            self.used_at = self._clock()

    def passed(self, flight: "Flight") -> None:
        self.passed_at = self._clock()
        if flight.first_bytes is None:
            flight.first_bytes = self.passed_at - flight.began

    def percentiles(self) -> dict[str, float | None]:
        return {
            "ttft_p50_ms": percentile(self._first_bytes, 0.5),
            "ttft_p95_ms": percentile(self._first_bytes, 0.95),
            "latency_p50_ms": percentile(self._latencies, 0.5),
            "latency_p95_ms": percentile(self._latencies, 0.95),
        }


class Flight:
    """One request that an engine answers."""

    def __init__(self, clock: Monotonic) -> None:
        self.began = clock()
        self.first_bytes: float | None = None
        """Seconds until the first bytes of the answer."""


def percentile(seconds: deque[float], part: float) -> float | None:
    """In milliseconds, by the nearest rank."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    return round(1000 * ordered[min(int(part * len(ordered)), len(ordered) - 1)], 1)
