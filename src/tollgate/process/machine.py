"""The figures of this process and of the machine that it runs on: of its container or function, where that has limits
of its own. What the system does not say is left out."""

import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from tollgate import __version__
from tollgate.process.clock import Monotonic, now
from tollgate.process.loop_lag import LoopLag

CGROUP: Final = Path("/sys/fs/cgroup")
PROC: Final = Path("/proc")
KIB: Final = 1024
MIB: Final = 1024**2
SAMPLE_SECONDS: Final = 60.0


class Machine:
    """What this process sees of its machine."""

    def __init__(
        self,
        environ: Mapping[str, str],
        clock: Monotonic,
        *,
        kind: str,
        disk: Path = Path("/"),
        proc: Path = PROC,
        lag: LoopLag | None = None,
    ) -> None:
        """`kind` is the kind of host: vercel, railway, heroku, lambda or server. `disk` is a folder on the disk that
        counts."""
        self._lag = lag
        self.name = f"{environ.get('DYNO') or socket.gethostname()}:{os.getpid()}"
        self._function_mib = environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
        self._clock = clock
        self._disk = disk if disk.exists() else Path("/")
        self._proc = proc
        self._before: Counters | None = None
        self._sampled_at: float | None = None
        self._what = {"kind": kind, "version": __version__, "started_at": now().isoformat()}

    def is_due(self) -> bool:
        """Whether the last sample that was taken for the database is a minute old."""
        return self._sampled_at is None or self._clock() - self._sampled_at >= SAMPLE_SECONDS

    def taken(self) -> dict[str, Any]:
        """A sample for the database. Its rates, and the delay of the loop, are of the time since the one before."""
        self._sampled_at = self._clock()
        made, counters = self._figures()
        if self._lag:
            self._lag.forget()
        self._before, before = counters, self._before
        return made | rates(before, counters)

    def seen(self) -> dict[str, Any]:
        """The figures now."""
        made, counters = self._figures()
        return made | rates(self._before, counters)

    def abilities(self) -> dict[str, Any]:
        """What does not change while the process runs."""
        return {
            **self._what,
            "os": sys.platform,
            "cpu_count": cpu_count(),
            "is_container": is_container(self._proc),
            "is_wsl": "microsoft" in _text(self._proc / "sys/kernel/osrelease").lower(),
            "memory_limit_bytes": self._limit(),
        }

    def _limit(self) -> int | None:
        """That of a function or container."""
        return int(self._function_mib) * MIB if self._function_mib else memory_of_cgroup()[0]

    def _figures(self) -> tuple[dict[str, Any], "Counters"]:
        own = process_bytes(self._proc)
        total, used, source = self._memory(own)
        disk_total, disk_used = disk_bytes(self._disk)
        made = {
            **self._what,
            "cpu_count": cpu_count(),
            "load_1m": load(),
            "memory_total_bytes": total,
            "memory_used_bytes": used,
            "memory_source": source,
            "process_memory_bytes": own,
            "disk_total_bytes": disk_total,
            "disk_used_bytes": disk_used,
            "loop_delay_ms": self._lag.longest_ms() if self._lag else None,
        }
        known = {name: value for name, value in made.items() if value is not None}
        return known, counters_here(self._proc, self._clock())

    def _memory(self, own: int | None) -> tuple[int | None, int | None, str | None]:
        """The limit, what is used of it, and whose limit it is: the function's, the container's or the machine's."""
        if self._function_mib:
            return int(self._function_mib) * MIB, own, "function"
        total, used = memory_here(self._proc)
        if total is None:
            return total, used, None
        return total, used, "container" if total == memory_of_cgroup()[0] else "machine"


def memory_here(proc: Path = PROC) -> tuple[int | None, int | None]:
    """What the machine or container has, and what is used of it."""
    limit, used = memory_of_cgroup()
    found = _numbers(proc / "meminfo")
    total, available = found.get("MemTotal:"), found.get("MemAvailable:")
    if total is None or available is None:
        return limit, used
    total, available = total * KIB, available * KIB
    return (limit, used) if limit and limit < total else (total, total - available)


def disk_bytes(folder: Path) -> tuple[int | None, int | None]:
    """What the disk has, and what is used of it or kept for the system."""
    try:
        space = os.statvfs(folder)
    except OSError:
        return None, None
    return space.f_blocks * space.f_frsize, (space.f_blocks - space.f_bavail) * space.f_frsize


def load() -> float | None:
    """How many processes want to run, over a minute."""
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def process_bytes(proc: Path = PROC) -> int | None:
    """What this process has in memory."""
    found = _numbers(proc / "self/status").get("VmRSS:")
    return None if found is None else found * KIB


def counters_here(proc: Path, at: float) -> "Counters":
    busy, idle = _processor_seconds(_text(proc / "stat"))
    received, sent = _network_bytes(_text(proc / "net/dev").splitlines()[2:])
    return Counters(busy, idle, received, sent, at, time.process_time())


def is_container(proc: Path = PROC) -> bool:
    marks = ("docker", "containerd", "kubepods", "lxc", "libpod")
    return Path("/.dockerenv").exists() or any(mark in _text(proc / "1/cgroup") for mark in marks)


def _processor_seconds(stat: str) -> tuple[float | None, float | None]:
    """Busy and idle, in ticks, which is all the same for a share."""
    words = stat.partition("\n")[0].split()[1:9]  # guests are counted in user time already
    if len(words) < 8:
        return None, None
    ticks = [float(word) for word in words]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, idle


def _network_bytes(lines: Iterable[str]) -> tuple[float | None, float | None]:
    """Of all interfaces but the loopback."""
    fields = [line.replace(":", " ").split() for line in lines]
    outward = [one for one in fields if len(one) > 9 and one[0] != "lo"]
    if not outward:
        return None, None
    return sum(float(one[1]) for one in outward), sum(float(one[9]) for one in outward)


def _numbers(file: Path) -> dict[str, int]:
    """The lines of a name and a number."""
    lines = (line.split() for line in _text(file).splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


class Counters(NamedTuple):
    """What only grows, at a moment."""

    busy_seconds: float | None
    idle_seconds: float | None
    received: float | None
    sent: float | None
    at: float = 0.0
    own_seconds: float | None = None


def rates(before: Counters | None, now: Counters) -> dict[str, Any]:
    """What two readings say of the time between them."""
    seconds = now.at - before.at if before else 0.0
    nothing = dict.fromkeys(("cpu_percent", "process_cpu_percent", "network_received_bps", "network_sent_bps"))
    if before is None or seconds <= 0:
        return nothing
    busy, idle = _grown(before.busy_seconds, now.busy_seconds), _grown(before.idle_seconds, now.idle_seconds)
    received, sent = _grown(before.received, now.received), _grown(before.sent, now.sent)
    whole = (busy or 0) + (idle or 0)
    own = _grown(before.own_seconds, now.own_seconds)
    return {
        "cpu_percent": round(100 * busy / whole, 1) if busy is not None and whole else None,
        "process_cpu_percent": None if own is None else round(100 * own / seconds, 1),
        "network_received_bps": None if received is None else int(received * 8 / seconds),
        "network_sent_bps": None if sent is None else int(sent * 8 / seconds),
    }


def _grown(before: float | None, now: float | None) -> float | None:
    """None if it was set back, by a restart."""
    return now - before if before is not None and now is not None and now >= before else None


def memory_of_cgroup(root: Path = CGROUP) -> tuple[int | None, int | None]:
    """The limit of the container that this process runs in, and what is used of it. Version 2, then version 1. Files
    that the kernel keeps in memory while nobody else needs it do not count as used."""
    for limit, used, statistics, idle in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        with contextlib.suppress(OSError, ValueError):
            most = int((root / limit).read_text())
            if most < 2**60:  # version 1 writes a huge number for none
                return most, int((root / used).read_text()) - _numbers(root / statistics).get(idle, 0)
    return None, None


def cpus_of_cgroup(root: Path = CGROUP) -> float | None:
    with contextlib.suppress(OSError, ValueError):
        quota, period = (root / "cpu.max").read_text().split()
        return int(quota) / int(period)
    return None


def cpu_count() -> int:
    seen = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = cpus_of_cgroup()
    return max(1, min(seen, int(limit))) if limit else seen
