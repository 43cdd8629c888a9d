"""The headers that report limits, as OpenAI's clients read them. Postgres decides the limits.

`reset` is the time until the whole limit is free again if nothing else is sent. Since windows slide, that can be up to
twice their length.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any


def remaining(limits: Mapping[str, Any] | None, given_back: int = 0) -> dict[str, str]:
    """The headers of an admitted request: the tightest window of requests and of tokens. `given_back`: of the tokens
    that it had reserved, those that it did not use."""
    if not limits:
        return {}
    headers: dict[str, str] = {}
    if window := limits.get("requests"):
        headers = _of("requests", window["limit"], window["remaining"], window["reset_ms"])
    if window := limits.get("tokens"):
        limit, left = window["limit"], window["remaining"]
        left = min(limit, max(0, left + given_back)) if given_back else left
        headers |= _of("tokens", limit, left, window["reset_ms"])
    return headers


def refused(facts: Mapping[str, Any]) -> dict[str, str]:
    """The headers of a refusal: when to retry, or that a retry is pointless."""
    wait = facts.get("retry_after_ms")
    if wait is None:
        return {"x-should-retry": "false"}
    again = {"retry-after": str(_seconds(wait)), "retry-after-ms": str(wait)}
    return again | _of(facts["measure"], facts["limit"], facts["left"], facts["reset_ms"])


def _of(measure: str, limit: int, left: int, reset_ms: int) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{measure}": str(limit),
        f"x-ratelimit-remaining-{measure}": str(left),
        f"x-ratelimit-reset-{measure}": duration(reset_ms),
    }


def duration(milliseconds: int) -> str:
    """As OpenAI writes it, rounded up to a second: 48s, 1m48s, 24h0m0s."""
    return _duration(_seconds(milliseconds))


@lru_cache(1024)
def _duration(seconds: int) -> str:
    """The calls of one second have the same few."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def _seconds(milliseconds: int) -> int:
    """Rounded up."""
    return -(-milliseconds // 1000)
