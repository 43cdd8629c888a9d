"""The sweeper: ends what nobody ended. OpenRouter says what a generation cost; what no one knows is estimated.

Any number may run at once: a request is leased to one of them.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from tollgate.completions import rules, store
from tollgate.completions.settlements import Books
from tollgate.core.errors import TollgateError, UpstreamGarbled
from tollgate.core.models import Upstream
from tollgate.database import Door
from tollgate.process import logs
from tollgate.process.clock import Monotonic
from tollgate.upstreams.client import Upstreams

log = logs.source("application")

PAGE = 50
LEASE_SECONDS = 60
AT_ONCE = 8
ROUND_SECONDS = 20.0
"""A scheduler's call must end before its host's patience does."""
PAUSE_SECONDS = 15.0

Sweep = Mapping[str, int]
"""How many requests were settled, estimated, released, or are still waiting for an answer."""


class Sweeper:
    def __init__(
        self,
        door: Door,
        books: Books,
        upstreams: Upstreams,
        homes: Sequence[Upstream],
        *,
        clock: Monotonic,
        upkeep: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        self._door = door
        self._books = books
        self._upstreams = upstreams
        self._homes = {home.id: home for home in homes}
        self._clock = clock
        self._upkeep = upkeep
        """What else is done in a round, until the time that it is told."""

    async def sweep(self) -> Sweep:
        """All that is due, or as much of it as a round has time for."""
        count: Counter[str] = Counter(dict.fromkeys(("settled", "estimated", "released", "waiting"), 0))
        ends_at = self._clock() + ROUND_SECONDS
        while self._clock() < ends_at:
            due = (await store.due(self._door, PAGE, LEASE_SECONDS))["data"]
            count.update(await self._all(due, ends_at))
            if len(due) < PAGE:
                break
        if count.total():
            log.info("swept", **count)
        if self._upkeep:
            await self._upkeep(ends_at)
        return dict(count)

    async def for_ever(self, pause: Callable[[float], Awaitable[Any]] = asyncio.sleep) -> None:
        """In a long-lived server. A round that fails is followed by the next."""
        while True:
            await pause(PAUSE_SECONDS)
            try:
                await self.sweep()
            except TollgateError as error:
                log.error("sweep_failed", error_code=error.code)
            except Exception:  # nobody else starts it again
                log.exception("sweep_failed")

    async def _all(self, due: Sequence[Mapping[str, Any]], ends_at: float) -> list[str]:
        """What a round has no time for is due again when its lease ends."""
        places = asyncio.Semaphore(AT_ONCE)

        async def one(row: Mapping[str, Any]) -> str:
            async with places:
                return await self._end_if_possible(row) if self._clock() < ends_at else "waiting"

        return await asyncio.gather(*(one(row) for row in due))

    async def _end_if_possible(self, row: Mapping[str, Any]) -> str:
        try:
            return await self._end(row)
        except Exception:  # whatever is wrong with this row, those after it have their turn
            log.exception("request_not_swept", paid_request_id=row["id"])
            return "waiting"

    async def _end(self, row: Mapping[str, Any]) -> str:
        ending = await self._ending(row)
        settled = await self._books.settle({"id": row["id"], **ending})
        if settled is None or ending["outcome"] == "unsettled":
            return "waiting"
        return "estimated" if ending.get("estimated") else str(ending["outcome"])

    async def _ending(self, row: Mapping[str, Any]) -> dict[str, Any]:
        home = self._homes.get(row["upstream"])
        if not row["generation_id"] or home is None:
            return rules.without_a_trace(row)
        try:
            record = await self._upstreams.look_up(home, row["generation_id"])
        except UpstreamGarbled:
            return rules.unreadable(row)
        except TollgateError:
            return rules.asked_again(row)
        return rules.not_found(row) if record is None else rules.found(row, record)
