"""The headers that report limits, as OpenAI's clients read them. Postgres decides the limits.

`reset` is the time until the whole limit is free again if nothing else is sent. Since windows slide, that can be up to
twice their length.
"""

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


def settled(headers: Mapping[str, str], tokens: int) -> Mapping[str, str]:
    """The headers of an admitted request when it has given back so many of the tokens that it had reserved."""
    if not tokens or "x-ratelimit-remaining-tokens" not in headers:
        return headers
    limit, left = (int(headers[f"x-ratelimit-{what}-tokens"]) for what in ("limit", "remaining"))
    return {**headers, "x-ratelimit-remaining-tokens": str(min(limit, max(0, left + tokens)))}


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
    minutes, seconds = divmod(_seconds(milliseconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def _seconds(milliseconds: int) -> int:
    """Rounded up."""
    return -(-milliseconds // 1000)
