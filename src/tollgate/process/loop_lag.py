"""Logs when something blocks the event loop, which delays every request of the process, and the code that did it."""

import asyncio
import contextlib
import math
import operator
import sys
import threading
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

from tollgate.process import logs
from tollgate.process.clock import Monotonic

LIMIT_SECONDS = 0.05
LINE_EVERY_SECONDS = 60.0
DEEPEST = 3
"""How many frames of the blocking code are logged, the innermost first."""

log = logs.source("application")


class LoopLag:
    """A timer of the loop notes the time; a thread looks how long ago that was. Neither costs a request anything."""

    def __init__(
        self, clock: Monotonic, limit_seconds: float = LIMIT_SECONDS, line_every_seconds: float = LINE_EVERY_SECONDS
    ) -> None:
        self.times_blocked = 0
        self.seen: Mapping[str, Any] | None = None
        """The request and the code that block the loop, as the thread last saw them; None when it is not blocked."""
        self._longest: float | None = None
        self._clock = clock
        self._limit = limit_seconds
        self._pause = line_every_seconds
        self._next_line_at = -math.inf
        self._unlogged: list[tuple[float, Mapping[str, Any]]] = []
        """Of each time since the last line: how long, and what was seen."""
        self._beat_at = 0.0
        self._stopped = threading.Event()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Watches the running loop during the block."""
        loop, thread_id = asyncio.get_running_loop(), threading.get_ident()
        self._beat_at = self._clock()
        self._longest = 0.0
        beating = loop.call_later(self._limit, self._beat, loop)
        self._stopped.clear()
        looking = threading.Thread(target=self._look, args=(loop, thread_id), name="loop-lag", daemon=True)
        looking.start()
        try:
            yield
        finally:
            self._stopped.set()
            looking.join()
            beating.cancel()

    def longest_ms(self) -> float | None:
        """The longest delay of the loop that is not forgotten; None where the loop is not watched."""
        return None if self._longest is None else round(self._longest * 1000, 1)

    def forget(self) -> None:
        if self._longest is not None:
            self._longest = 0.0

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._stopped.is_set():
            return
        now = self._clock()
        late = now - self._beat_at - self._limit
        self._beat_at = now
        self._longest = max(self._longest or 0.0, late)
        if late > self._limit or self.seen:
            self.times_blocked += 1
            self._unlogged.append((late, self.seen or {}))
            self.seen = None
        if self._unlogged and now >= self._next_line_at:
            self._next_line_at = now + self._pause
            self._log()
        loop.call_later(self._limit, self._beat, loop)

    def _log(self) -> None:
        longest, seen = max(self._unlogged, key=operator.itemgetter(0))
        log.info("loop_blocked", blocked_ms=round(longest * 1000), times=len(self._unlogged), **seen)
        self._unlogged.clear()

    def _look(self, loop: asyncio.AbstractEventLoop, thread_id: int) -> None:
        while not self._stopped.wait(self._limit):
            if self._clock() - self._beat_at > 2 * self._limit:
                self.seen = {**_request(loop), "held_by": _where(sys._current_frames().get(thread_id))}


def _request(loop: asyncio.AbstractEventLoop) -> dict[str, Any]:
    """The notes of the request whose task runs. Python 3.11 has no way to get a task's context."""
    context = getattr(asyncio.current_task(loop), "get_context", None)
    return logs.noted(context()) if context else {}


def _where(frame: FrameType | None) -> list[str]:
    named: list[str] = []
    while frame and len(named) < DEEPEST:
        module = frame.f_globals.get("__name__", "")
        named.append(f"{module}.{frame.f_code.co_name}:{frame.f_lineno}")
        frame = frame.f_back
    return named
