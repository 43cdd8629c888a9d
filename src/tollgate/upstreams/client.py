"""What the rest of the house asks of upstreams: open a call, and look up what one has cost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from tollgate.core.errors import UpstreamGarbled, UpstreamTimeout, UpstreamUnavailable
from tollgate.core.models import Route, Upstream
from tollgate.core.strict_json import NotJson
from tollgate.process.clock import Monotonic
from tollgate.upstreams import rules
from tollgate.upstreams.address_guard import Forbidden, Guard, by_system
from tollgate.upstreams.attempts import Attempts
from tollgate.upstreams.attempts.exchange import Exchange
from tollgate.upstreams.attempts.outcome import Refused
from tollgate.upstreams.breaker import State
from tollgate.upstreams.dialects import Shown
from tollgate.upstreams.rules import Order, Resolve, TransportFailed
from tollgate.upstreams.transports import Answer, Transport

MOST_REPLY_BYTES: Final = 64 * 1024 * 1024
MOST_RECORD_BYTES: Final = 1024 * 1024
LOOK_UP_SECONDS: Final = 10.0
NOT_THERE: Final = 404


class Reply:
    """What an upstream answers. Whoever has it closes it, whatever happens."""

    def __init__(self, outcome: Exchange | Refused, shown: Shown) -> None:
        self.route: Route = outcome.route
        self.refused = isinstance(outcome, Refused)
        """A no that is the client's to read: its own fault, or a limit. All of it is here."""
        self.generation_id: str | None = None
        self.shown = shown
        """What the client sees of an event: its bytes as they came, fewer of them, or None for nothing."""
        self._exchange: Exchange | None = None
        if isinstance(outcome, Refused):
            self.status = outcome.refusal.status
            self.headers = outcome.headers
            self._refusal = outcome.refusal.body
        else:
            self.status = outcome.status
            self.headers = rules.passed_down(outcome.headers)
            self.generation_id = outcome.generation_id
            self._exchange = outcome

    async def read(self) -> bytes:
        """All of it. Raises UpstreamCut, UpstreamTimeout, and UpstreamGarbled where it has no end."""
        pieces = []
        length = 0
        async for piece in self.pieces():
            pieces.append(piece)
            length += len(piece)
            if length > MOST_REPLY_BYTES and self._exchange:
                await self._exchange.garble("an endless answer")
        return b"".join(pieces)

    async def pieces(self) -> AsyncIterator[bytes]:
        """As they arrive, neither cut nor put together. Raises as `read` does, but bounds nothing."""
        if self._exchange is None:
            yield self._refusal
            return
        while piece := await self._exchange.piece():
            yield piece

    @contextlib.asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Holds whoever passes it on to the total deadline, also while it is not the upstream that is waited for."""
        try:
            async with asyncio.timeout_at(self._exchange.until if self._exchange else None):
                yield
        except TimeoutError:
            assert self._exchange  # noqa: S101  # nothing else has a deadline
            await self._exchange.give_up("total")

    async def close(self) -> None:
        """Stops the upstream, at once, if it is still at it. May be done twice."""
        if self._exchange:
            await self._exchange.close()


class UpstreamState(NamedTuple):
    """For operators. `failures` counts since the process started."""

    id: str
    breaker: State
    """The worst of its models."""
    in_flight: int
    failures: int
    last_error: str | None
    breakers: Mapping[str, State]
    """By model. Only one that fails has any."""


class Upstreams:
    def __init__(
        self,
        transport: Transport,
        *,
        of_tests: Transport | None = None,
        secrets: Mapping[str, str],
        allow_private: bool,
        total_seconds: float,
        clock: Monotonic,
        randomness: Callable[[], float],
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
        resolve: Resolve = by_system,
    ) -> None:
        self._transports = {transport, of_tests or transport}
        self._attempts = Attempts(
            transport,
            Guard(allow_private=allow_private, resolve=resolve),
            of_tests=of_tests or transport,
            secrets=secrets,
            total_seconds=total_seconds,
            clock=clock,
            randomness=randomness,
            sleep=sleep,
        )

    async def open(self, order: Order) -> Reply:
        """The first upstream's reply, or its no. Raises UpstreamError when there is neither, and TooManyInFlight."""
        outcome = await self._attempts.open(order)
        dialect = self._attempts.station(outcome.route.upstream).dialect
        return Reply(outcome, dialect.shown(order.ask))

    def refuse_crowd(self, org_id: str, upstream_id: str) -> None:
        """Raises TooManyInFlight where `open` would: before anything was held for the call."""
        self._attempts.lane(upstream_id).shares.check(org_id)

    async def look_up(self, upstream: Upstream, generation_id: str) -> Mapping[str, Any] | None:
        """What OpenRouter keeps of a generation; None while it has none of it. Raises UpstreamError."""
        station = self._attempts.station(upstream)
        if not station.is_usable:
            raise UpstreamUnavailable
        try:
            async with asyncio.timeout(LOOK_UP_SECONDS):
                status, body = await self._get(
                    upstream,
                    station.lookup_url + quote(generation_id, safe=""),
                    station.headers({}),
                    station.resolve,
                )
        except TimeoutError:
            raise UpstreamTimeout(phase="total") from None
        except (TransportFailed, Forbidden) as failure:
            raise UpstreamUnavailable from failure
        if status == NOT_THERE:
            return None
        if rules.is_our_trouble(status, upstream.dialect):
            station.refuses_us(f"HTTP {status}")
        if rules.step_after(status, upstream.dialect) != "reply":
            raise UpstreamUnavailable
        try:
            return rules.record_of(body)
        except NotJson as error:
            raise UpstreamGarbled from error

    def states(self) -> Sequence[UpstreamState]:
        """Of all that were asked so far."""
        return [
            UpstreamState(one.upstream.id, one.state(), one.in_flight, one.failures, one.last_error, one.states())
            for one in self._attempts.stations.values()
        ]

    async def close(self) -> None:
        await self._attempts.close()
        for transport in self._transports:
            await transport.close()

    async def _get(
        self, upstream: Upstream, url: str, headers: Mapping[str, str], resolve: Resolve | None
    ) -> tuple[int, bytes]:
        answer = await self._attempts.lane(upstream.id).transport.send(
            "GET", url, headers, b"", connect_seconds=upstream.connect_seconds, resolve=resolve
        )
        try:
            return answer.status, await _bounded(answer)
        finally:
            await answer.close()


async def _bounded(answer: Answer) -> bytes:
    body = bytearray()
    while piece := await answer.piece():
        body += piece
        if len(body) > MOST_RECORD_BYTES:
            raise UpstreamGarbled
    return bytes(body)
