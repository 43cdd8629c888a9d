"""The sweeper: ends requests that were left open. OpenRouter knows what a generation cost; other costs are estimated.

Any number of sweepers may run at once: each request is leased to one of them.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from tollgate.completions import late_endings, store
from tollgate.completions.endings import Ending
from tollgate.completions.settlements import Settlements
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
"""A scheduled call must end before its host's time limit."""
UPKEEP_SECONDS = 8.0
"""Of them, kept for upkeep, so that a backlog of requests does not keep alerts from being told."""
PAUSE_SECONDS = 15.0

Sweep = Mapping[str, int]
"""How many requests were settled, estimated or released, or are still waiting."""


class Sweeper:
    def __init__(
        self,
        door: Door,
        settlements: Settlements,
        upstreams: Upstreams,
        looked_up: Sequence[Upstream],
        *,
        clock: Monotonic,
        upkeep: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        self._door = door
        self._settlements = settlements
        self._upstreams = upstreams
        self._looked_up = {upstream.id: upstream for upstream in looked_up}
        """Upstreams that can say what a generation cost."""
        self._clock = clock
        self._upkeep = upkeep
        """Other periodic work, done in each round until the time that it is given."""

    async def sweep(self) -> Sweep:
        """Ends all requests that are due, or as many as a round has time for."""
        count: Counter[str] = Counter(dict.fromkeys(("settled", "estimated", "released", "waiting"), 0))
        ends_at = self._clock() + ROUND_SECONDS
        swept_until = ends_at - UPKEEP_SECONDS
        while self._clock() < swept_until:
            due = (await store.due(self._door, PAGE, LEASE_SECONDS))["data"]
            count.update(await self._all(due, swept_until))
            if len(due) < PAGE:
                break
        if count.total():
            log.info("swept", **count)
        if self._upkeep:
            await self._upkeep(ends_at)
        return dict(count)

    async def for_ever(self, pause: Callable[[float], Awaitable[Any]] = asyncio.sleep) -> None:
        """In a long-lived server. After a round that fails, the next one runs."""
        while True:
            await pause(PAUSE_SECONDS)
            try:
                await self.sweep()
            except TollgateError as error:
                log.error("sweep_failed", error_code=error.code)
            except Exception:  # nothing else would start it again
                log.exception("sweep_failed")

    async def _all(self, due: Sequence[Mapping[str, Any]], ends_at: float) -> list[str]:
        """A request that the round has no time for is due again when its lease ends."""
        places = asyncio.Semaphore(AT_ONCE)

        async def one(row: Mapping[str, Any]) -> str:
            async with places:
                return await self._end_if_possible(row) if self._clock() < ends_at else "waiting"

        return await asyncio.gather(*(one(row) for row in due))

    async def _end_if_possible(self, row: Mapping[str, Any]) -> str:
        try:
            return await self._end(row)
        except Exception:  # a row that cannot be swept must not stop the others
            log.exception("request_not_swept", paid_request_id=row["id"])
            return "waiting"

    async def _end(self, row: Mapping[str, Any]) -> str:
        ending = await self._ending(row)
        settled = await self._settlements.settle(ending.item(row["id"]))
        if settled is None or ending.outcome == "unsettled":
            return "waiting"
        return "estimated" if ending.estimated else ending.outcome

    async def _ending(self, row: Mapping[str, Any]) -> Ending:
        if row["is_byok"]:
            return late_endings.with_org_key(row)
        upstream = self._looked_up.get(row["upstream"])
        if not row["generation_id"] or upstream is None:
            return late_endings.without_a_trace(row)
        try:
            record = await self._upstreams.look_up(upstream, row["generation_id"])
        except UpstreamGarbled:
            return late_endings.unreadable(row)
        except TollgateError:
            return late_endings.asked_again(row)
        return late_endings.not_found(row) if record is None else late_endings.found(row, record)
