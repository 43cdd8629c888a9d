"""What the findings mean."""

from collections.abc import Mapping
from typing import Literal

Verdict = Literal["healthy", "degraded", "unhealthy"]

BLOCKING = ("unavailable", "behind", "error")
"""Findings with which a part cannot do its work."""


def verdict(database: str, openrouter: str) -> Verdict:
    """Without the database nothing can be paid for; without OpenRouter our own upstreams still answer."""
    if database in BLOCKING:
        return "unhealthy"
    return "degraded" if openrouter in BLOCKING else "healthy"


def failing(parts: Mapping[str, str]) -> list[str]:
    return [name for name, state in parts.items() if state in BLOCKING]
