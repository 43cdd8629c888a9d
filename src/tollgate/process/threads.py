"""Work on large bodies is done in threads beside the event loop, so that other requests go on meanwhile.

A thread holds Python's lock while it runs C code, so this alone would not keep the loop free: `core/strict_json.py`
bounds the work on a body.
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
    """What the function makes. It runs here for a small body, and beside the loop for a large one."""
    if body_bytes <= SLICE_BYTES:
        return function(*arguments)
    return await asyncio.get_running_loop().run_in_executor(_threads, function, *arguments)
