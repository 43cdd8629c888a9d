"""The phases of a deployment on its host: a pure state machine. The supervisor says what it sees, and is told which
phase comes next and why. What to do in a phase is the supervisor's."""

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

Phase = Literal["stopped", "downloading", "starting", "loading", "running", "draining", "stopping", "failed", "unknown"]
Files = Literal["unverified", "verified", "unavailable"]
Process = Literal["none", "alive", "ended"]

START_SECONDS: Final = 60.0
"""From the start of the process to its first line."""
LOAD_SECONDS: Final = 900.0
"""Without progress, while loading."""
SILENT_SECONDS: Final = 120.0
"""With requests, but without a token."""
KILL_SECONDS: Final = 20.0
"""From SIGTERM to SIGKILL."""
SURVIVED_SECONDS: Final = 30.0
"""From SIGKILL until the engine counts as one that cannot be stopped."""
MEMORY_SECONDS: Final = 30.0
"""How long the GPU's memory may take to come back after the session is gone."""
LONGEST_RETRY_SECONDS: Final = 300.0
SETTLED_SECONDS: Final = LONGEST_RETRY_SECONDS
"""An engine that ran so long starts from the shortest back-off again."""

IN_TRANSITION: Final = frozenset({"downloading", "starting", "loading", "draining", "stopping", "unknown"})


@dataclass(frozen=True, slots=True)
class Seen:
    """What the supervisor sees of one deployment. Seconds are durations."""

    wanted: bool = False
    """To run now: by the desired state, the demand, and the state of the host."""
    kept: bool = False
    """Its files are to be there: also of one that waits for demand."""
    changed: bool = False
    """The desired generation is not the one that was started, or that failed."""
    files: Files = "unverified"
    claimed: bool = False
    """The claim on GPU memory is granted, or none is needed."""
    process: Process = "none"
    """`ended` is one whose end was not yet taken note of. Anything left of its session counts as alive."""
    printed: bool = False
    answered: bool = False
    """It is healthy, and answered a probe of one token."""
    in_phase: float = 0.0
    without_progress: float = 0.0
    silent: float = 0.0
    """With requests and without a token."""
    in_flight: int = 0
    drain_seconds: float = 30.0
    since_kill: float | None = None
    """Since SIGKILL, if it was sent."""
    memory_is_back: bool = True
    since_end: float = 0.0
    retryable: bool = True
    retry_in: float = 0.0


class Move(NamedTuple):
    to: Phase
    why: str


def move(phase: Phase, seen: Seen) -> Move | None:
    """The next phase, or None while this one goes on."""
    return _RULES[phase](seen)


def retry_seconds(failures: int) -> float:
    """How long to wait after so many failures in a row."""
    return min(10.0 * 2.0 ** max(failures - 1, 0), LONGEST_RETRY_SECONDS) if failures < 10 else LONGEST_RETRY_SECONDS


def _stopped(seen: Seen) -> Move | None:
    if seen.process != "none":
        return Move("stopping", "a process of ours is left")
    if seen.kept and seen.files != "verified":
        return Move("downloading", "wanted")
    if seen.wanted and seen.claimed:
        return Move("starting", "wanted")
    return None


def _downloading(seen: Seen) -> Move | None:
    if seen.files == "unavailable":
        return Move("failed", "files")
    if not seen.kept:
        return Move("stopped", "unwanted")
    if seen.files == "verified" and not seen.wanted:
        return Move("stopped", "on demand")
    if seen.files == "verified" and seen.claimed:
        return Move("starting", "verified")
    return None


def _starting(seen: Seen) -> Move | None:
    if seen.process != "alive":
        return Move("failed", "exit")
    if stop := _stop(seen):
        return Move("stopping", stop)
    if seen.printed:
        return Move("loading", "first line")
    return Move("failed", "start deadline") if seen.in_phase > START_SECONDS else None


def _loading(seen: Seen) -> Move | None:
    if seen.process != "alive":
        return Move("failed", "exit")
    if stop := _stop(seen):
        return Move("stopping", stop)
    if seen.answered:
        return Move("running", "answered")
    return Move("failed", "load deadline") if seen.without_progress > LOAD_SECONDS else None


def _running(seen: Seen) -> Move | None:
    if seen.process != "alive":
        return Move("failed", "exit")
    if seen.silent > SILENT_SECONDS:
        return Move("failed", "no token")
    if stop := _stop(seen):
        return Move("draining", stop)
    return None


def _draining(seen: Seen) -> Move | None:
    if seen.process != "alive":
        return Move("failed", "exit")
    if seen.wanted and not seen.changed:
        return Move("running", "wanted again")
    if not seen.in_flight:
        return Move("stopping", "drained")
    return Move("stopping", "drain deadline") if seen.in_phase >= seen.drain_seconds else None


def _stopping(seen: Seen) -> Move | None:
    if seen.process == "alive":
        survived = seen.since_kill is not None and seen.since_kill > SURVIVED_SECONDS
        return Move("failed", "survived SIGKILL") if survived else None
    if seen.memory_is_back or seen.since_end > MEMORY_SECONDS:
        return Move("stopped", "gone")
    return None


def _failed(seen: Seen) -> Move | None:
    """Whatever is left of the process is ended first."""
    if seen.process == "alive":
        return None
    if not seen.kept:
        return Move("stopped", "unwanted")
    again = seen.changed or (seen.retryable and seen.retry_in <= 0)
    if not again:
        return None
    if seen.files != "verified":
        return Move("downloading", "again")
    if not seen.wanted:
        return Move("stopped", "on demand")
    return Move("starting", "again") if seen.claimed else None


def _unknown(seen: Seen) -> Move | None:
    if seen.process != "alive":
        return Move("failed", "exit")
    if seen.answered:
        return Move("running", "adopted")
    return Move("loading", "adopted")


def _stop(seen: Seen) -> str | None:
    if not seen.wanted:
        return "unwanted"
    return "changed" if seen.changed else None


_RULES: Final = {
    "stopped": _stopped,
    "downloading": _downloading,
    "starting": _starting,
    "loading": _loading,
    "running": _running,
    "draining": _draining,
    "stopping": _stopping,
    "failed": _failed,
    "unknown": _unknown,
}
