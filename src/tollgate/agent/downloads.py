"""Look-alike: downloads from the hub."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tollgate.engines.schemas import HubSource


@dataclass(frozen=True)
class Progress:
    file: str
    bytes_done: int
    bytes_total: int
    bytes_per_second: float
    seconds_left: float | None


class DownloadFailed(Exception):
    def __init__(self, reason: str, message: str, retryable: bool) -> None:
        super().__init__(message)
        self.reason, self.message, self.retryable = reason, message, retryable


class Downloads:
    def __init__(self, store: Path, hub: str = "https://huggingface.co", offline: bool = False) -> None:
        self._store = store

    async def fetch(self, source: HubSource, token: str | None, progress: Callable[[Progress], None]) -> Path:
        raise DownloadFailed("offline", "the look-alike downloads nothing", False)

    def verified(self, source: HubSource) -> Path | None:
        found = self._store / source.repo_id.replace("/", "--")
        return found if found.exists() else None

    def delete(self, source: HubSource) -> None:
        return None

    def adopt(self, path: Path) -> None:
        return None
