"""The catalog in memory: fresh for five minutes, used for a day while no newer list can be fetched.

It is filled from the snapshot that Postgres keeps for all instances, else from OpenRouter. A cold instance reads only
the model of the request, and loads the rest in the background. Nothing depends on the background task: on a host that
freezes between requests it may never run, and then each model is read from the snapshot, or fetched if there is none.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from cachetools import TTLCache

from tollgate.catalog.entries import AliasRow, Entry, Hosted
from tollgate.catalog.index import CatalogIndex, Found
from tollgate.catalog.rules import FRESH_SECONDS, OLDEST_SECONDS, CatalogState, spellings
from tollgate.catalog.snapshot import Known, Snapshot
from tollgate.catalog.source import Source, SourceFailed
from tollgate.core.errors import CatalogUnavailable, ModelNotFound
from tollgate.core.models import Model, Upstream
from tollgate.database import Door
from tollgate.process import logs
from tollgate.process.clock import Monotonic

log = logs.source("upstream")

FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 60.0
MOST_SINGLE: Final = 1000
"""The most models that a cold instance reads one by one."""


class Catalog:
    def __init__(
        self,
        home: Upstream,
        source: Source,
        door: Door | None,
        *,
        clock: Monotonic,
        now: Callable[[], datetime],
    ) -> None:
        self._home = home
        self._source = source
        self._snapshot = Snapshot(door, source.base_url) if door is not None else None
        self._clock = clock
        self._now = now
        self._index: CatalogIndex | None = None
        self._entries: list[Entry] | None = None
        self._hosted: list[Hosted] | None = [] if door is None else None
        self._aliases: list[AliasRow] = []
        self._readings = self._newest_reading = 0
        self._taken_at = 0.0
        self._due_at = clock()
        self._pause = 0.0
        self._loading: asyncio.Task[None] | None = None
        self._single: TTLCache[str, CatalogIndex] = TTLCache(MOST_SINGLE, FRESH_SECONDS, timer=clock)
        self._asking: dict[str, asyncio.Task[Known | None]] = {}
        self._offered: tuple[CatalogIndex, str, tuple[Model, ...]] | None = None
        self._hits = self._misses = self._refreshes = self._failures = self._skipped = 0
        self._last_error: str | None = None

    async def find(self, name: str) -> Found:
        """The model of this name, in any spelling, or the alias. If it is in memory, nothing is awaited."""
        index = self._usable()
        if index is None:
            return await self._find_cold(name)
        self._load_if_due()
        try:
            model = index.find(name, self._today)
        except (ModelNotFound, CatalogUnavailable):
            if self._loading is None:
                raise
            return await self._find_loaded(name)
        self._hits += 1
        return model

    async def models(self) -> Sequence[Model]:
        """All models on offer. Returns the same tuple while nothing has changed."""
        index = self._usable()
        if index is None:
            index = await self._loaded()
        else:
            self._hits += 1
            self._load_if_due()
        today = self._today()
        if self._offered is None or self._offered[:2] != (index, today):
            self._offered = (index, today, index.offered(today))
        return self._offered[2]

    async def refresh(self) -> None:
        """Asks OpenRouter and the database now. Raises CatalogUnavailable if OpenRouter sends no list."""
        if self._loading is not None:
            await asyncio.wait([self._loading])  # it may have begun before the change that the caller made
        failures = self._failures
        await asyncio.shield(self._load(forced=True))
        if self._failures > failures:
            raise CatalogUnavailable

    async def reread(self) -> bool:
        """Reads our own upstreams and routes again, without asking OpenRouter. Returns whether it could."""
        if self._snapshot is None:
            return True
        if self._asking:
            await asyncio.wait(self._asking.values())  # they may have begun before the change that the caller made
        known = await self._read_hosted(0)
        self._single.clear()
        if self._index is not None:
            self._arrange()
        return known is not None

    @property
    def kept_as(self) -> str | None:
        """The key of the shared snapshot; None if this catalog has none."""
        return self._source.base_url if self._snapshot is not None else None

    def state(self) -> CatalogState:
        age = None if self._entries is None else self._clock() - self._taken_at
        return CatalogState(
            models=len(self._index or ()),
            age_seconds=age,
            fresh=age is not None and age < FRESH_SECONDS,
            hits=self._hits,
            misses=self._misses,
            refreshes=self._refreshes,
            failures=self._failures,
            skipped=self._skipped,
            last_error=self._last_error,
        )

    async def close(self) -> None:
        """Cancels the background tasks."""
        running = [task for task in (self._loading, *self._asking.values()) if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _find_cold(self, name: str) -> Found:
        """From the snapshot, else from the whole list."""
        index = self._single.get(name)
        if index is not None:
            self._hits += 1
            self._load_if_due()
            return index.find(name, self._today)
        known = await self._ask_for(name)
        if known is None or known.entries is None:
            return await self._find_loaded(name)
        self._load_if_due()
        index = CatalogIndex(known.entries, known.hosted, self._home, aliases=known.aliases)
        try:
            model = index.find(name, self._today)
        except ModelNotFound:
            if known.age_seconds < FRESH_SECONDS:
                raise
            return await self._find_loaded(name)
        self._single[name] = index
        self._misses += 1
        return model

    async def _find_loaded(self, name: str) -> Found:
        return (await self._loaded()).find(name, self._today)

    async def _loaded(self) -> CatalogIndex:
        """Waits for the load that is running or due. After a failure the next load waits for its pause."""
        self._misses += 1
        self._load_if_due()
        if self._loading is not None:
            await asyncio.shield(self._loading)
        index = self._usable()
        if index is None:
            raise CatalogUnavailable
        return index

    async def _ask_for(self, name: str) -> Known | None:
        """One call of the database for all concurrent requests of this model."""
        task = self._asking.get(name)
        if task is None:
            task = self._asking[name] = asyncio.create_task(self._known(spellings(name), OLDEST_SECONDS))
            task.add_done_callback(lambda _: self._asking.pop(name))
        return await asyncio.shield(task)

    def _usable(self) -> CatalogIndex | None:
        return self._index if self._clock() - self._taken_at < OLDEST_SECONDS else None

    def _load_if_due(self) -> None:
        if self._loading is None and self._clock() >= self._due_at:
            self._load()

    def _load(self, *, forced: bool = False) -> "asyncio.Task[None]":
        """Runs one load at a time."""
        if self._loading is None:
            self._loading = asyncio.create_task(self._fill(forced))
            self._loading.add_done_callback(self._ended)
        return self._loading

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._loading = None

    async def _fill(self, forced: bool) -> None:
        """From the snapshot while it is fresh, else from OpenRouter; then the snapshot is updated."""
        self._refreshes += 1
        self._put_off()  # before anything can fail
        began = self._clock()
        known = await self._read_hosted(0 if forced else FRESH_SECONDS)
        if known is not None and known.entries:
            self._take(known.entries, began - known.age_seconds)
            return
        began = self._clock()
        try:
            fetched = await self._source.fetch()
        except SourceFailed as error:
            await self._make_do(error)
            return
        self._skipped = fetched.skipped
        self._take(fetched.entries, began, put_off=self._snapshot is not None and known is None)
        if self._snapshot is not None:
            await self._snapshot.keep(fetched.entries, self._clock() - began)

    async def _make_do(self, error: SourceFailed) -> None:
        """Without a new list: keeps the old one, else takes an old snapshot, else serves our own upstreams only."""
        self._failures += 1
        self._last_error = str(error)
        log.warning("catalog_not_refreshed", cause=self._last_error)
        if self._entries is None or self._usable() is None:
            known = await self._known(None, OLDEST_SECONDS)
            self._entries = (known and known.entries) or None
            self._taken_at = self._clock() - (known.age_seconds if known and self._entries else 0)
        if self._entries or self._hosted:
            self._arrange()
        else:
            self._index = None

    def _take(self, taken: list[Entry], at: float, *, put_off: bool = False) -> None:
        """Uses a new list. The next load is due when it is no longer fresh; sooner if the database did not answer."""
        self._entries, self._taken_at = taken, at
        self._last_error = None
        self._arrange()
        if not put_off:
            self._pause = 0.0
            self._due_at = at + FRESH_SECONDS

    def _arrange(self) -> None:
        whole = self._entries is not None and self._hosted is not None
        self._index = CatalogIndex(
            self._entries or (), self._hosted or (), self._home, aliases=self._aliases, whole=whole
        )
        self._single.clear()

    def _put_off(self) -> None:
        self._pause = min(max(self._pause * 2, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
        self._due_at = self._clock() + self._pause

    async def _read_hosted(self, within_seconds: int) -> Known | None:
        """Reads our own routes and aliases, and the snapshot if it is fresh enough. A late answer does not replace a
        newer one."""
        self._readings += 1
        reading = self._readings
        known = await self._known(None, within_seconds)
        if known is not None and reading > self._newest_reading:
            self._newest_reading = reading
            self._hosted, self._aliases = known.hosted, known.aliases
        return known

    async def _known(self, names: Sequence[str] | None, within_seconds: int) -> Known | None:
        return await self._snapshot.known(names, within_seconds) if self._snapshot is not None else None

    def _today(self) -> str:
        return self._now().date().isoformat()
