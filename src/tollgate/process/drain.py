"""A server that is told to stop lets the requests under way go on for a while, and then ends them."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from tollgate.core.errors import ServerRestarting


class Drain:
    def __init__(self) -> None:
        self._has_rung = False
        self._under_way: set[Callable[[], None]] = set()

    def end_all(self) -> None:
        """Ends every block that is bounded, and each that begins from now on."""
        self._has_rung = True
        for end in tuple(self._under_way):
            end()

    @contextlib.contextmanager
    def bounds(self) -> Iterator[None]:
        """Raises ServerRestarting inside the block when it rings."""
        if self._has_rung:
            raise ServerRestarting
        task = asyncio.current_task()
        assert task  # noqa: S101
        cancelling = task.cancelling()
        was_ended = False

        def end() -> None:
            nonlocal was_ended
            was_ended = task.cancel()

        self._under_way.add(end)
        try:
            yield
        except asyncio.CancelledError:
            if was_ended and task.uncancel() <= cancelling:
                raise ServerRestarting from None
            raise
        finally:
            self._under_way.discard(end)
