"""Calls the routes of an upstream call in turn, until one answers.

OpenRouter is never called again for what it may have begun: it has no idempotency, so a repetition is a second paid
generation. That includes a kept-alive connection that turns out closed as the request goes out, since nothing proves
that the request was not read. What our own servers have begun costs nothing, and the next may begin it again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from tollgate.core.errors import UpstreamError, UpstreamUnavailable
from tollgate.core.models import OPENROUTER, SANDBOX, Upstream
from tollgate.process import threads
from tollgate.process.clock import Monotonic
from tollgate.upstreams import rules
from tollgate.upstreams.address_guard import Forbidden, Guard
from tollgate.upstreams.attempts import outcome as outcomes
from tollgate.upstreams.attempts import retries, verdict
from tollgate.upstreams.attempts.attempt import Attempt, Connections
from tollgate.upstreams.attempts.live_upstream import LiveUpstream
from tollgate.upstreams.attempts.outcome import Answered, Failure, Outcome, Refused
from tollgate.upstreams.attempts.reply import Reply
from tollgate.upstreams.health_checks import Checkup
from tollgate.upstreams.org_shares import Shares
from tollgate.upstreams.rules import Body, TransportFailed, UpstreamCall
from tollgate.upstreams.transports import Answer, Transport
from tollgate.upstreams.transports.timeouts import Patience

CHECKUP_SECONDS: Final = 1.0
"""How long a call waits for the health check of an upstream with a half-open breaker, before it takes another route."""


class Attempts:
    def __init__(
        self,
        transport: Transport,
        guard: Guard,
        *,
        of_tests: Transport,
        secrets: Mapping[str, str],
        total_seconds: float,
        clock: Monotonic,
        randomness: Callable[[], float],
        sleep: Callable[[float], Awaitable[Any]],
    ) -> None:
        self._paid = Connections(transport, Shares(transport.places))
        self._tests = Connections(of_tests, Shares(of_tests.places))
        self._guard = guard
        self._checkup = Checkup(transport, guard, secrets)
        self._secrets = secrets
        self._total_seconds = total_seconds
        self._clock = clock
        self._randomness = randomness
        self._sleep = sleep
        self.live_upstreams: dict[str, LiveUpstream] = {}

    async def open(self, call: UpstreamCall) -> Answered:
        """The first reply. If no route replies, the last upstream's own error, or else ours. Raises TooManyInFlight
        when the org has its share in flight already."""
        connections = self.connections(call.routes[0].upstream.id)
        connections.shares.take(call.org_id)
        reply: Answered | None = None
        try:
            reply = await self._first_reply(call, connections)
            return reply
        finally:
            if not isinstance(reply, Reply):
                connections.shares.give_back(call.org_id)

    def connections(self, upstream_id: str) -> Connections:
        """Calls of test keys have connections of their own, so that they never take those of paid calls."""
        return self._tests if upstream_id == SANDBOX else self._paid

    def live(self, upstream: Upstream) -> LiveUpstream:
        known = self.live_upstreams.get(upstream.id)
        if known is None or not known.is_of(upstream):
            known = self.live_upstreams[upstream.id] = LiveUpstream(upstream, self._secrets, self._guard, self._clock)
        return known

    async def close(self) -> None:
        checkups = [live.checkup for live in self.live_upstreams.values() if live.checkup]
        for checkup in checkups:
            checkup.cancel()
        await asyncio.gather(*checkups, return_exceptions=True)

    async def _first_reply(self, call: UpstreamCall, connections: Connections) -> Answered:
        until = call.until or asyncio.get_running_loop().time() + self._total_seconds
        routes = call.routes if call.ask.fallbacks or call.is_ordered else rules.ordered(call.routes, self._randomness)
        spent: set[str] = set()
        skipped: list[Attempt] = []
        refused: Refused | None = None
        error: UpstreamError | None = None
        for route in routes:
            if route.upstream.id in spent:
                continue
            served = call if call.as_chat is None else rules.as_served(call, route)
            attempt = Attempt(self.live(route.upstream), route, served, connections, until)
            if attempt.needs_checkup():
                await self._check_health(attempt.live)
            if not attempt.begin():
                call.record_attempt(attempt.skipped())
                skipped.append(attempt)
                continue
            outcome = await self._attempted(attempt)
            if not isinstance(outcome, Failure):
                return outcome
            refused, error = outcome.refused or refused, outcome.error
            if outcome.step == "stop":
                raise error
            if route.upstream.dialect == OPENROUTER:
                spent.add(route.upstream.id)
        if refused:
            return refused
        raise error or self._no_route(skipped)

    def _no_route(self, skipped: Sequence[Attempt]) -> UpstreamError:
        """Every upstream is full, has an open breaker, or is unusable until an operator acts."""
        waits = [one.live.seconds_until_free(one.route.model, one.call.org_id) for one in skipped if one.is_usable]
        return verdict.busy(min(waits)) if waits else UpstreamUnavailable()

    async def _check_health(self, live: LiveUpstream) -> None:
        """All calls wait for the same check, and not for long. It goes on in the background."""
        if live.checkup is None:
            live.checkup = asyncio.create_task(self._checked(live))
        await asyncio.wait((live.checkup,), timeout=CHECKUP_SECONDS)

    async def _checked(self, live: LiveUpstream) -> None:
        try:
            is_up = await self._checkup.is_up(live.upstream)
            if is_up is not None:
                live.checked(is_up=is_up)
        finally:
            live.checkup = None

    async def _attempted(self, attempt: Attempt) -> Outcome:
        call = attempt.call
        body = await threads.work(len(call.body), attempt.live.dialect.prepare, call, attempt.route)
        attempt.live.budget.call()
        outcome = await self._once(attempt, body)
        if not retries.may_follow(outcome):
            return outcome
        return await retries.repeated(
            outcome,
            partial(self._once, attempt, body),
            may_repeat=attempt.may_repeat,
            until=attempt.until,
            randomness=self._randomness,
            sleep=self._sleep,
        )

    async def _once(self, attempt: Attempt, body: Body) -> Outcome:
        """Holds one of the upstream's slots. A reply keeps it until its end."""
        attempt.live.in_flight += 1
        began = self._clock()
        outcome: Outcome | None = None
        try:
            outcome = await self._answered(attempt, body)
            if not isinstance(outcome, Reply):
                attempt.call.note_at_work(None)
            attempt.call.record_attempt(outcomes.recorded(outcome, attempt.route, self._clock() - began))
            return outcome
        finally:
            if not isinstance(outcome, Reply):
                attempt.live.in_flight -= 1
            if outcome is None:
                attempt.abandoned()

    async def _answered(self, attempt: Attempt, body: Body) -> Outcome:
        patience = Patience()
        due, phase = _first_byte_deadline(attempt)
        try:
            with patience.until(due):
                answer = await _sent(attempt, body)
        except TimeoutError:
            return verdict.silent(attempt, phase)
        except Forbidden as error:
            return verdict.forbidden(attempt, error)
        except TransportFailed as failure:
            return verdict.unanswered(attempt, failure)
        finally:
            patience.end()
        step = rules.step_after(answer.status, attempt.route.upstream.dialect)
        if step == "reply" and attempt.can_read(answer.headers):
            attempt.answered()
            return Reply(attempt, answer, patience)
        if step == "reply" or answer.status < 400:
            return await verdict.garbled(attempt, answer)
        return verdict.refused(attempt, answer, await verdict.body_of(answer, attempt.until))


def _first_byte_deadline(attempt: Attempt) -> tuple[float, str]:
    """When it ends, and what it is called. A plain answer has until the total deadline."""
    if attempt.call.ask.stream:
        due = asyncio.get_running_loop().time() + attempt.route.upstream.first_byte_seconds
        if due < attempt.until:
            return due, "first_byte"
    return attempt.until, "total"


def _sent(attempt: Attempt, body: Body) -> Awaitable[Answer]:
    live, call = attempt.live, attempt.call
    return attempt.connections.transport.send(
        "POST",
        live.urls[call.ask.endpoint],
        live.headers(call.headers, call.ask.endpoint, attempt.org_key),
        body,
        connect_seconds=attempt.route.upstream.connect_seconds,
        resolve=live.resolve,
        sent=attempt.was_sent,
    )
