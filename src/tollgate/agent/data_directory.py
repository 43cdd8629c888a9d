"""What the agent keeps on disk: who the host is, what is wanted of it, and what it runs. One agent holds it."""

import contextlib
import errno
import fcntl
import json
import os
import platform
import secrets
from pathlib import Path
from typing import Any, Final

INCARNATION: Final = "incarnation.json"
LONGEST_SOCKET_PATH: Final = 100
"""Systems refuse UNIX sockets with paths of more than 104 or 108 bytes."""


class DirectoryTaken(Exception):
    """Another agent holds the directory. The message is one line for the terminal."""


class DataDirectory:
    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._held: int | None = None

    def hold(self) -> None:
        """Until the process ends, however it ends."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        held = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(held)
            if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                raise
            raise DirectoryTaken(f"another agent runs on {self.path}: end it, or choose another --data-dir") from None
        self._held = held

    def release(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def read(self, name: str) -> dict[str, Any] | None:
        """None if it is absent, or is not JSON."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            found = json.loads((self.path / name).read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else None
        return None

    def write(self, name: str, value: dict[str, Any]) -> None:
        """All of it or nothing, and on the disk when this returns."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside = file.with_name(f".{file.name}.new")
        try:
            with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
                json.dump(value, out)
                out.flush()
                os.fsync(out.fileno())
            beside.replace(file)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        _sync_folder(file.parent)

    def place(self) -> dict[str, Any]:
        """Where the directory is. A copy is in another place."""
        status = self.path.stat()
        return {"machine": _machine(), "device": status.st_dev, "inode": status.st_ino}

    def incarnation(self) -> tuple[str, bool]:
        """The incarnation, and whether the directory is a copy. A restarted agent keeps its incarnation, so that it
        need not wait until its own lease ends; a copy, or the same directory after a boot, gets a new one."""
        place, boot, known = self.place(), boot_id(), self.read(INCARNATION)
        moved = known is not None and known["place"] != place
        if known and not moved and known["boot"] == boot:
            return known["incarnation"], known["is_copy"]
        is_copy = moved or (known is not None and known["is_copy"])
        made = secrets.token_hex(16)
        self.write(INCARNATION, {"place": place, "boot": boot, "incarnation": made, "is_copy": is_copy})
        return made, is_copy

    def accept(self) -> None:
        """The control plane knows this directory as the host's, so it is no copy any more."""
        if (known := self.read(INCARNATION)) and known["is_copy"]:
            self.write(INCARNATION, {**known, "is_copy": False})

    def socket(self, name: str) -> Path | None:
        """A path for a UNIX socket, if the directory's own is short enough."""
        path = self.path / "s" / name
        if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
            return None
        path.parent.mkdir(exist_ok=True, mode=0o700)
        return path


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def boot_id() -> str:
    """Another one after each boot: monotonic times and process ids count within one only."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    import psutil

    return str(int(psutil.boot_time()))


def _machine() -> str:
    with contextlib.suppress(OSError):
        if known := Path("/etc/machine-id").read_text(encoding="ascii").strip():
            return known
    return platform.node()
