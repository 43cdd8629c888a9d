"""Waiting for an upstream, but not for ever: asyncio.timeout at a fifth of its price.

Its timer is set once and looks, when it rings, whether anybody has waited too long by now. That costs a piece of a
stream two assignments, where asyncio.timeout makes and cancels a timer for each.
"""

import asyncio
from types import TracebackType
from typing import Self


class Patience:
    """`with patience.until(due):` raises TimeoutError inside when it takes longer. One waits at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._waiting: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._rung = False

    def until(self, due: float) -> Self:
        """By the loop's own clock."""
        self._due = due
        return self

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task  # noqa: S101
        self._waiting, self._cancelling = task, task.cancelling()
        if self._timer is None or self._timer.when() > self._due:
            self.end()
            self._timer = self._loop.call_at(self._due, self._ring)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task, self._waiting = self._waiting, None
        if self._rung and task is not None:
            self._rung = False
            if task.uncancel() <= self._cancelling and kind is not None and issubclass(kind, asyncio.CancelledError):
                raise TimeoutError from error

    def _ring(self) -> None:
        self._timer = None
        if self._waiting is None:
            return  # the next to wait sets it again
        if self._loop.time() < self._due:
            self._timer = self._loop.call_at(self._due, self._ring)
        else:
            self._rung = True
            self._waiting.cancel()
