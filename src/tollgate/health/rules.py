"""What the results of the checks mean."""

from collections.abc import Mapping
from typing import Literal

Verdict = Literal["healthy", "degraded", "unhealthy"]

BLOCKING = ("unavailable", "behind", "error")
"""States in which a part does not work."""
OPTIONAL = ("redis",)
"""Parts without which everything is served."""


def verdict(database: str, openrouter: str) -> Verdict:
    """Without the database nothing can be served; without OpenRouter our own upstreams still answer."""
    if database in BLOCKING:
        return "unhealthy"
    return "degraded" if openrouter in BLOCKING else "healthy"


def failing(parts: Mapping[str, str]) -> list[str]:
    return [name for name, state in parts.items() if state in BLOCKING and name not in OPTIONAL]
