"""Starting and ending the programs of the tests."""

import contextlib
import http.client
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

START_SECONDS = 60
UNPRIVILEGED = "nobody"


_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_OURS = range(10_000 + _WORKER, 32_000, _WORKERS)
"""Below those that systems give to outgoing connections. Each worker has its own: between the choice of a port and the
start of its server, another must not choose it too."""
_PORTS = iter(random.SystemRandom().sample(_OURS, len(_OURS)))


def free_port() -> int:
    """A port that this process never used before: what is remembered by address belongs to one server only."""
    return next(port for port in _PORTS if _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def unprivileged(*command: str | Path) -> list[str]:
    """As nobody when the tests run as root, for programs that refuse to be root."""
    words = [str(word) for word in command]
    if os.geteuid() != 0:
        return words
    capability = "+dac_override"
    return [
        "setpriv",
        f"--reuid={UNPRIVILEGED}",
        "--clear-groups",
        f"--inh-caps={capability}",
        f"--ambient-caps={capability}",
        "--securebits=+no_setuid_fixup",
        *words,
    ]


def give_away(folder: Path) -> None:
    """To the user that `unprivileged` runs as."""
    if os.geteuid() == 0:
        shutil.chown(folder, UNPRIVILEGED)


@contextlib.contextmanager
def running(
    command: Sequence[str], ready: Callable[[], bool], log: Path, *, within: float = START_SECONDS, **more: object
) -> Iterator[subprocess.Popen[bytes]]:
    """The program, from when it is ready until the block ends."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, **more
        )
    try:
        deadline = time.monotonic() + within
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """With all that it started: the `node` of a wheel is a script before the real one."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            continue
        break


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def status(port: int, path: str) -> int | None:
    """Of the answer; none where nobody answers. An HTTP client of more parts would take longer to make than to ask."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
