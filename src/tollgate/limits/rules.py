"""The headers that report limits. Postgres decides the limits."""

from collections.abc import Mapping
from typing import Any

MEASURES = ("requests", "tokens")


def remaining(limits: Mapping[str, Any] | None) -> dict[str, str]:
    """The headers of an admitted request: the tightest window of requests and of tokens."""
    headers: dict[str, str] = {}
    for measure in MEASURES:
        window = (limits or {}).get(measure)
        if window:
            headers |= _of(measure, window["limit"], window["remaining"], window["reset_ms"])
    return headers


def refused(facts: Mapping[str, Any]) -> dict[str, str]:
    """The headers of a refusal: when to retry, or that a retry is pointless."""
    wait = facts.get("retry_after_ms")
    if wait is None:
        return {"x-should-retry": "false"}
    again = {"retry-after": str(_seconds(wait)), "retry-after-ms": str(wait)}
    return again | _of(facts["measure"], facts["limit"], 0, wait)


def _of(measure: str, limit: int, left: int, reset_ms: int) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{measure}": str(limit),
        f"x-ratelimit-remaining-{measure}": str(left),
        f"x-ratelimit-reset-{measure}": f"{_seconds(reset_ms)}s",
    }


def _seconds(milliseconds: int) -> int:
    """Rounded up."""
    return -(-milliseconds // 1000)
