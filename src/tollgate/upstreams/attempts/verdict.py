"""Decides about an attempt: whether the upstream is at fault, which call may follow, and what the client gets."""

import asyncio
from http import HTTPStatus
from typing import Final

from tollgate.core.errors import (
    ServerBusy,
    UpstreamBusy,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbled,
    UpstreamKeyRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from tollgate.upstreams import rules
from tollgate.upstreams.address_guard import Forbidden
from tollgate.upstreams.attempts.attempt import Attempt
from tollgate.upstreams.attempts.live_upstream import FULL_SECONDS
from tollgate.upstreams.attempts.outcome import Failure, Refused
from tollgate.upstreams.rules import (
    ConnectionLost,
    ConnectTimeout,
    NoConnection,
    NotHttp,
    TransportFailed,
    Unreachable,
)
from tollgate.upstreams.transports import Answer

MOST_REFUSAL_BYTES: Final = 1024 * 1024
REFUSAL_SECONDS: Final = 10.0
GAVE_UP: Final = (408, 504, 524)
"""Statuses by which the upstream, or a proxy before it, reports a timeout. The work may have been done."""


def silent(attempt: Attempt, phase: str) -> Failure:
    """No answer in time. A client that needs more than the total deadline is no fault of the upstream."""
    error = UpstreamTimeout(phase=phase, **attempt.facts())
    if phase == "total":
        attempt.live.note("total timeout")
        attempt.abandoned()
        return Failure("stop", error, "total timeout")
    attempt.failed(f"{phase} timeout")
    return Failure("stop" if attempt.live.is_paid else "elsewhere", error, f"{phase} timeout")


def forbidden(attempt: Attempt, error: Forbidden) -> Failure:
    attempt.live.refuses_us(str(error))
    attempt.abandoned()
    return Failure("elsewhere", UpstreamUnavailable(), str(error))


def unanswered(attempt: Attempt, failure: TransportFailed) -> Failure:
    why = str(failure)
    if isinstance(failure, NoConnection):
        attempt.lacks_a_connection(why)
        return Failure("elsewhere", ServerBusy(), why)
    attempt.failed(why, provoked=not isinstance(failure, Unreachable))
    if isinstance(failure, ConnectTimeout):
        return Failure("elsewhere", UpstreamTimeout(phase="connect", **attempt.facts()), why)
    if isinstance(failure, ConnectionLost):
        return Failure("stop" if attempt.live.is_paid else "again", UpstreamCut(**attempt.facts()), why)
    if isinstance(failure, NotHttp):
        return Failure("stop" if attempt.live.is_paid else "elsewhere", UpstreamGarbled(**attempt.facts()), why)
    return Failure("again", UpstreamUnavailable(), why)


async def garbled(attempt: Attempt, answer: Answer) -> Failure:
    """Neither an error nor a reply: a redirect, an empty body, or another content type."""
    await answer.close()
    why = f"HTTP {answer.status}, {answer.headers.get('content-type', 'of no type')[:100]}"
    attempt.failed(why)
    generation_id = rules.generation_id(answer.headers, attempt.route.upstream.dialect)
    error = UpstreamGarbled(**attempt.facts(generation_id))
    return Failure("stop" if attempt.live.is_paid else "elsewhere", error, why, status=answer.status)


def refused(attempt: Attempt, answer: Answer, body: bytes) -> Refused | Failure:
    live, dialect = attempt.live, attempt.route.upstream.dialect
    refusal = live.dialect.refusal(answer.status, answer.headers.get("content-type", ""), body)
    step = rules.step_after(refusal.status, dialect)
    if rules.is_fault(refusal.status):
        attempt.failed(f"HTTP {refusal.status}")
    else:
        attempt.answered()
    headers = {**rules.passed_down(answer.headers), "content-type": "application/json"}
    passed_on = Refused(attempt.route, refusal.status, headers, refusal.body)
    is_ours = refusal.is_ours or rules.is_our_trouble(refusal.status, dialect)
    if step == "refuse" and not is_ours:
        return passed_on
    why = f"HTTP {refusal.status}"
    if is_ours:
        if attempt.org_key and refusal.status == HTTPStatus.NOT_FOUND:
            return passed_on  # the key works, and its account has no such model
        if attempt.org_key:
            facts = attempt.facts() | {"upstream_status": refusal.status}
            return Failure("stop", UpstreamKeyRefused(**facts), why, status=refusal.status)
        live.refuses_us(why)
        return Failure("elsewhere", UpstreamUnavailable(), why, status=refusal.status)
    says_more = refusal.by_upstream or refusal.status == 429
    error = _error_for(refusal.status, attempt)
    kept = passed_on if says_more else None
    return Failure(step, error, why, kept, rules.retry_after(answer.headers), refusal.status)


def _error_for(status: int, attempt: Attempt) -> UpstreamError:
    """Ours, for an error whose own message cannot be passed on."""
    if status in GAVE_UP:
        return UpstreamTimeout(phase="upstream", **attempt.facts())
    return busy(FULL_SECONDS) if status in (503, 529) else UpstreamUnavailable()


async def body_of(answer: Answer, until: float) -> bytes:
    """The body of an error; empty if it is compressed, too large, or does not come soon."""
    if answer.headers.get("content-encoding", "identity") != "identity":
        await answer.close()
        return b""
    pieces = bytearray()
    due = min(until, asyncio.get_running_loop().time() + REFUSAL_SECONDS)
    try:
        async with asyncio.timeout_at(due):
            while len(pieces) <= MOST_REFUSAL_BYTES and (piece := await answer.piece()):
                pieces += piece
    except (TimeoutError, TransportFailed):
        pieces.clear()
    finally:
        await answer.close()
    return bytes(pieces) if len(pieces) <= MOST_REFUSAL_BYTES else b""


def busy(seconds: int) -> UpstreamBusy:
    error = UpstreamBusy(retry_after=seconds)
    error.headers = {"retry-after": str(seconds)}
    return error
