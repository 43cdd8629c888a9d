"""The catalogue in memory: fresh for five minutes, served for a day while nobody can say better.

Behind it stand, in the order in which they are asked, the snapshot that Postgres keeps for all instances, and
OpenRouter. An instance that has nothing yet reads the one model that it is asked for, and fills its memory in the
background. Nothing depends on that background: where it never runs, as on a host that freezes between requests, each
model is read from the snapshot, and what nobody kept is fetched before the answer.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from cachetools import TTLCache

from tollgate.catalog.entries import Entry, Hosted
from tollgate.catalog.index import CatalogIndex
from tollgate.catalog.rules import spellings
from tollgate.catalog.snapshot import Known, Snapshot
from tollgate.catalog.source import Source, SourceFailed
from tollgate.core.errors import CatalogUnavailable, ModelNotFound
from tollgate.core.models import Model, Upstream
from tollgate.database import Door
from tollgate.process import logs
from tollgate.process.clock import Monotonic

log = logs.source("upstream")

FRESH_SECONDS: Final = 300
OLDEST_SECONDS: Final = 86_400
FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 60.0
MOST_SINGLE: Final = 1000
"""Models of a cold instance, each read by itself."""


class CatalogState(NamedTuple):
    models: int
    age_seconds: float | None
    """Since OpenRouter's list was taken, here or elsewhere; None while it is not known."""
    fresh: bool
    hits: int
    """Answered from memory."""
    misses: int
    """Answered after asking Postgres or OpenRouter."""
    refreshes: int
    failures: int
    """Refreshes that got no list."""
    skipped: int
    """Entries of the last list that could not be used."""
    last_error: str | None


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

    async def find(self, name: str) -> Model:
        """The model of this name, by any of its spellings. From memory, nothing is awaited."""
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
        """All that can be had. The same tuple, as long as nothing has changed."""
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
        """Asks OpenRouter and the database now. CatalogUnavailable where OpenRouter has no list to give."""
        if self._loading is not None:
            await asyncio.wait([self._loading])  # it may have begun before what the caller knows of
        failures = self._failures
        await asyncio.shield(self._load(forced=True))
        if self._failures > failures:
            raise CatalogUnavailable

    async def reread(self) -> bool:
        """Takes up what the database says now of our own servers; OpenRouter is not asked. Whether that was done."""
        if self._snapshot is None:
            return True
        if self._asking:
            await asyncio.wait(self._asking.values())  # they may have begun before what the caller knows of
        known = await self._read_hosted(0)
        self._single.clear()
        if self._index is not None:
            self._arrange()
        return known is not None

    @property
    def kept_as(self) -> str | None:
        """The source under which all instances share its list; None where they do not."""
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
        """Ends what runs in the background."""
        running = [task for task in (self._loading, *self._asking.values()) if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _find_cold(self, name: str) -> Model:
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
        index = CatalogIndex(known.entries, known.hosted, self._home)
        try:
            model = index.find(name, self._today)
        except ModelNotFound:
            if known.age_seconds < FRESH_SECONDS:
                raise
            return await self._find_loaded(name)
        self._single[name] = index
        self._misses += 1
        return model

    async def _find_loaded(self, name: str) -> Model:
        return (await self._loaded()).find(name, self._today)

    async def _loaded(self) -> CatalogIndex:
        """What there is after the load that is under way, or due. None is begun sooner after a failure."""
        self._misses += 1
        self._load_if_due()
        if self._loading is not None:
            await asyncio.shield(self._loading)
        index = self._usable()
        if index is None:
            raise CatalogUnavailable
        return index

    async def _ask_for(self, name: str) -> Known | None:
        """One call for all who want this model at once."""
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
        """One at a time."""
        if self._loading is None:
            self._loading = asyncio.create_task(self._fill(forced))
            self._loading.add_done_callback(self._ended)
        return self._loading

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._loading = None

    async def _fill(self, forced: bool) -> None:
        """From the snapshot while that is fresh, else from OpenRouter, and then for the others into the snapshot."""
        self._refreshes += 1
        self._put_off()  # whatever happens now, the next one waits
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
        """No list to be had: the old one stays, else the last that anybody kept, else our own servers alone."""
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
        """A good list. It is due again when it has aged, or sooner, where the database had nothing to say."""
        self._entries, self._taken_at = taken, at
        self._last_error = None
        self._arrange()
        if not put_off:
            self._pause = 0.0
            self._due_at = at + FRESH_SECONDS

    def _arrange(self) -> None:
        whole = self._entries is not None and self._hosted is not None
        self._index = CatalogIndex(self._entries or (), self._hosted or (), self._home, whole=whole)
        self._single.clear()

    def _put_off(self) -> None:
        self._pause = min(max(self._pause * 2, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
        self._due_at = self._clock() + self._pause

    async def _read_hosted(self, within_seconds: int) -> Known | None:
        """With the snapshot, if it is no older. An answer that was asked for earlier than what is here is old."""
        self._readings += 1
        reading = self._readings
        known = await self._known(None, within_seconds)
        if known is not None and reading > self._newest_reading:
            self._newest_reading = reading
            self._hosted = known.hosted
        return known

    async def _known(self, names: Sequence[str] | None, within_seconds: int) -> Known | None:
        return await self._snapshot.known(names, within_seconds) if self._snapshot is not None else None

    def _today(self) -> str:
        return self._now().date().isoformat()
