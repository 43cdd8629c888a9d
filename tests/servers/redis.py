"""A Redis server."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from servers.process import free_port, give_away, listens, running, unprivileged

PROGRAM = shutil.which("redis-server", path="/usr/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")


class Redis:
    """One address, at which a server may be killed, and another started that has forgotten everything."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.chmod(0o711)
        give_away(folder)
        self._port = free_port()
        self._running = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        assert PROGRAM is not None
        command = unprivileged(
            PROGRAM, "--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
            "--dir", self._folder,
        )  # fmt: skip
        log = self._folder / "log"
        self._process = self._running.enter_context(running(command, lambda: listens(self._port), log))

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._running.close()


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[Redis]:
    made = Redis(folder)
    made.start()
    try:
        yield made
    finally:
        made.kill()
