"""What Postgres stores for all instances: the list of models that one of them fetched, our own routes, and aliases."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from tollgate.catalog import entries, store
from tollgate.catalog.entries import AliasRow, Entry, Hosted
from tollgate.core.errors import TollgateError
from tollgate.database import Door
from tollgate.process import logs

log = logs.source("upstream")

FEW: Final = 20
"""More entries than this are parsed in a thread, so that they do not block the event loop."""


class Known(NamedTuple):
    """The answer of the database."""

    hosted: list[Hosted]
    aliases: list[AliasRow]
    entries: list[Entry] | None
    """None without a snapshot, or if it is too old."""
    age_seconds: float


class Snapshot:
    """The snapshot of one source, so that the sandbox's prices are never used for OpenRouter."""

    def __init__(self, door: Door, source: str) -> None:
        self._door = door
        self._source = source

    async def known(self, names: Sequence[str] | None, within_seconds: int) -> Known | None:
        """The models of these names, or all. None if the database does not answer."""
        try:
            found = await store.catalog(self._door, self._source, names, within_seconds)
        except TollgateError:  # the door has logged it
            return None
        hosted = entries.hosted(found["routes"], found["upstreams"])
        aliases = entries.aliases(found.get("aliases", ()))  # absent before the schema has them
        return Known(hosted, aliases, await _read(found["models"]), found["age_seconds"] or 0)

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
