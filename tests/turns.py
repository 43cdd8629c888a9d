"""For tests that end in the same minute, hour or day (UTC) as they began: the database's clock cannot be held."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Literal

MARGIN_SECONDS = 60
"""Longer than such a test takes."""
SECONDS = {"minute": 60, "hour": 3600, "day": 86_400}


async def not_at_the_end_of(unit: Literal["hour", "day"]) -> None:
    """Waits for the next hour or day where this one is about to end."""
    left = SECONDS[unit] - datetime.now(UTC).timestamp() % SECONDS[unit]
    if left < MARGIN_SECONDS:
        await asyncio.sleep(left + 0.01)


def within_a_minute(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Runs a test again that failed while a minute began: a window of a minute then counts less than was taken.
    For tests that make people of their own each time."""

    @functools.wraps(test)
    async def run(*given: Any, **named: Any) -> None:
        for _ in range(5):
            began = _minute()
            try:
                return await test(*given, **named)
            except AssertionError:
                if _minute() == began:
                    raise
        return await test(*given, **named)

    return run


def _minute() -> int:
    return int(datetime.now(UTC).timestamp() // 60)
