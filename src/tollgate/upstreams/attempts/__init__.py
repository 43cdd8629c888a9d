"""The way of a call over its routes, until one answers.

Never twice to OpenRouter for what may have begun there: it has no idempotency, so a repetition is a second paid
generation. That includes a connection kept alive that turns out dead as the request goes out: nothing proves that the
request was not read. What our own servers have begun costs nothing, and the next may begin it again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from tollgate.core.errors import UpstreamError, UpstreamUnavailable
from tollgate.core.models import Route, Upstream
from tollgate.runtime.clock import Monotonic
from tollgate.upstreams import rules
from tollgate.upstreams.attempts import again, judgement
from tollgate.upstreams.attempts.exchange import Exchange
from tollgate.upstreams.attempts.outcome import Failure, Outcome, Refused
from tollgate.upstreams.attempts.station import Station
from tollgate.upstreams.guard import Forbidden, Guard
from tollgate.upstreams.rules import Order, TransportFailed
from tollgate.upstreams.transports import Transport
from tollgate.upstreams.transports.patience import Patience


class Attempts:
    def __init__(
        self,
        transport: Transport,
        guard: Guard,
        *,
        secrets: Mapping[str, str],
        total_seconds: float,
        clock: Monotonic,
        randomness: Callable[[], float],
        sleep: Callable[[float], Awaitable[Any]],
    ) -> None:
        self._transport = transport
        self._guard = guard
        self._secrets = secrets
        self._total_seconds = total_seconds
        self._clock = clock
        self._randomness = randomness
        self._sleep = sleep
        self.stations: dict[str, Station] = {}

    async def open(self, order: Order) -> Exchange | Refused:
        """The first route that answers. When none does, the last upstream's own no, or else ours."""
        until = asyncio.get_running_loop().time() + self._total_seconds
        routes = order.routes if order.ask.fallbacks else rules.ordered(order.routes, self._randomness)
        spent: set[str] = set()
        refused: Refused | None = None
        error: UpstreamError | None = None
        for route in routes:
            station = self.station(route.upstream)
            if route.upstream.id in spent or not station.admits(route.model):
                continue
            outcome = await self._at(station, route, order, until)
            if not isinstance(outcome, Failure):
                return outcome
            refused, error = outcome.refused or refused, outcome.error
            if outcome.step == "stop":
                raise error
            if station.is_paid:
                spent.add(route.upstream.id)
        if refused:
            return refused
        raise error or self._nobody(routes)

    def station(self, upstream: Upstream) -> Station:
        known = self.stations.get(upstream.id)
        if known is None or not known.is_of(upstream):
            known = self.stations[upstream.id] = Station(upstream, self._secrets, self._guard, self._clock)
        return known

    async def _at(self, station: Station, route: Route, order: Order, until: float) -> Outcome:
        body = station.dialect.prepare(order.body, order.ask, route, order.bound)
        station.budget.call()
        once = partial(self._once, station, route, order, body, until)
        outcome = await once()
        if isinstance(outcome, Failure) and outcome.step == "again":
            return await again.repeated(
                outcome,
                once,
                may_repeat=partial(station.repeats, route.model),
                until=until,
                randomness=self._randomness,
                sleep=self._sleep,
            )
        return outcome

    def _nobody(self, routes: Sequence[Route]) -> UpstreamError:
        """When there was no route to take: all full, or given a rest, or unusable until an operator comes."""
        usable = [(self.station(route.upstream), route.model) for route in routes]
        waits = [station.seconds_until_free(model) for station, model in usable if station.is_usable]
        return judgement.busy(min(waits)) if waits else UpstreamUnavailable()

    async def _once(self, station: Station, route: Route, order: Order, body: bytes, until: float) -> Outcome:
        """Holds a slot meanwhile. An answer that comes keeps it, to its end."""
        station.in_flight += 1
        outcome: Outcome | None = None
        try:
            outcome = await self._asked(station, route, order, body, until)
            if not isinstance(outcome, Exchange):
                order.sent(None)
            return outcome
        finally:
            if not isinstance(outcome, Exchange):
                station.in_flight -= 1
            if outcome is None:
                station.abandoned(route.model)

    async def _asked(self, station: Station, route: Route, order: Order, body: bytes, until: float) -> Outcome:
        upstream, stream = route.upstream, order.ask.stream
        patience = Patience()
        due = until
        if stream:
            due = min(until, asyncio.get_running_loop().time() + upstream.first_byte_seconds)
        try:
            with patience.until(due):
                answer = await self._transport.send(
                    "POST",
                    station.urls[order.ask.endpoint],
                    station.headers(order.headers),
                    body,
                    connect_seconds=upstream.connect_seconds,
                    resolve=station.resolve,
                    sent=partial(order.sent, route),
                )
        except TimeoutError:
            return judgement.silent(station, route, "first_byte" if due < until else "total")
        except Forbidden as error:
            station.refuses_us(str(error))
            station.abandoned(route.model)
            return Failure("elsewhere", UpstreamUnavailable())
        except TransportFailed as failure:
            return judgement.unanswered(station, route, failure)
        finally:
            patience.end()
        step = rules.step_after(answer.status, upstream.dialect)
        if step == "reply" and rules.is_readable(answer.headers, stream=stream):
            station.answered(route.model)
            return Exchange(station, route, answer, patience, until, stream=stream)
        if step == "reply" or answer.status < 400:
            return await judgement.garbled(station, route, answer)
        return judgement.refused(station, route, answer, await judgement.body_of(answer, until))
