"""The model files of a deployment: whether they are there and whole, and if not, their download."""

import asyncio
from pathlib import Path
from typing import Final

from tollgate.agent.allowed_roots import OutsideRoots
from tollgate.agent.downloads import DownloadFailed, Progress
from tollgate.agent.phases import Files
from tollgate.agent.setup import Setup
from tollgate.engines.facts import Facts
from tollgate.engines.schemas import HubSource, PathSource, Spec

TOKEN_SECONDS: Final = 30.0
"""How long a gated download waits for a token: it comes with the answer to a sync."""
TOKEN_PAUSE: Final = 0.1


class ModelFiles:
    def __init__(self, setup: Setup, deployment: str) -> None:
        self._setup = setup
        self._deployment = deployment
        self._source: HubSource | PathSource | None = None
        self.path: Path | None = None
        self.facts: Facts | None = None
        self.failure: DownloadFailed | None = None
        self.progress: Progress | None = None
        self._download: asyncio.Task[None] | None = None

    @property
    def state(self) -> Files:
        if self.failure:
            return "unavailable"
        return "verified" if self.path else "unverified"

    async def examine(self, spec: Spec) -> None:
        """Looks once at the files of a source."""
        if spec.source != self._source:
            await self.cancel()
            self._source, self.path, self.facts, self.failure = spec.source, None, None, None
            await self._look(spec)

    def forget(self) -> None:
        """They are looked at again: they may have been deleted, or changed."""
        self._source = None

    async def fetch(self, spec: Spec) -> None:
        """Begins the download, if it is not under way."""
        await self.examine(spec)
        if self.path is None and self._download is None:
            self.failure = None
            self._download = asyncio.create_task(self._fetch(spec))

    async def cancel(self) -> None:
        """What was fetched is kept."""
        if self._download:
            self._download.cancel()
            await asyncio.wait([self._download])
            self._download = None
        self.progress = None

    async def _fetch(self, spec: Spec) -> None:
        try:
            if isinstance(spec.source, HubSource):
                await self._from_hub(spec.source)
            await self._look(spec)
        except DownloadFailed as failure:
            self.failure = failure
        except OSError as error:
            self.failure = DownloadFailed("no_space", f"The host cannot store the files: {error}.", retryable=True)
        finally:
            self._download = None
            self.progress = None

    async def _from_hub(self, source: HubSource) -> None:
        token = self._setup.hub_tokens.get(self._deployment)
        try:
            await self._setup.downloads.fetch(source, token, self._note)
        except DownloadFailed as failure:
            if failure.reason != "gated" or token or not (token := await self._token()):
                raise
            await self._setup.downloads.fetch(source, token, self._note)

    async def _token(self) -> str | None:
        for _ in range(int(TOKEN_SECONDS / TOKEN_PAUSE)):
            if token := self._setup.hub_tokens.get(self._deployment):
                return token
            await asyncio.sleep(TOKEN_PAUSE)
        return None

    def _note(self, progress: Progress) -> None:
        self.progress = progress

    async def _look(self, spec: Spec) -> None:
        """A path that is not there is looked for again later: it may be on a disk that is not mounted yet."""
        try:
            self.path = await asyncio.to_thread(found, self._setup, spec.source)
            if self.path:
                self.facts = await asyncio.to_thread(self._setup.folders.facts, self.path)
            elif isinstance(spec.source, PathSource):
                raise DownloadFailed("absent", f"There is no {spec.source.path} on the host.", retryable=True)
        except OutsideRoots as error:
            self.failure = DownloadFailed("absent", str(error))
        except DownloadFailed as failure:
            self.failure = failure


def found(setup: Setup, source: HubSource | PathSource) -> Path | None:
    """What an engine opens, if it is there."""
    if isinstance(source, HubSource):
        return setup.downloads.verified(source)
    path = setup.folders.model_path(source)
    return path if path.exists() else None
