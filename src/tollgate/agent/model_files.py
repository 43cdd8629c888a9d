"""The model files of a deployment: whether they are there and whole, and if not, their download."""

import asyncio
import glob
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

from tollgate.agent.allowed_roots import OutsideRoots, within
from tollgate.agent.downloads import DownloadFailed, Progress
from tollgate.agent.setup import Setup
from tollgate.engines import headers
from tollgate.engines.facts import Facts, join
from tollgate.engines.schemas import HubSource, PathSource, Spec

TOKEN_SECONDS = 30.0
"""How long a gated download waits for a token: it comes with the answer to a sync."""

TOKEN_PAUSE = 0.1
PART: Final = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")


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
    def state(self) -> Any:
        if self.failure:
            return "unavailable"
        return "verified" if self.path else "unverified"

    async def examine(self, spec: Spec) -> None:
        """Looks once at the files of a source."""
        if spec.source == self._source:
            return
        await self.cancel()
        self._source, self.path, self.facts, self.failure, self.progress = spec.source, None, None, None, None
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
            if isinstance(spec.source, PathSource):
                await self._look(spec)
            else:
                await self._from_hub(spec.source)
                await self._look(spec)
            if self.path is None and self.failure is None:
                raise DownloadFailed("absent", "The files that were fetched are not there.", retryable=True)
        except DownloadFailed as failure:
            self.failure = failure
        except OSError as error:
            self.failure = DownloadFailed("no_space", f"The host cannot store the files: {error}", retryable=True)
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
        try:
            found = await asyncio.to_thread(self._find, spec)
            self.facts = await asyncio.to_thread(read_facts, found) if found else None
            self.path = found
        except DownloadFailed as failure:
            self.failure = failure

    def _find(self, spec: Spec) -> Path | None:
        if isinstance(spec.source, HubSource):
            found = self._setup.downloads.verified(spec.source)
            return model_path(found, spec) if found else None
        try:
            path = within(spec.source.path, list(self._setup.roots))
        except OutsideRoots:
            roots = ", ".join(map(str, self._setup.roots)) or "none"
            raise DownloadFailed(
                "absent", f"{spec.source.path} is not inside the host's allowed folders: {roots}.", retryable=False
            ) from None
        if not path.exists():
            raise DownloadFailed("absent", f"There is no {spec.source.path} on the host.", retryable=True)
        return model_path(path, spec)


def model_path(found: Path, spec: Spec) -> Path:
    """llama.cpp wants a file: the first part of a model, or the one that the source names."""
    if spec.engine != "llamacpp" or not found.is_dir():
        return found
    files = sorted(one for one in found.rglob("*.gguf") if "mmproj" not in one.name.lower())
    named = set(spec.source.files) if isinstance(spec.source, HubSource) else set[str]()
    chosen = [one for one in files if str(one.relative_to(found)) in named] or files
    if not chosen:
        raise DownloadFailed("absent", f"There is no GGUF file in {found}: choose another folder.", retryable=False)
    return chosen[0]


def read_facts(path: Path) -> Facts | None:
    """What the files' headers say. None if they cannot be read: the engine will say why."""
    try:
        if path.is_dir():
            config = headers.config_json((path / "config.json").read_bytes())
            return join([config, *(_of(headers.safetensors, file) for file in sorted(path.glob("*.safetensors")))])
        return join(_of(headers.gguf, file) for file in _parts(path)) if path.suffix == ".gguf" else None
    except (OSError, headers.BadHeader):
        return None


def _of(read: Callable[[BinaryIO, int], Facts], file: Path) -> Facts:
    with file.open("rb") as opened:
        return read(opened, file.stat().st_size)


def _parts(path: Path) -> list[Path]:
    """All files of a model that begins with this one."""
    if not (found := PART.search(path.name)):
        return [path]
    beginning, count = path.name[: found.start()], found[1]
    return sorted(path.parent.glob(f"{glob.escape(beginning)}-?????-of-{count}.gguf"))
