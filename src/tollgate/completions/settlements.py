"""The two calls that move credits: batched, shielded from cancellation, and repeated while their outcome is unknown."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from tollgate.completions import store
from tollgate.completions.endings import RELEASED
from tollgate.core.errors import DatabaseUnavailable, TollgateError
from tollgate.database import Door
from tollgate.process import logs
from tollgate.process.batching import Batch, Item
from tollgate.process.clock import Monotonic

log = logs.source("database")
security = logs.source("security")

Admitted = Mapping[str, Any]
"""granted (perhaps with a hit, and settled), replay, wait or refusal."""
Settled = Mapping[str, Any]
Randomness = Callable[[], float]

LANES = 1
"""More lanes would make smaller batches: less waiting, and more calls."""
MOST_TOGETHER = 64
ADMIT_PATIENCE_SECONDS = 1.5
SETTLE_PATIENCE_SECONDS = 6.0
"""How long a call with an unknown outcome is repeated. Settlements get longer: without one, the sweeper estimates."""
GIVE_BACK_PATIENCE_SECONDS = 60.0
MOST_LOOKS_FOR_IT = 7
"""Attempts to give an admission back: over more than 12 s, longer than any call to the database may take."""
FINISH_SECONDS = 1.0
"""Together with the time that the server gives its requests, less than what a host gives the process."""
FIRST_PAUSE_SECONDS = 0.1

NOTHING_THERE: Settled = {}


class Settlements:
    def __init__(
        self,
        door: Door,
        *,
        clock: Monotonic,
        randomness: Randomness,
        pause: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self._door = door
        self._clock = clock
        self._randomness = randomness
        self._pause = pause
        self._admitting = Batch(partial(store.admit, door), lanes=LANES, most=MOST_TOGETHER)
        self._settling = Batch(partial(store.settle, door), lanes=LANES, most=MOST_TOGETHER)
        self._noting = Batch(partial(store.note_generations, door), lanes=LANES, most=MOST_TOGETHER)
        self._open: set[str] = set()
        self._background: set[asyncio.Task[Any]] = set()

    async def admit(self, item: Item) -> Admitted:
        """If the call fails or is cancelled, a grant that was made all the same is given back."""
        try:
            answer: Admitted = await self._certain(self._admitting, item, ADMIT_PATIENCE_SECONDS)
        except (DatabaseUnavailable, asyncio.CancelledError):
            self._in_background(self._give_back(item["id"]))
            raise
        if "granted" in answer and "hit" not in answer:
            self._open.add(item["id"])
        return answer

    async def settle(self, item: Item) -> Settled | None:
        """None if the database does not answer: then the hold stays, and the sweeper ends it. If the caller is
        cancelled, it goes on in the background."""
        try:
            return await self._settled(item, SETTLE_PATIENCE_SECONDS)
        except asyncio.CancelledError:
            self._in_background(self._settled(item, SETTLE_PATIENCE_SECONDS))
            raise
        finally:
            self._open.discard(item["id"])

    async def note_generation(
        self, request_id: str, generation_id: str, upstream: str, *, is_byok: bool = False
    ) -> None:
        """Best effort: it matters only if this process dies before it settles."""
        try:
            noted = {"id": request_id, "generation_id": generation_id, "upstream": upstream}
            await self._noting.ask(noted | ({"is_byok": True} if is_byok else {}))
        except TollgateError as error:
            log.warning("generation_not_noted", paid_request_id=request_id, error_code=error.code)

    @property
    def is_quiet(self) -> bool:
        """Whether all that was admitted here is settled, and no background work is left."""
        return not (self._open or self._background)

    async def finish(self) -> None:
        """Waits for calls under way, before the connections to the database close. Background work that is left then is
        cancelled: it would open another connection, which nobody closes."""
        give_up_at = self._clock() + FINISH_SECONDS
        while not self.is_quiet and self._clock() < give_up_at:
            await self._pause(FIRST_PAUSE_SECONDS)
        left = [*self._background]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _settled(self, item: Item, patience_seconds: float) -> Settled | None:
        try:
            answer = await self._certain(self._settling, item, patience_seconds)
        except TollgateError as error:
            log.error("settlement_left_to_the_sweeper", paid_request_id=item["id"], error_code=error.code)
            return None
        settled: Settled = answer.get("settled", NOTHING_THERE)
        if settled.get("suspended_org_id"):
            security.error("paid_calls_suspended", org_id=settled["suspended_org_id"], paid_request_id=item["id"])
        return settled

    async def _give_back(self, request_id: str) -> None:
        """Repeats while the request is not there: the admission may still be on its way."""
        released = RELEASED.item(request_id)
        for turn in range(MOST_LOOKS_FOR_IT):
            if await self._settled(released, GIVE_BACK_PATIENCE_SECONDS) is not NOTHING_THERE:
                return
            await self._pause(FIRST_PAUSE_SECONDS * 2**turn)

    def _in_background(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _certain(self, batch: Batch, item: Item, patience_seconds: float) -> Any:
        give_up_at = self._clock() + patience_seconds
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return await batch.ask(item)
            except DatabaseUnavailable:
                if self._clock() + pause > give_up_at:
                    raise
            await self._pause(pause * (0.5 + self._randomness()))
            pause *= 2
