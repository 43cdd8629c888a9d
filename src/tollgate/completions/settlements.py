"""The two calls that move credits: batched, shielded, and made again, with the same id, while unsure of the outcome."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from tollgate.completions import store
from tollgate.core.errors import DatabaseUnavailable, TollgateError
from tollgate.database import Door
from tollgate.process import logs
from tollgate.process.batching import Batch, Item
from tollgate.process.clock import Monotonic

log = logs.source("database")

Answer = Mapping[str, Any]
Randomness = Callable[[], float]

LANES = 1
"""More would make the batches smaller: what they save in waiting they cost in calls."""
MOST_TOGETHER = 64
ADMIT_PATIENCE_SECONDS = 1.5
SETTLE_PATIENCE_SECONDS = 6.0
"""How long an unknown outcome is asked for. A settlement has more time: without it, the sweeper must guess."""
GIVE_BACK_PATIENCE_SECONDS = 60.0
MOST_LOOKS_FOR_IT = 7
"""For an admission to give back: over more than 12 s, which is longer than any call to the database may take."""
FINISH_SECONDS = 1.0
"""With the grace that the server gives its requests, below what a host gives the process."""
FIRST_PAUSE_SECONDS = 0.1

NOTHING_THERE: Answer = {}


class Books:
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
        self._open_ends: set[asyncio.Task[Any]] = set()

    async def admit(self, item: Item) -> Answer:
        """granted, replay or refusal. What may have been granted without its asker's hearing of it is given back."""
        try:
            answer: Answer = await self._certain(partial(self._admitting.ask, item), ADMIT_PATIENCE_SECONDS)
        except (DatabaseUnavailable, asyncio.CancelledError):
            self._go_on(self._give_back(item["id"]))
            raise
        if "granted" in answer:
            self._open.add(item["id"])
        return answer

    async def settle(self, item: Item) -> Answer | None:
        """What was settled. None when that cannot be done now: then the hold stays, and the sweeper ends it.
        It is done, too, when its asker is cancelled meanwhile."""
        try:
            return await self._settled(item, SETTLE_PATIENCE_SECONDS)
        except asyncio.CancelledError:
            self._go_on(self._settled(item, SETTLE_PATIENCE_SECONDS))
            raise
        finally:
            self._open.discard(item["id"])

    async def note_generation(self, request_id: str, generation_id: str, upstream: str) -> None:
        """Best effort: it only matters if we do not live to settle."""
        try:
            await self._noting.ask({"id": request_id, "generation_id": generation_id, "upstream": upstream})
        except TollgateError as error:
            log.warning("generation_not_noted", paid_request_id=request_id, error_code=error.code)

    @property
    def is_quiet(self) -> bool:
        """Whether all that was admitted here is settled, and nothing goes on that nobody waits for."""
        return not (self._open or self._open_ends)

    async def finish(self) -> None:
        """Before the doors close: lets what is under way come to its end."""
        give_up_at = self._clock() + FINISH_SECONDS
        while not self.is_quiet and self._clock() < give_up_at:
            await self._pause(FIRST_PAUSE_SECONDS)

    async def _settled(self, item: Item, patience_seconds: float) -> Answer | None:
        try:
            answer = await self._certain(partial(self._settling.ask, item), patience_seconds)
        except TollgateError as error:
            log.error("settlement_left_to_the_sweeper", paid_request_id=item["id"], error_code=error.code)
            return None
        settled: Answer = answer.get("settled", NOTHING_THERE)
        return settled

    async def _give_back(self, request_id: str) -> None:
        """Where there is nothing yet, the admission may still be on its way; later it will not be."""
        released = {"id": request_id, "outcome": "released"}
        for turn in range(MOST_LOOKS_FOR_IT):
            if await self._settled(released, GIVE_BACK_PATIENCE_SECONDS) is not NOTHING_THERE:
                return
            await self._pause(FIRST_PAUSE_SECONDS * 2**turn)

    def _go_on(self, work: Coroutine[Any, Any, Any]) -> None:
        """With what nobody waits for."""
        task = asyncio.create_task(work)
        self._open_ends.add(task)
        task.add_done_callback(self._open_ends.discard)

    async def _certain(self, ask: Callable[[], Awaitable[Any]], patience_seconds: float) -> Any:
        give_up_at = self._clock() + patience_seconds
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return await ask()
            except DatabaseUnavailable:
                if self._clock() + pause > give_up_at:
                    raise
            await self._pause(pause * (0.5 + self._randomness()))
            pause *= 2
