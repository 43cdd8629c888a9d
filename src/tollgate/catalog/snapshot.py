"""What Postgres keeps for all instances: the list of models as one of them took it, and the routes of our own."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from tollgate.catalog import entries, store
from tollgate.catalog.entries import Entry, Hosted
from tollgate.core.errors import TollgateError
from tollgate.database import Door
from tollgate.process import logs

log = logs.source("upstream")

FEW: Final = 20
"""So many entries are read at once; more would hold up everyone else."""


class Known(NamedTuple):
    """What the database answered."""

    hosted: list[Hosted]
    entries: list[Entry] | None
    """None where there is no snapshot, or too old a one."""
    age_seconds: float


class Snapshot:
    """Each source has its own, so that nobody takes the sandbox's prices for OpenRouter's."""

    def __init__(self, door: Door, source: str) -> None:
        self._door = door
        self._source = source

    async def known(self, names: Sequence[str] | None, within_seconds: int) -> Known | None:
        """Of these names, or of all. None where the database cannot be asked."""
        try:
            found = await store.catalog(self._door, self._source, names, within_seconds)
        except TollgateError:  # the door has logged it
            return None
        hosted = entries.hosted(found["routes"], found["upstreams"])
        return Known(hosted, await _read(found["models"]), found["age_seconds"] or 0)

    async def keep(self, taken: list[Entry], age_seconds: float) -> None:
        rows: list[dict[str, Any]] = await asyncio.to_thread(entries.written, taken)
        try:
            await store.keep(self._door, self._source, rows, int(age_seconds * 1000))
        except TollgateError:
            log.warning("catalog_not_kept")


async def _read(listings: list[str] | None) -> list[Entry] | None:
    if listings is None:
        return None
    if len(listings) <= FEW:
        return entries.read_back(listings)
    return await asyncio.to_thread(entries.read_back, listings)
