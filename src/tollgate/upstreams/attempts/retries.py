"""Asking the same upstream again, by tenacity: a little later, not all at the same moment, and not for long."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, Final

from tollgate.upstreams import rules
from tollgate.upstreams.attempts.outcome import Failure, Outcome

if TYPE_CHECKING:
    from tenacity import RetryCallState

MOST_TIMES: Final = 3
"""The first included."""


async def repeated(
    first: Failure,
    once: Callable[[], Awaitable[Outcome]],
    *,
    may_repeat: Callable[[], bool],
    until: float,
    randomness: Callable[[], float],
    sleep: Callable[[float], Awaitable[Any]],
) -> Outcome:
    """The first time is behind us: tenacity costs more than all else here, and the usual call needs no second one."""
    from tenacity import AsyncRetrying, retry_if_result  # noqa: PLC0415  # nor need a cold start import it

    async def first_time() -> Outcome:
        return first

    times = chain((first_time,), repeat(once))

    async def next_time() -> Outcome:
        return await next(times)()

    def wait(state: "RetryCallState") -> float:
        return rules.pause(state.attempt_number - 1, _failure(state).retry_after, randomness())

    def stop(state: "RetryCallState") -> bool:
        left = until - asyncio.get_running_loop().time()
        is_long = state.upcoming_sleep > min(rules.PATIENCE_SECONDS, left)
        return state.attempt_number >= MOST_TIMES or is_long or not may_repeat()

    repeating = AsyncRetrying(
        sleep=sleep,
        wait=wait,
        stop=stop,
        retry=retry_if_result(_is_safe_again),
        retry_error_callback=_failure,
    )
    return await repeating(next_time)


def _is_safe_again(outcome: Outcome) -> bool:
    return isinstance(outcome, Failure) and outcome.step == "again"


def _failure(state: "RetryCallState") -> Failure:
    assert state.outcome  # noqa: S101  # tenacity asks after it has tried
    failure: Failure = state.outcome.result()
    return failure
