"""What other rooms need of upstreams: open a call, and look up what one cost."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from tollgate.core.errors import UpstreamGarbled, UpstreamTimeout, UpstreamUnavailable
from tollgate.core.models import Upstream
from tollgate.core.strict_json import NotJson
from tollgate.process.clock import Monotonic
from tollgate.upstreams import rules
from tollgate.upstreams.address_guard import Forbidden, Guard, by_system
from tollgate.upstreams.attempts.outcome import Answered
from tollgate.upstreams.attempts.routes_in_turn import Attempts
from tollgate.upstreams.breaker import State
from tollgate.upstreams.rules import Resolve, TransportFailed, UpstreamCall
from tollgate.upstreams.transports import Answer, Transport

__all__ = ["Answered", "UpstreamState", "Upstreams"]

MOST_RECORD_BYTES: Final = 1024 * 1024
LOOK_UP_SECONDS: Final = 10.0
NOT_THERE: Final = 404


class UpstreamState(NamedTuple):
    """For operators. `failures` counts from the start of the process."""

    id: str
    breaker: State
    """The worst of its models."""
    in_flight: int
    failures: int
    last_error: str | None
    breakers: Mapping[str, State]
    """By model. Only models that fail have one."""
    was_open: bool
    """Whether one of them is open, or was so lately and no call was answered since."""


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
        attempts: Callable[..., Attempts] = Attempts,
    ) -> None:
        self._transports = {transport, of_tests or transport}
        self._attempts = attempts(
            transport,
            Guard(allow_private=allow_private, resolve=resolve),
            of_tests=of_tests or transport,
            secrets=secrets,
            total_seconds=total_seconds,
            clock=clock,
            randomness=randomness,
            sleep=sleep,
        )

    def open(self, call: UpstreamCall) -> Awaitable[Answered]:
        """An upstream's reply, or its error for the client. Raises UpstreamError for neither, and TooManyInFlight."""
        return self._attempts.open(call)

    def check_share(self, org_id: str, upstream_id: str) -> None:
        """Raises TooManyInFlight where `open` would, before credits are held for the call."""
        self._attempts.connections(upstream_id).shares.check(org_id)

    async def look_up(self, upstream: Upstream, generation_id: str) -> Mapping[str, Any] | None:
        """OpenRouter's record of a generation; None while there is none. Raises UpstreamError."""
        live = self._attempts.live(upstream)
        if not live.is_usable:
            raise UpstreamUnavailable
        try:
            async with asyncio.timeout(LOOK_UP_SECONDS):
                status, body = await self._get(
                    upstream,
                    live.lookup_url + quote(generation_id, safe=""),
                    live.headers({}, "chat"),
                    live.resolve,
                )
        except TimeoutError:
            raise UpstreamTimeout(phase="total") from None
        except (TransportFailed, Forbidden) as failure:
            raise UpstreamUnavailable from failure
        if status == NOT_THERE:
            return None
        if rules.is_our_trouble(status, upstream.dialect):
            live.refuses_us(f"HTTP {status}")
        if rules.step_after(status, upstream.dialect) != "reply":
            raise UpstreamUnavailable
        try:
            return rules.record_of(body)
        except NotJson as error:
            raise UpstreamGarbled from error

    def states(self) -> Sequence[UpstreamState]:
        """Of all upstreams that were called so far."""
        return [
            UpstreamState(
                one.upstream.id,
                one.state(),
                one.in_flight,
                one.failures,
                one.last_error,
                one.states(),
                one.was_open(),
            )
            for one in self._attempts.live_upstreams.values()
        ]

    async def close(self) -> None:
        await self._attempts.close()
        for transport in self._transports:
            await transport.close()

    async def _get(
        self, upstream: Upstream, url: str, headers: Mapping[str, str], resolve: Resolve | None
    ) -> tuple[int, bytes]:
        answer = await self._attempts.connections(upstream.id).transport.send(
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
