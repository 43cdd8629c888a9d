"""Signals that tell this process to stop, and work that they must not interrupt halfway."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def deferred(react: Callable[[], None] = lambda: None) -> Iterator[None]:
    """A signal to stop that arrives in the block takes effect after it. Until then it calls `react`."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread handles signals
        yield
        return
    arrived: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        arrived.append(number)
        react()

    handlers = {number: signal.signal(number, note) for number in STOPS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for first in arrived[:1]:
            signal.raise_signal(first)


def run(work: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run(), but a signal to stop cancels the work, and takes effect after it. If a handler raised an
    exception while the event loop runs, it could come in the C code of a library, which loses it or crashes."""
    tasks: list[asyncio.Task[Any]] = []

    def cancel() -> None:
        for task in tasks:
            if not task.done():
                task.get_loop().call_soon_threadsafe(task.cancel)  # wakes the loop up, too

    async def cancellable() -> T:
        if task := asyncio.current_task():
            tasks.append(task)
        return await work

    with deferred(cancel):
        return asyncio.run(cancellable())
