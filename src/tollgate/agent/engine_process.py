"""Engines as processes. Each has a session of its own, and so outlives the agent. A session is known by its leader's id
and start time, never by a name: a number that the system gave to somebody else's process is not mistaken for ours."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

KEPT_OF_THE_ENVIRONMENT: Final = (
    *("PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV"),
    *("CUDA_HOME", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "XDG_CACHE_HOME"),
)
"""Neither a token of the hub nor a secret of the agent is among them."""
WAITS_FOR_THE_WORD: Final = 'read -r go && exec "$@" </dev/null'
"""The engine starts when its process is on record. If the agent ends before, there is no word, and no engine."""
PROC: Final = Path("/proc")


class Leader(NamedTuple):
    """The first process of a session. Its id is the session's."""

    pid: int
    started: str
    folder: str
    """Where the engine was started. Processes of a session without a leader are ours if they are there still."""


class Look(NamedTuple):
    """What is left of an engine."""

    leads: bool
    """Its first process, or its container, runs."""
    left: bool
    """Anything of it runs."""
    exit_code: int | None


class EngineProcess:
    def __init__(self, leader: Leader, child: "subprocess.Popen[bytes] | None" = None) -> None:
        self.leader = leader
        self._child = child

    @property
    def record(self) -> dict[str, Any]:
        return {"kind": "process", **self.leader._asdict()}

    async def look(self, closely: bool = False) -> Look:
        """Closely: looks for the rest of the session too. A child runs until it has an exit code: its first thread may
        end before the others, and then the process is a zombie without one."""
        code = self._child.poll() if self._child else None
        leads = code is None and (self._child is not None or self._is_there())
        left = leads or (closely and any(True for _ in members(self.leader)))
        return Look(leads, left, None if code is None else code if code >= 0 else 128 - code)

    async def terminate(self) -> None:
        """Asks the first process to end: engines end their workers themselves. If it is gone, asks the rest."""
        if self._is_there():
            send(self.leader.pid, self.leader.started, signal.SIGTERM)
        else:
            self._send_all(signal.SIGTERM)

    async def kill(self) -> None:
        """Twice, because a process may have started another meanwhile."""
        if self._child:
            self._child.kill()  # also where its first thread has ended, so that it is no member any more
        for _ in range(2):
            self._send_all(signal.SIGKILL)

    async def remove(self) -> None:
        if self._child:
            self._child.poll()

    async def refresh_log(self) -> None:
        """The engine writes its log itself."""

    def let_go(self) -> None:
        """The agent ends before the engine, so it waits for it no more."""
        if self._child:
            self._child.returncode = self._child.poll() or 0

    def _is_there(self) -> bool:
        return start_time(self.leader.pid) == self.leader.started

    def _send_all(self, number: signal.Signals) -> None:
        for pid, started in list(members(self.leader)):
            send(pid, started, number)


class Waiting:
    """A process that is there, and waits for the word before it becomes the engine."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as out:
            self._child = subprocess.Popen(
                ["/bin/sh", "-c", WAITS_FOR_THE_WORD, "engine", *argv],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                cwd=folder,
                env={**_inherited(), **environment},
                start_new_session=True,
            )
        leader = Leader(self._child.pid, start_time(self._child.pid) or "", str(folder))
        self.engine = EngineProcess(leader, self._child)

    def go(self) -> None:
        assert self._child.stdin  # noqa: S101
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.write(b"go\n")
            self._child.stdin.close()

    def give_up(self) -> None:
        """Without the word it ends by itself."""
        assert self._child.stdin  # noqa: S101
        self._child.stdin.close()
        self._child.wait()


def members(leader: Leader) -> Iterator[tuple[int, str]]:
    """All processes of the session, and what descends from them, each with its start time."""
    processes = dict(_processes())
    at_the_number = start_time(leader.pid)
    if at_the_number not in {leader.started, None}:
        return  # the number is somebody else's: it was free, so nothing of the session is left
    led = at_the_number is not None
    found = {
        pid for pid, (_, session) in processes.items() if session == leader.pid and (led or _is_in(pid, leader.folder))
    }
    grown = True
    while grown:
        more = {pid for pid, (parent, _) in processes.items() if parent in found} - found
        found |= more
        grown = bool(more)
    for pid in sorted(found, key=lambda one: one != leader.pid):
        if started := start_time(pid):
            yield pid, started


def start_time(pid: int) -> str | None:
    """When a process began, in a form to compare; None if it is gone. On Linux in ticks since the boot, which a change
    of the clock does not move."""
    if sys.platform == "linux":
        fields = _stat(pid)
        return fields[19] if fields and fields[0] != "Z" else None
    import psutil

    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return repr(process.create_time()) if process.status() != psutil.STATUS_ZOMBIE else None
    return None


def send(pid: int, started: str, number: signal.Signals) -> None:
    """To this very process, or to nobody."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform != "linux":
            if start_time(pid) == started:
                os.kill(pid, number)
            return
        handle = os.pidfd_open(pid)
        try:
            if start_time(pid) == started:
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)


def _processes() -> Iterator[tuple[int, tuple[int, int]]]:
    """The parent and session of each process, but of those that ended and wait for their parent."""
    if sys.platform == "linux":
        for entry in PROC.iterdir():
            if entry.name.isdigit() and (fields := _stat(int(entry.name))) and fields[0] != "Z":
                yield int(entry.name), (int(fields[1]), int(fields[3]))
        return
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            yield process.pid, (process.ppid(), os.getsid(process.pid))


def _stat(pid: int) -> list[str] | None:
    """The fields after the name, which may hold anything."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return None


def _is_in(pid: int, folder: str) -> bool:
    with contextlib.suppress(OSError):
        if sys.platform == "linux":
            return (PROC / str(pid) / "cwd").readlink() == Path(folder)
        import psutil

        with contextlib.suppress(psutil.Error):
            return psutil.Process(pid).cwd() == folder
    return False


def _inherited() -> dict[str, str]:
    return {name: os.environ[name] for name in KEPT_OF_THE_ENVIRONMENT if name in os.environ}
