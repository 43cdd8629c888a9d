"""Deadlines for the parts of a response, at a quarter of the cost of asyncio.timeout (docs/decisions/0012).

asyncio.timeout makes and cancels a timer for each wait. Patience has one timer for all waits of a response: when it
fires, it checks whether the current wait is late, and otherwise sets itself again.
"""

import asyncio
from types import TracebackType
from typing import Self


class Patience:
    """`with patience.until(due):` raises TimeoutError when the block takes longer. Only one block at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._waiting: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._is_late = False

    def until(self, due: float) -> Self:
        """`due` is a time of the event loop's clock."""
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
            self._timer = self._loop.call_at(self._due, self._fire)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task, self._waiting = self._waiting, None
        if self._is_late and task is not None:
            self._is_late = False
            if task.uncancel() <= self._cancelling and kind is not None and issubclass(kind, asyncio.CancelledError):
                raise TimeoutError from error

    def _fire(self) -> None:
        self._timer = None
        if self._waiting is None:
            return  # the next wait sets it again
        if self._loop.time() < self._due:
            self._timer = self._loop.call_at(self._due, self._fire)
        else:
            self._is_late = True
            self._waiting.cancel()
