"""Downloads models from the hub into a store, once: interrupted ones go on where they stopped, and all are verified.

A file gets its name when its digest is right, so what has its name is whole, and a killed process leaves nothing to
clean up. What was verified is listed beside the files, with size and time of change.
"""

import asyncio
import contextlib
import errno
import json
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self, TypeVar

import httpx

from tollgate.agent.hub import ADDRESS, STALL_SECONDS, DownloadFailed, Hub, HubFile
from tollgate.agent.parts import Part, digest_of, part_of, uninterrupted
from tollgate.agent.progress import Meter, Progress
from tollgate.engines import model_files
from tollgate.engines.schemas import HubSource

__all__ = ["DownloadFailed", "Downloads", "Progress"]

RESERVE: Final = 256 * 2**20
"""Bytes of the disk that a download leaves free."""
PAUSES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 60.0)
"""Before the next attempt, while nothing comes. Each byte that comes begins them again."""
LIST: Final = ".tollgate.json"
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY: Final = {errno.EROFS, errno.EACCES, errno.EPERM}
Result = TypeVar("Result")


class Downloads:
    def __init__(
        self,
        store: Path,
        hub: str | None = None,
        offline: bool = False,
        *,
        stall_seconds: float = STALL_SECONDS,
        pauses: Sequence[float] = PAUSES,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        self._store = store
        self._hub = hub or os.environ.get("HF_ENDPOINT") or ADDRESS
        self._offline = offline
        self._stall_seconds = stall_seconds
        self._pauses = pauses
        self._free_bytes = free_bytes

    async def fetch(self, source: HubSource, token: str | None, progress: Callable[[Progress], None]) -> Path:
        """The path that an engine opens: a GGUF file, or the folder. To cancel, cancel the task; what came is kept."""
        if there := self.verified(source):
            return there
        if self._offline:
            raise DownloadFailed("offline", f"{source.repo_id} is not here, and this host does not download.")
        with _disk_failures():
            await asyncio.to_thread(self._folder(source).mkdir, parents=True, exist_ok=True)
            async with Hub(self._hub, token, self._stall_seconds) as hub:
                await self._fetch(hub, source, progress)
        if there := self.verified(source):
            return there
        raise DownloadFailed("digest", f"Files of {source.repo_id} changed while they were verified.", retryable=True)

    def verified(self, source: HubSource) -> Path | None:
        """Where a source is, if all of it is there as it was verified. Reads no file but the list."""
        folder = self._folder(source)
        listed = Listed.read(folder, source)
        names = source.files or listed.needed
        if names and all(listed.has(folder, name) for name in names):
            return folder / (model_files.entry(names) or "")
        return None

    def delete(self, source: HubSource) -> None:
        """Its files and parts; nothing if there are none."""
        folder = self._folder(source)
        if folder.exists():
            shutil.rmtree(folder)
            with contextlib.suppress(OSError):
                folder.parent.rmdir()

    async def adopt(self, path: Path, source: HubSource, token: str | None = None) -> Path:
        """Takes what is there already, such as the files of another tool's cache: those with the right size and digest
        are kept, the others downloaded. The given folder is not changed."""
        folder = self._folder(source)
        with _disk_failures():
            for file in await asyncio.to_thread(lambda: [one for one in path.rglob("*") if one.is_file()]):
                await uninterrupted(_link, file.resolve(), folder / file.relative_to(path))
        return await self.fetch(source, token, lambda _: None)

    def _folder(self, source: HubSource) -> Path:
        return self._store / source.repo_id.replace("/", "--") / source.revision.replace("/", "--")

    async def _fetch(self, hub: Hub, source: HubSource, progress: Callable[[Progress], None]) -> None:
        commit, files = await self._patiently(lambda: _wanted(hub, source))
        folder = self._folder(source)
        listed = Listed.read(folder, source)
        missing = [file for file in files if not listed.has(folder, file.path, digest_of(file))]
        meter = Meter(sum(file.size for file in files), progress)
        meter.found(sum(file.size for file in files) - sum(file.size for file in missing))
        absent = [file for file in missing if not (folder / file.path).exists()]
        self._check_space(sum(file.size - _size(part_of(folder, file)) for file in absent))
        needed = listed.needed if source.files else [file.path for file in files]
        for file in missing:
            await Part(hub, source.repo_id, commit, file, folder).fetch(meter, self._patiently, self._check_space)
            Listed.read(folder, source).with_file(folder, file).write(folder, source, commit)
        Listed.read(folder, source)._replace(needed=needed).write(folder, source, commit)

    async def _patiently(self, ask: Callable[[], Awaitable[Result]], moved: Callable[[], int] = lambda: 0) -> Result:
        """Asks again while the network fails, until `moved` stood still for all pauses."""
        failures = 0
        while True:
            before = moved()
            try:
                return await ask()
            except (httpx.TransportError, httpx.InvalidURL, ValueError) as error:
                message = f"The hub cannot be reached ({type(error).__name__})."
                failed = DownloadFailed("network", message, retryable=True)
            except DownloadFailed as refusal:
                if not refusal.retryable:
                    raise
                failed = refusal
            failures = 0 if moved() > before else failures + 1
            if failures > len(self._pauses):
                raise failed
            await asyncio.sleep(self._pauses[max(0, failures - 1)])

    def _check_space(self, needed: int) -> None:
        free = self._free_bytes(self._store) - RESERVE
        if needed > free:
            raise DownloadFailed(
                "no_space",
                f"{needed:,} more bytes are needed, and the store has {max(0, free):,}: free some, and start again.",
            )


class Listed(NamedTuple):
    """What was verified: of each file its size, time of change and digest; and which files an engine needs."""

    files: dict[str, list[Any]]
    needed: list[str]

    @classmethod
    def read(cls, folder: Path, source: HubSource) -> Self:
        """Empty where there is no list, or none of this repository."""
        try:
            match json.loads((folder / LIST).read_bytes()):
                case {"repo_id": source.repo_id, "files": dict(files), "needed": list(needed)}:
                    return cls(files, needed)
        except (OSError, ValueError):
            pass
        return cls({}, [])

    def write(self, folder: Path, source: HubSource, commit: str) -> None:
        """As a whole, and on the disk before it counts."""
        made = folder / f"{LIST}.new"
        with made.open("w", encoding="utf-8") as out:
            json.dump({"repo_id": source.repo_id, "commit": commit, **self._asdict()}, out)
            out.flush()
            os.fsync(out.fileno())
        made.rename(folder / LIST)

    def has(self, folder: Path, name: str, digest: str | None = None) -> bool:
        known = self.files.get(name, [None, None, None])
        return known[:2] == _stamp(folder / name) and digest in {None, known[2]}

    def with_file(self, folder: Path, file: HubFile) -> Self:
        return self._replace(files=self.files | {file.path: [*_stamp(folder / file.path), digest_of(file)]})


async def _wanted(hub: Hub, source: HubSource) -> tuple[str, list[HubFile]]:
    """The commit and the files of it."""
    commit = (await hub.model(source.repo_id, source.revision))["sha"]
    there = {file.path: file for file in await hub.tree(source.repo_id, commit)}
    names = source.files or model_files.needed(there)
    if absent := [name for name in names if name not in there]:
        raise DownloadFailed("absent", f"{source.repo_id} has no file {absent[0]}.")
    if not names:
        raise DownloadFailed("absent", f"{source.repo_id} has no files of a model.")
    return commit, [there[name] for name in names]


@contextlib.contextmanager
def _disk_failures() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DownloadFailed("no_space", "The disk of the store is full: free some. What came is kept.") from None
        if error.errno in _READ_ONLY:
            raise DownloadFailed(
                "read_only", "The store cannot be written: change its rights, or add files by hand."
            ) from None
        raise


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _stamp(path: Path) -> list[int]:
    """Empty if the file is not there."""
    with contextlib.suppress(OSError):
        found = path.stat()
        return [found.st_size, found.st_mtime_ns]
    return []


def _link(file: Path, target: Path) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)
