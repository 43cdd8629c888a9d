"""Clocks. Code whose decisions depend on time takes one as an argument, so that tests need not wait."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

Monotonic = Callable[[], float]
"""Seconds since an arbitrary moment; never goes back."""

monotonic: Monotonic = time.monotonic


def now() -> datetime:
    """The time of day, to show to people. What concerns money goes by the database's clock."""
    return datetime.now(UTC)
