"""The way of a call over its routes, until one answers.

Never twice to OpenRouter for what may have begun there: it has no idempotency, so a repetition is a second paid
generation. That includes a connection kept alive that turns out dead as the request goes out: nothing proves that the
request was not read. What our own servers have begun costs nothing, and the next may begin it again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from tollgate.core.errors import UpstreamError, UpstreamUnavailable
from tollgate.core.models import SANDBOX, Route, Upstream
from tollgate.process import threads
from tollgate.process.clock import Monotonic
from tollgate.upstreams import rules
from tollgate.upstreams.address_guard import Forbidden, Guard
from tollgate.upstreams.attempts import retries, verdict
from tollgate.upstreams.attempts.attempt import Attempt
from tollgate.upstreams.attempts.exchange import Exchange
from tollgate.upstreams.attempts.live_upstream import LiveUpstream
from tollgate.upstreams.attempts.outcome import Failure, Outcome, Refused
from tollgate.upstreams.health_checks import Checkup
from tollgate.upstreams.org_shares import Shares
from tollgate.upstreams.rules import Order, TransportFailed
from tollgate.upstreams.transports import Transport
from tollgate.upstreams.transports.timeouts import Patience

CHECKUP_SECONDS: Final = 1.0
"""What a call waits for the health of an upstream that was given a rest, before it goes elsewhere."""


class Lane(NamedTuple):
    """Connections, and who has taken how many of them."""

    transport: Transport
    shares: Shares


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
        self._live = Lane(transport, Shares(transport.places))
        self._tests = Lane(of_tests, Shares(of_tests.places))
        self._guard = guard
        self._checkup = Checkup(transport, guard, secrets)
        self._secrets = secrets
        self._total_seconds = total_seconds
        self._clock = clock
        self._randomness = randomness
        self._sleep = sleep
        self.stations: dict[str, LiveUpstream] = {}

    async def open(self, order: Order) -> Exchange | Refused:
        """The first route that answers. When none does, the last upstream's own no, or else ours. Raises
        TooManyInFlight where the org has its share under way already."""
        lane = self.lane(order.routes[0].upstream.id)
        lane.shares.take(order.org_id)
        outcome: Exchange | Refused | None = None
        try:
            outcome = await self._first_to_answer(order, lane)
            return outcome
        finally:
            if not isinstance(outcome, Exchange):
                lane.shares.give_back(order.org_id)

    def lane(self, upstream_id: str) -> Lane:
        """Test keys' calls have connections of their own, so that they never take those of paid ones."""
        return self._tests if upstream_id == SANDBOX else self._live

    def station(self, upstream: Upstream) -> LiveUpstream:
        known = self.stations.get(upstream.id)
        if known is None or not known.is_of(upstream):
            known = self.stations[upstream.id] = LiveUpstream(upstream, self._secrets, self._guard, self._clock)
        return known

    async def close(self) -> None:
        checkups = [station.checkup for station in self.stations.values() if station.checkup]
        for checkup in checkups:
            checkup.cancel()
        await asyncio.gather(*checkups, return_exceptions=True)

    async def _first_to_answer(self, order: Order, lane: Lane) -> Exchange | Refused:
        until = asyncio.get_running_loop().time() + self._total_seconds
        routes = order.routes if order.ask.fallbacks else rules.ordered(order.routes, self._randomness)
        spent: set[str] = set()
        refused: Refused | None = None
        error: UpstreamError | None = None
        for route in routes:
            attempt = Attempt(self.station(route.upstream), route, order.org_id, lane.shares)
            if route.upstream.id in spent or not await self._admits(attempt):
                continue
            outcome = await self._at(attempt, order, lane.transport, until)
            if not isinstance(outcome, Failure):
                return outcome
            refused, error = outcome.refused or refused, outcome.error
            if outcome.step == "stop":
                raise error
            if attempt.station.is_paid:
                spent.add(route.upstream.id)
        if refused:
            return refused
        raise error or self._nobody(routes, order.org_id)

    async def _admits(self, attempt: Attempt) -> bool:
        """After a rest, an upstream with a health path must be well before any call goes there."""
        if attempt.waits_for_a_checkup():
            await self._check(attempt.station)
            if attempt.waits_for_a_checkup():
                return False
        return attempt.begins()

    async def _check(self, station: LiveUpstream) -> None:
        """All that wait, wait for the same answer, and not for long. It comes in the background all the same."""
        if station.checkup is None:
            station.checkup = asyncio.create_task(self._ask_for_its_health(station))
        await asyncio.wait((station.checkup,), timeout=CHECKUP_SECONDS)

    async def _ask_for_its_health(self, station: LiveUpstream) -> None:
        try:
            is_up = await self._checkup.is_up(station.upstream)
            if is_up is not None:
                station.checked(is_up=is_up)
        finally:
            station.checkup = None

    async def _at(self, attempt: Attempt, order: Order, transport: Transport, until: float) -> Outcome:
        station = attempt.station
        prepare = station.dialect.prepare
        body = await threads.work(len(order.body), prepare, order.body, order.ask, attempt.route, order.bound)
        station.budget.call()
        once = partial(self._once, attempt, order, transport, body, until)
        outcome = await once()
        if isinstance(outcome, Failure) and outcome.step == "again":
            return await retries.repeated(
                outcome,
                once,
                may_repeat=attempt.may_repeat,
                until=until,
                randomness=self._randomness,
                sleep=self._sleep,
            )
        return outcome

    def _nobody(self, routes: Sequence[Route], org_id: str) -> UpstreamError:
        """When there was no route to take: all full, or given a rest, or unusable until an operator comes."""
        usable = [(self.station(route.upstream), route.model) for route in routes]
        waits = [station.seconds_until_free(model, org_id) for station, model in usable if station.is_usable]
        return verdict.busy(min(waits)) if waits else UpstreamUnavailable()

    async def _once(self, attempt: Attempt, order: Order, transport: Transport, body: bytes, until: float) -> Outcome:
        """Holds a slot meanwhile. An answer that comes keeps it, to its end."""
        attempt.station.in_flight += 1
        outcome: Outcome | None = None
        try:
            outcome = await self._asked(attempt, order, transport, body, until)
            if not isinstance(outcome, Exchange):
                order.sent(None)
            return outcome
        finally:
            if not isinstance(outcome, Exchange):
                attempt.station.in_flight -= 1
            if outcome is None:
                attempt.abandoned()

    async def _asked(self, attempt: Attempt, order: Order, transport: Transport, body: bytes, until: float) -> Outcome:
        station, upstream, stream = attempt.station, attempt.route.upstream, order.ask.stream
        patience = Patience()
        due = until
        if stream:
            due = min(until, asyncio.get_running_loop().time() + upstream.first_byte_seconds)
        try:
            with patience.until(due):
                answer = await transport.send(
                    "POST",
                    station.urls[order.ask.endpoint],
                    station.headers(order.headers),
                    body,
                    connect_seconds=upstream.connect_seconds,
                    resolve=station.resolve,
                    sent=partial(order.sent, attempt.route),
                )
        except TimeoutError:
            return verdict.silent(attempt, "first_byte" if due < until else "total")
        except Forbidden as error:
            station.refuses_us(str(error))
            attempt.abandoned()
            return Failure("elsewhere", UpstreamUnavailable())
        except TransportFailed as failure:
            return verdict.unanswered(attempt, failure)
        finally:
            patience.end()
        step = rules.step_after(answer.status, upstream.dialect)
        if step == "reply" and rules.is_readable(answer.headers, stream=stream):
            attempt.answered()
            return Exchange(attempt, answer, patience, until, stream=stream)
        if step == "reply" or answer.status < 400:
            return await verdict.garbled(attempt, answer)
        return verdict.refused(attempt, answer, await verdict.body_of(answer, until))
