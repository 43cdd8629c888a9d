"""Calls the same upstream again, with tenacity: after growing, random pauses, and not for long."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeGuard

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
    """The first attempt was made before: most calls need no second one, and do without tenacity."""
    from tenacity import AsyncRetrying, retry_if_result  # noqa: PLC0415

    made: list[Outcome] = [first]

    async def attempt() -> Outcome:
        return made.pop() if made else await once()

    def wait(state: "RetryCallState") -> float:
        return rules.pause(state.attempt_number - 1, _failure(state).retry_after, randomness())

    def stop(state: "RetryCallState") -> bool:
        left = until - asyncio.get_running_loop().time()
        is_long = state.upcoming_sleep > min(rules.PATIENCE_SECONDS, left)
        return state.attempt_number >= MOST_TIMES or is_long or not may_repeat()

    repeating = AsyncRetrying(
        sleep=sleep, wait=wait, stop=stop, retry=retry_if_result(may_follow), retry_error_callback=_failure
    )
    return await repeating(attempt)


def may_follow(outcome: Outcome) -> TypeGuard[Failure]:
    """Whether the same upstream may be called again."""
    return isinstance(outcome, Failure) and outcome.step == "again"


def _failure(state: "RetryCallState") -> Failure:
    assert state.outcome  # noqa: S101  # tenacity calls this after an attempt
    failure: Failure = state.outcome.result()
    return failure
