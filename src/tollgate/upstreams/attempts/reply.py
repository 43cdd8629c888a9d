"""An upstream's answer, watched until its last byte."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final, Literal, NoReturn

from tollgate.core.errors import UpstreamCut, UpstreamError, UpstreamGarbled, UpstreamTimeout
from tollgate.upstreams import rules
from tollgate.upstreams.attempts.attempt import Attempt
from tollgate.upstreams.rules import TransportFailed
from tollgate.upstreams.transports import Answer
from tollgate.upstreams.transports.timeouts import Patience

MOST_REPLY_BYTES: Final = 64 * 1024 * 1024


class Reply:
    """It holds its upstream's slot and its org's share until the last byte, or until it is closed. Always close it."""

    refused: bool = False

    def __init__(self, attempt: Attempt, answer: Answer, patience: Patience) -> None:
        self.route = route = attempt.route
        self.status = answer.status
        self.headers = rules.passed_down(answer.headers)
        self.generation_id = rules.generation_id(answer.headers, route.upstream.dialect)
        self.shown = attempt.live.dialect.shown(attempt.call.ask)
        """What the client gets of an event: its bytes, fewer of them, or None for nothing."""
        self._attempt = attempt
        self._answer = answer
        self._patience = patience
        self._idle_seconds = route.upstream.idle_seconds if attempt.call.ask.stream else None
        self._loop = asyncio.get_running_loop()
        self._has_begun = False
        self._ended = False

    async def read(self) -> bytes:
        """All of it. Raises UpstreamCut, UpstreamTimeout, and UpstreamGarbled for an answer without an end."""
        pieces = []
        length = 0
        while piece := await self.piece():
            pieces.append(piece)
            length += len(piece)
            if length > MOST_REPLY_BYTES:
                await self._garble("an endless answer")
        return b"".join(pieces)

    async def piece(self) -> bytes:
        """What comes next, as it arrived; empty at the end. Raises as `read` does, without a bound on the length."""
        if self._ended:
            return b""
        piece = self._answer.at_hand()
        if piece is None:
            piece = await self._awaited()
        if piece:
            self._has_begun = True
        elif self._has_begun:
            self._attempt.succeeded()
            self._end()
        else:
            await self._garble("an empty answer")
        return piece

    @contextlib.asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Applies the total deadline to the block, also while it waits for something other than the upstream."""
        try:
            async with asyncio.timeout_at(self._attempt.until):
                yield
        except TimeoutError:
            await self._give_up("total")

    async def close(self) -> None:
        """Stops the upstream at once if it is still at work, which does not count as its failure. Safe to repeat."""
        self._end()
        await self._answer.close()

    async def _awaited(self) -> bytes:
        until = due = self._attempt.until
        if self._idle_seconds is not None:
            due = min(due, self._loop.time() + self._idle_seconds)
        try:
            with self._patience.until(due):
                return await self._answer.piece()
        except TimeoutError:
            return await self._give_up("idle" if due < until else "total")
        except TransportFailed as failure:
            return await self._fail(str(failure), UpstreamCut(**self._facts()))

    async def _garble(self, why: str) -> NoReturn:
        await self._fail(why, UpstreamGarbled(**self._facts()))

    async def _give_up(self, phase: Literal["idle", "total"]) -> NoReturn:
        """A client that needs more than the total deadline is no fault of the upstream."""
        error = UpstreamTimeout(phase=phase, **self._facts())
        await self._fail(f"{phase} timeout", error, counts=phase == "idle")

    async def _fail(self, why: str, error: UpstreamError, *, counts: bool = True) -> NoReturn:
        if counts:
            self._attempt.failed(why)
        else:
            self._attempt.live.note(why)
        await self.close()
        raise error

    def _facts(self) -> dict[str, Any]:
        return self._attempt.facts(self.generation_id)

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._attempt.end()
            self._patience.end()
