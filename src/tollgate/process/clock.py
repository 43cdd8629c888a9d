"""Time as an argument: what decides by time is given a clock, so tests need not wait."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

Monotonic = Callable[[], float]
"""Seconds that only go forward; their zero means nothing."""

monotonic: Monotonic = time.monotonic


def now() -> datetime:
    """The wall clock, for people to read; the database's own clock decides about money."""
    return datetime.now(UTC)
