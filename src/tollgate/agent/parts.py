"""One file on its way from the hub, as a part that grows until its digest is right."""

import asyncio
import contextlib
import fcntl
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import httpx

from tollgate.agent.hub import DownloadFailed, Hub, HubFile
from tollgate.agent.progress import Meter

BLOCK: Final = 2**20
"""Written and hashed together. A killed process loses less than one."""
HASHED_AT_ONCE: Final = 64 * BLOCK
LOCK_SECONDS: Final = 1.0

Result = TypeVar("Result")
Patiently = Callable[[Callable[[], Awaitable[None]], Callable[[], int]], Awaitable[None]]
"""Calls the first again while the network fails and the second, the bytes so far, does not stand still for long."""
CheckSpace = Callable[[int], None]


class Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class Part:
    def __init__(self, hub: Hub, repo_id: str, commit: str, file: HubFile, folder: Path) -> None:
        self._hub, self._repo_id, self._commit, self._file = hub, repo_id, commit, file
        self._whole, self._path = folder / file.path, part_of(folder, file)
        self._done = 0
        self._hash = new_hash(file)

    async def fetch(self, meter: Meter, patiently: Patiently, check_space: CheckSpace) -> None:
        """Keeps what is there under the file's name if its digest is right, else downloads, at most twice."""
        await asyncio.to_thread(self._whole.parent.mkdir, parents=True, exist_ok=True)
        for _ in range(2):
            if await self._download(meter, patiently, check_space):
                return
            meter.found(-self._done)
        raise DownloadFailed(
            "digest", f"{self._file.path} came with a wrong digest twice: the hub, or a proxy before it, is at fault."
        )

    async def _is_there(self) -> bool:
        if not self._whole.exists():
            return False
        with self._whole.open("rb") as opened:
            await self._hash_what_is_there(opened.fileno())
        if self._is_right():
            return True
        self._whole.unlink()
        return False

    async def _download(self, meter: Meter, patiently: Patiently, check_space: CheckSpace) -> bool:
        descriptor = await locked(self._path)
        try:
            if await self._is_there():
                self._path.unlink()
                meter.found(self._file.size)
                return True
            await self._hash_what_is_there(descriptor)
            meter.found(self._done)
            await patiently(lambda: self._receive(descriptor, meter, check_space), lambda: self._done)
            if not self._is_right():
                self._path.unlink()
                return False
            await uninterrupted(os.fsync, descriptor)
            self._path.rename(self._whole)
            remove_parts(self._whole)
            return True
        finally:
            os.close(descriptor)

    async def _receive(self, descriptor: int, meter: Meter, check_space: CheckSpace) -> None:
        if self._done >= self._file.size:
            return
        async with self._hub.open(self._repo_id, self._commit, self._file.path, self._done) as response:
            if self._done and not self._continues(response):
                meter.found(-self._done)
                self._done, self._hash = 0, new_hash(self._file)
                os.ftruncate(descriptor, 0)
            async for block in blocks(response):
                check_space(len(block))
                kept = block[: self._file.size - self._done]
                await uninterrupted(self._keep, descriptor, kept)
                meter.came(self._file.path, len(kept))
        if self._done < self._file.size:
            raise DownloadFailed("network", f"The hub ended {self._file.path} early.", retryable=True)

    def _continues(self, response: httpx.Response) -> bool:
        if response.status_code == 416:
            raise DownloadFailed("network", f"The hub has no byte {self._done} of {self._file.path}.", retryable=True)
        return response.status_code == 206 and response.headers.get("content-range", "").startswith(
            f"bytes {self._done}-"
        )

    def _keep(self, descriptor: int, block: bytes) -> None:
        """Counts what is written even where the disk is full in the middle of it."""
        written = 0
        while written < len(block):
            count = os.pwrite(descriptor, block[written:], self._done)
            self._hash.update(block[written : written + count])
            self._done += count
            written += count

    async def _hash_what_is_there(self, descriptor: int) -> None:
        self._done, self._hash = 0, new_hash(self._file)
        while read := await uninterrupted(self._hash_some, descriptor):
            self._done += read

    def _hash_some(self, descriptor: int) -> int:
        total = 0
        while total < HASHED_AT_ONCE and (data := os.pread(descriptor, BLOCK, self._done + total)):
            self._hash.update(data)
            total += len(data)
        return total

    def _is_right(self) -> bool:
        return self._done == self._file.size and self._hash.hexdigest() == digest_of(self._file)


async def blocks(response: httpx.Response) -> AsyncIterator[bytes]:
    """Also what came before the connection broke."""
    block = bytearray()
    try:
        async for chunk in response.aiter_raw():
            block += chunk
            if len(block) >= BLOCK:
                yield bytes(block)
                block.clear()
    except httpx.TransportError:
        if block:
            yield bytes(block)
        raise
    if block:
        yield bytes(block)


async def uninterrupted(function: Callable[..., Result], *arguments: Any) -> Result:
    """In a thread. Whoever is cancelled waits for it, so that no descriptor is closed while it writes."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


async def locked(part: Path) -> int:
    """The part, opened and locked. Waits while another process downloads it. The lock ends with the process."""
    while True:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_still(part, descriptor):
                return descriptor
        except BlockingIOError:
            await asyncio.sleep(LOCK_SECONDS)
        os.close(descriptor)


def is_still(part: Path, descriptor: int) -> bool:
    """Another process may have finished it, and renamed it, before we got the lock."""
    return part.exists() and os.path.samestat(part.stat(), os.fstat(descriptor))


def digest_of(file: HubFile) -> str:
    return file.sha256 or file.git_id


def new_hash(file: HubFile) -> Hash:
    if file.sha256:
        return hashlib.sha256()
    made = hashlib.sha1(usedforsecurity=False)
    made.update(f"blob {file.size}\0".encode())
    return made


def part_of(folder: Path, file: HubFile) -> Path:
    """Named by the digest too, so that a part never becomes part of another version."""
    return folder / f"{file.path}.{digest_of(file)[:16]}.part"


def remove_parts(whole: Path) -> None:
    """Of other versions of a file that is there now."""
    for part in whole.parent.glob("*.part"):
        if part.name.rsplit(".", 2)[0] == whole.name:
            with contextlib.suppress(FileNotFoundError):
                part.unlink()
