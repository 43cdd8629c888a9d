"""Runs work on large bodies in threads, so that it does not block the event loop.

A thread keeps Python's lock while it runs C code, so this is not enough: `core/strict_json.py` also limits the
work on a body.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

from tollgate.core.strict_json import SLICE_BYTES

MOST_AT_ONCE = 2

Made = TypeVar("Made")
Arguments = TypeVarTuple("Arguments")

_threads = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="large-body")


async def work(body_bytes: int, function: Callable[[*Arguments], Made], *arguments: *Arguments) -> Made:
    """The function's result. The function runs here for a small body, and in a thread for a large one."""
    if body_bytes <= SLICE_BYTES:
        return function(*arguments)
    return await asyncio.get_running_loop().run_in_executor(_threads, function, *arguments)
