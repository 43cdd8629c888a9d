"""How far a download is: bytes, rate, time left."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

RATE_SECONDS: Final = 10.0
LEAST_SECONDS: Final = 0.05
REPORT_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class Progress:
    """Of all files of a download together; `file` is the one that is coming."""

    file: str
    bytes_done: int
    bytes_total: int
    bytes_per_second: float
    seconds_left: float | None


class Meter:
    """Counts bytes, and says at what rate they came in the last seconds."""

    def __init__(self, total: int, report: Callable[[Progress], None]) -> None:
        self._total, self._report = total, report
        self._done = 0
        self._came: deque[tuple[float, int]] = deque()
        self._reported = 0.0

    def found(self, count: int) -> None:
        """What was there before. Negative for what must be fetched again."""
        self._done += count

    def came(self, file: str, count: int) -> None:
        now = time.monotonic()
        self._done += count
        self._came.append((now, count))
        while self._came[0][0] < now - RATE_SECONDS:
            self._came.popleft()
        if now - self._reported >= REPORT_SECONDS or self._done >= self._total:
            self._reported = now
            self._report(self._progress(file, now - self._came[0][0]))

    def _progress(self, file: str, seconds: float) -> Progress:
        rate = sum(count for _, count in self._came) / seconds if seconds > LEAST_SECONDS else 0.0
        left = (self._total - self._done) / rate if rate else None
        return Progress(file, self._done, self._total, rate, left)
