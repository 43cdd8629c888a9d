"""Commands in a folder of their own, as on a machine where nothing is set, and what they leave behind."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from journeys import commands
from sandbox.serving import PATIENCE_SECONDS
from servers.process import listens

ADDRESS = re.compile(r'(?: is at |"address":")(http://[^\s"]+)')
"""As demo tells it to a person, and serve to a log."""


@dataclass(frozen=True)
class Server:
    """A `serve` or `demo` that answers at `address`."""

    process: subprocess.Popen[bytes]
    address: str
    output: Path

    def get(self, path: str, key: str = "") -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        with httpx.Client(trust_env=False, timeout=PATIENCE_SECONDS) as client:
            return client.get(self.address + path, headers=headers)

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def printed(self) -> str:
        return self.output.read_text()

    @property
    def demo_key(self) -> str:
        return re.findall(r"your key +(\S+)", self.printed)[0]

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)


@dataclass(frozen=True)
class Home:
    """A folder to run commands in, as on a machine where nothing is set."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / ".tollgate"

    def start(self, *arguments: str, **settings: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tollgate", *arguments],
            cwd=self.folder,
            env=commands.environment(self.folder, settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, given: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
        return commands.run(*arguments, folder=self.folder, settings=settings, given=given)

    @contextlib.contextmanager
    def server(self, *command: str, program: str = "", **settings: str) -> Iterator[Server]:
        output = self.folder / "output"
        with (
            output.open("wb") as out,
            subprocess.Popen(
                [sys.executable, *(["-c", program] if program else ["-m", "tollgate"]), *command],
                cwd=self.folder,
                env=commands.environment(self.folder, settings),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            ) as process,
        ):
            try:
                wait_until(
                    lambda: process.poll() is not None or bool(ADDRESS.search(output.read_text())),
                    "it tells its address",
                    commands.LONGEST_SECONDS,
                )
                assert process.poll() is None, output.read_text()
                made = Server(process, ADDRESS.findall(output.read_text())[0], output)
                wait_until(lambda: listens(made.port), "it listens")
                assert made.get("/healthz").json() == {"status": "ok"}
                yield made
            finally:
                if process.poll() is None:
                    process.terminate()
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(10)
                    process.kill()


def wait_until(happened: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain until {what}"
        time.sleep(0.05)


def alive() -> dict[int, tuple[int, str]]:
    """Every living process: its parent and its command. The dead whose parent has not looked yet do not count."""
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,command="], capture_output=True, text=True, check=True
    )
    rows = (line.split(maxsplit=3) for line in listed.stdout.splitlines())
    return {int(pid): (int(parent), rest[-1]) for pid, parent, state, *rest in rows if not state.startswith("Z")}


def whole_postgres(data: Path) -> set[int]:
    """The processes of the embedded Postgres of a data folder."""
    found, processes = alive(), set[int]()
    for pid, (_, command) in found.items():
        if f"-D {data / 'postgres'} " in command or f"--pgdata={data}" in command:
            processes.add(pid)
    while more := {pid for pid, (parent, _) in found.items() if parent in processes} - processes:
        processes |= more
    return processes


def end_at_once(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def gone(pids: set[int]) -> None:
    wait_until(lambda: not pids & alive().keys(), f"{pids} are gone")
