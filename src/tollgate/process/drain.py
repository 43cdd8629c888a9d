"""When a server is told to stop, requests under way may go on for a while, and then end with ServerRestarting."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tollgate.core.errors import ServerRestarting


class Drain:
    def __init__(self) -> None:
        self._is_over = False
        self._under_way: set[asyncio.Timeout] = set()

    def end_all(self) -> None:
        """Ends every block under way, and every block that begins later."""
        self._is_over = True
        for timeout in self._under_way:
            timeout.reschedule(0)

    @contextlib.asynccontextmanager
    async def bounds(self) -> AsyncIterator[None]:
        """Raises ServerRestarting inside the block when the drain is over."""
        if self._is_over:
            raise ServerRestarting
        timeout = asyncio.timeout(None)
        try:
            async with timeout:
                self._under_way.add(timeout)
                yield
        except TimeoutError:
            if timeout.expired():
                raise ServerRestarting from None
            raise
        finally:
            self._under_way.discard(timeout)
