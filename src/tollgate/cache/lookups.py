"""Looks a paid call up in the cache as it is admitted, and lets identical calls wait for the first of them."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final, Literal

from tollgate.cache import store
from tollgate.cache.level import Kept, RedisLevel
from tollgate.cache.rules import Bounds, Use
from tollgate.database import Door
from tollgate.process.bounded_map import BoundedMap
from tollgate.process.clock import Monotonic

MOST_WAITING: Final = 1_000
"""Calls that wait in one process. More go upstream at once, within the limits of their orgs."""
FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 1.0
KEYS_REMEMBERED: Final = 10_000
WARMED_AT_ONCE: Final = 50

Item = dict[str, Any]
Admit = Callable[[Item], Awaitable[Mapping[str, Any]]]


class Cache:
    def __init__(
        self,
        bounds: Bounds,
        pepper: str,
        redis: RedisLevel | None,
        *,
        clock: Monotonic,
        pause: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self.bounds = bounds
        self.is_on = bounds.most_org_bytes > 0
        self.pepper = pepper
        self.redis = redis
        self._clock = clock
        self._pause = pause
        self._waiting = 0
        self._fillers: dict[str, asyncio.Event] = {}
        """The calls of this process that will fill an entry, by the ids of their requests."""
        self._settings: BoundedMap[str, bool] = BoundedMap(KEYS_REMEMBERED)
        """Whether a key caches by its setting, by its digest."""

    def by_setting(self, digest: str) -> bool | None:
        """As the last admission of the key said; None while it is not known."""
        return self._settings.get(digest) if self.is_on else False

    def learn(self, digest: str, caches: bool | None) -> None:
        if self._settings.get(digest) is not bool(caches):
            self._settings[digest] = bool(caches)

    async def admit(self, use: Use, item: Item, org_id: str | None, admit: Admit) -> Mapping[str, Any]:
        """The answer of the database, once it does not say to wait. `org_id` is known from the second call of a key
        on; without it, Redis is not asked."""
        assert use.key  # noqa: S101
        near = await self.redis.get(org_id, use.key) if self.redis and org_id and use.wish.reads else None
        wish = self._wish(use, near)
        if use.wish.writes:
            self._fillers[item["id"]] = asyncio.Event()
        try:
            answer = await admit({**item, "cache": wish})
            if "wait" in answer:
                with self._counted():
                    answer = await self._after_waiting(item, wish, answer, admit)
            return await self._taken(use, answer, near)
        finally:
            if use.outcome != "miss":
                self.ended(item["id"])

    def ended(self, request_id: str) -> None:
        """The call is settled. Those that waited for it go on."""
        if event := self._fillers.pop(request_id, None):
            event.set()

    async def keep_near(self, use: Use, org_id: str, kept: Kept, ttl_seconds: int) -> None:
        """Stores an answer in Redis that Postgres has, or is about to have."""
        if self.redis and use.key:
            await self.redis.put(org_id, use.key, kept, ttl_seconds)

    @property
    def redis_state(self) -> Literal["not_configured", "working", "resting"]:
        return self.redis.state if self.redis else "not_configured"

    async def warm(self, door: Door, filters: dict[str, Any], most: int) -> int:
        """Copies the newest answers from Postgres to Redis, until that fails; returns how many."""
        warmed = 0
        before: dict[str, Any] = {}
        while self.redis and warmed < most:
            page = await store.newest(door, {**filters, **before}, min(WARMED_AT_ONCE, most - warmed))
            for one in page["data"]:
                kept = Kept(one["request_id"], one["answer"])
                if not await self.redis.put(one["org_id"], one["cache_key"], kept, one["expires_in_seconds"]):
                    return warmed
                warmed += 1
            if len(page["data"]) < WARMED_AT_ONCE:
                break
            before = {"before": page["data"][-1]["filled_at"]}
        return warmed

    async def close(self) -> None:
        if self.redis:
            await self.redis.close()

    def _wish(self, use: Use, near: Kept | None) -> dict[str, Any]:
        return {
            "key": use.key,
            "asked": use.wish.asked,
            "reads": use.wish.reads,
            "writes": use.wish.writes,
            "waits": self.bounds.wait_seconds > 0 and self._waiting < MOST_WAITING,
            "wait_seconds": self.bounds.wait_seconds,
            "hit_share_ppm": self.bounds.hit_share_ppm,
            **({"held": near.request_id} if near else {}),
        }

    async def _after_waiting(
        self, item: Item, wish: dict[str, Any], answer: Mapping[str, Any], admit: Admit
    ) -> Mapping[str, Any]:
        """Asks again when the request that is waited for has ended, or the time is up. It waits for that one only."""
        until = self._clock() + self.bounds.wait_seconds
        pause = FIRST_PAUSE_SECONDS
        while "wait" in answer:
            filler = answer["wait"]["request_id"]
            left = until - self._clock()
            event = self._fillers.get(filler)
            if event is not None and left > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await event.wait()
            elif left > 0:
                await self._pause(min(pause, left))
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            more = {"waited_for": filler} if self._clock() < until else {"waits": False}
            answer = await admit({**item, "cache": {**wish, **more}})
        return answer

    async def _taken(self, use: Use, answer: Mapping[str, Any], near: Kept | None) -> Mapping[str, Any]:
        """Notes what became of the look-up. A hit gets the answer that Redis had, or Redis the answer of the hit."""
        if hit := answer.get("hit"):
            use.outcome = "hit"
            if hit["answer"] is None and near:
                return {**answer, "hit": {**hit, "answer": near.answer}}
            kept = Kept(hit["request_id"], hit["answer"])
            await self.keep_near(use, answer["granted"]["org_id"], kept, hit["expires_in_seconds"])
        elif "granted" in answer and (use.wish.asked or answer["granted"]["caches"]):
            use.outcome = "miss"
        return answer

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1
