"""An answer on its way back, watched to its last byte."""

import asyncio
from typing import Any, Literal, NoReturn

from tollgate.core.errors import UpstreamCut, UpstreamError, UpstreamGarbled, UpstreamTimeout
from tollgate.upstreams import rules
from tollgate.upstreams.attempts.attempt import Attempt
from tollgate.upstreams.rules import TransportFailed
from tollgate.upstreams.transports import Answer
from tollgate.upstreams.transports.timeouts import Patience


class Exchange:
    """It holds its upstream's slot, and its org's share, until the last byte or until it is closed."""

    def __init__(self, attempt: Attempt, answer: Answer, patience: Patience, until: float, *, stream: bool) -> None:
        self.route = route = attempt.route
        self.status = answer.status
        self.headers = answer.headers
        self.generation_id = rules.generation_id(answer.headers, route.upstream.dialect)
        self._attempt = attempt
        self._answer = answer
        self._patience = patience
        self.until = until
        self._idle_seconds = route.upstream.idle_seconds if stream else None
        self._loop = asyncio.get_running_loop()
        self._came = False
        self._ended = False

    async def piece(self) -> bytes:
        """What comes next, empty at the end. Raises what the client is to be told."""
        if self._ended:
            return b""
        piece = self._answer.at_hand()
        if piece is None:
            piece = await self._awaited()
        if piece:
            self._came = True
        elif self._came:
            self._attempt.succeeded()
            self._end()
        else:
            await self.garble("an empty answer")
        return piece

    async def close(self) -> None:
        """Stops the upstream if it is still at it, which is not held against it."""
        self._end()
        await self._answer.close()

    async def garble(self, why: str) -> NoReturn:
        """What comes is no answer."""
        await self._fail(why, UpstreamGarbled(**self._facts()))

    async def give_up(self, phase: Literal["idle", "total"]) -> NoReturn:
        """It has taken too long."""
        error = UpstreamTimeout(phase=phase, **self._facts())
        await self._fail(f"{phase} timeout", error, counts=phase == "idle")

    async def _awaited(self) -> bytes:
        due = self.until
        if self._idle_seconds is not None:
            due = min(due, self._loop.time() + self._idle_seconds)
        try:
            with self._patience.until(due):
                return await self._answer.piece()
        except TimeoutError:
            return await self.give_up("idle" if due < self.until else "total")
        except TransportFailed as failure:
            return await self._fail(str(failure), UpstreamCut(**self._facts()))

    async def _fail(self, why: str, error: UpstreamError, *, counts: bool = True) -> NoReturn:
        """A client that wants more than the total deadline gives is no fault of the upstream."""
        if counts:
            self._attempt.failed(why)
        else:
            self._attempt.station.note(why)
        await self.close()
        raise error

    def _facts(self) -> dict[str, Any]:
        return self._attempt.facts(self.generation_id)

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._attempt.end()
            self._patience.end()
