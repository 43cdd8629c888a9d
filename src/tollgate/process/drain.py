"""When a server is told to stop, requests under way may go on for a while, and then end with ServerRestarting."""

import asyncio
from types import TracebackType
from typing import Self

from tollgate.core.errors import ServerRestarting


class Drain:
    def __init__(self) -> None:
        self.is_over = False
        self.under_way: set[Bounded] = set()

    def end_all(self) -> None:
        """Ends every block under way, and every block that begins later."""
        self.is_over = True
        for block in self.under_way:
            block.end()

    def bounds(self) -> "Bounded":
        """`with drain.bounds():` raises ServerRestarting inside the block when the drain is over."""
        return Bounded(self)


class Bounded:
    """One block. An asyncio.timeout that never fires would cost ten times as much."""

    def __init__(self, drain: Drain) -> None:
        self._drain = drain

    def __enter__(self) -> Self:
        if self._drain.is_over:
            raise ServerRestarting
        task = asyncio.current_task()
        assert task  # noqa: S101
        self._task, self._cancelling = task, task.cancelling()
        self._drain.under_way.add(self)
        return self

    def end(self) -> None:
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._drain.under_way.discard(self)
        if not self._drain.is_over:
            return
        if self._task.uncancel() <= self._cancelling and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise ServerRestarting from None
