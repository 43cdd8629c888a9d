"""Hashes passwords with Argon2id, as OWASP advises: 19 MiB, two passes, one lane, which is 20 ms of a core.

Hashes are made in threads, two at a time, so that sign-ins take neither all cores nor the memory.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from tollgate.core.errors import ServerBusy
from tollgate.sessions.rules import normal

if TYPE_CHECKING:
    from argon2 import PasswordHasher

PASSES = 2
KIBIBYTES = 19 * 1024
LANES = 1
MOST_AT_ONCE = 2
MOST_WAITING = 100
"""About a second of work."""
OF_NOBODY = "$argon2id$v=19$m=19456,t=2,p=1$bm8tc3VjaC11c2VyLTE2Yg$JMgbAJWXpARrxHfqXkCgmUSt38TG+xd/94dZTaNxxgk"
"""What is checked where there is no password, so that the time of the answer does not tell whether there is one."""

Made = TypeVar("Made")


class Passwords:
    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="password")
        self._waiting = 0

    async def hash(self, password: str) -> str:
        return await self._work(lambda: _hasher().hash(normal(password)))

    async def is_right(self, password: str, stored: str | None) -> bool:
        """Whether this is the password that was stored as a hash. None is no password, which takes as long."""
        matches = await self._work(lambda: _matches(normal(password), stored or OF_NOBODY))
        return matches and stored is not None

    async def _work(self, work: Callable[[], Made]) -> Made:
        if self._waiting >= MOST_WAITING:
            raise ServerBusy
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1


@cache
def _hasher() -> "PasswordHasher":
    from argon2 import PasswordHasher  # noqa: PLC0415  # only sign-ins with a password need it

    return PasswordHasher(time_cost=PASSES, memory_cost=KIBIBYTES, parallelism=LANES)


def _matches(password: str, stored: str) -> bool:
    from argon2.exceptions import VerifyMismatchError  # noqa: PLC0415

    try:
        return _hasher().verify(stored, password)
    except VerifyMismatchError:
        return False
