"""Each transition of the table, and walks through random schedules that never end in a place which cannot be left."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.agent import phases
from tollgate.agent.phases import Files, Phase, Process, Seen, move, retry_seconds

WANTED = Seen(wanted=True, kept=True, files="verified", claimed=True, process="alive")
UNWANTED = replace(WANTED, wanted=False, kept=False)
GONE = replace(WANTED, process="none")

TRANSITIONS: list[tuple[Phase, Phase, str, Seen]] = [
    ("stopped", "downloading", "wanted, files unverified", replace(GONE, files="unverified")),
    ("stopped", "downloading", "on demand, files unverified", replace(GONE, wanted=False, files="unverified")),
    ("stopped", "starting", "hashes match, claim granted", GONE),
    ("stopped", "stopping", "something of it is left", UNWANTED),
    ("downloading", "starting", "hashes match, claim granted", GONE),
    ("downloading", "stopped", "unwanted", replace(GONE, wanted=False, kept=False, files="unverified")),
    ("downloading", "stopped", "there, and waits for demand", replace(GONE, wanted=False)),
    ("downloading", "failed", "gated, absent, no space, digest wrong twice", replace(GONE, files="unavailable")),
    ("starting", "loading", "first line", replace(WANTED, printed=True)),
    ("starting", "failed", "exit", replace(WANTED, process="ended")),
    ("starting", "failed", "could not be started", GONE),
    ("starting", "failed", "60 s", replace(WANTED, in_phase=60.1)),
    ("starting", "stopping", "unwanted", UNWANTED),
    ("starting", "stopping", "changed", replace(WANTED, changed=True)),
    ("loading", "running", "healthy, and a probe was answered", replace(WANTED, answered=True)),
    ("loading", "failed", "exit", replace(WANTED, process="ended")),
    ("loading", "failed", "900 s without progress", replace(WANTED, without_progress=900.1)),
    ("loading", "stopping", "unwanted", UNWANTED),
    ("loading", "stopping", "changed", replace(WANTED, changed=True)),
    ("running", "draining", "unwanted, idle, evicted or cordoned", replace(WANTED, wanted=False)),
    ("running", "draining", "changed", replace(WANTED, changed=True)),
    ("running", "failed", "exit", replace(WANTED, process="ended")),
    ("running", "failed", "requests, but no token for 120 s", replace(WANTED, silent=120.1)),
    ("draining", "running", "wanted again, same generation", replace(WANTED, in_flight=1)),
    ("draining", "stopping", "none in flight", UNWANTED),
    ("draining", "stopping", "drain_seconds", replace(UNWANTED, in_flight=1, in_phase=30)),
    ("draining", "stopping", "wanted, but changed", replace(WANTED, changed=True)),
    ("draining", "failed", "crash", replace(UNWANTED, process="ended")),
    ("stopping", "stopped", "session gone and memory back", replace(UNWANTED, process="ended")),
    (
        "stopping",
        "stopped",
        "memory not back for 30 s",
        replace(UNWANTED, process="ended", memory_is_back=False, since_end=30.1),
    ),
    ("stopping", "failed", "survives SIGKILL", replace(UNWANTED, since_kill=30.1)),
    ("failed", "starting", "retryable, back-off over", GONE),
    ("failed", "starting", "new generation", replace(GONE, retryable=False, changed=True, retry_in=9)),
    ("failed", "downloading", "files missing, back-off over", replace(GONE, files="unavailable")),
    ("failed", "stopped", "unwanted", replace(GONE, wanted=False, kept=False)),
    ("failed", "stopped", "waits for demand, back-off over", replace(GONE, wanted=False)),
    ("unknown", "loading", "adopted", WANTED),
    ("unknown", "running", "adopted", replace(WANTED, answered=True)),
    ("unknown", "failed", "gone", replace(WANTED, process="ended")),
]


@pytest.mark.parametrize(("before", "after", "when", "seen"), TRANSITIONS)
def test_each_transition(before: Phase, after: Phase, when: str, seen: Seen) -> None:
    moved = move(before, seen)
    assert moved is not None, when
    assert moved.to == after, when


STAYS: list[tuple[Phase, str, Seen]] = [
    ("stopped", "unwanted", replace(GONE, wanted=False, kept=False)),
    ("stopped", "no claim", replace(GONE, claimed=False)),
    ("stopped", "waits for demand", replace(GONE, wanted=False)),
    ("downloading", "under way", replace(GONE, files="unverified")),
    ("downloading", "no claim", replace(GONE, claimed=False)),
    ("starting", "in time", replace(WANTED, in_phase=60)),
    ("loading", "in time", replace(WANTED, printed=True, without_progress=900)),
    ("running", "wanted", replace(WANTED, silent=120)),
    ("draining", "in flight", replace(UNWANTED, in_flight=1, in_phase=29)),
    ("stopping", "alive", UNWANTED),
    ("stopping", "memory not back", replace(UNWANTED, process="ended", memory_is_back=False)),
    ("failed", "back-off", replace(GONE, retry_in=1)),
    ("failed", "an error of configuration", replace(GONE, retryable=False)),
    ("failed", "something of it is left", WANTED),
]


@pytest.mark.parametrize(("phase", "why", "seen"), STAYS)
def test_what_a_phase_waits_for(phase: Phase, why: str, seen: Seen) -> None:
    assert move(phase, seen) is None, why


def test_the_back_off_doubles_up_to_five_minutes() -> None:
    assert [retry_seconds(failures) for failures in (1, 2, 3, 5, 6, 7, 10_000)] == [10, 20, 40, 160, 300, 300, 300]


@dataclass
class World:
    """A host and its one deployment. Each event is something that may happen to it."""

    phase: Phase = "stopped"
    wanted: bool = False
    kept: bool = False
    generation: int = 1
    started: int | None = None
    files: Files = "unverified"
    hub_fails: bool = False
    claim_is_free: bool = True
    process: Process = "none"
    mute: bool = False
    deaf: bool = False
    """To SIGTERM."""
    answers: bool = True
    in_flight: int = 0
    since: float = 0.0
    killed: float | None = None
    retryable: bool = True
    retry_at: float = 0.0
    failures: int = 0
    now: float = 0.0

    def seen(self) -> Seen:
        in_phase = self.now - self.since
        return Seen(
            wanted=self.wanted,
            kept=self.kept or self.wanted,
            changed=self.started not in {None, self.generation},
            files=self.files,
            claimed=self.claim_is_free and self.process == "none",
            process=self.process,
            printed=not self.mute,
            answered=self.answers and self.process == "alive",
            in_phase=in_phase,
            without_progress=in_phase,
            silent=in_phase if self.in_flight and not self.answers else 0,
            in_flight=self.in_flight,
            since_kill=None if self.killed is None else self.now - self.killed,
            since_end=in_phase,
            retryable=self.retryable,
            retry_in=self.retry_at - self.now,
        )

    def step(self, seconds: float) -> None:
        self.now += seconds
        if moved := move(self.phase, self.seen()):
            self.phase, self.since, self.killed = moved.to, self.now, None
            getattr(self, f"enter_{moved.to}", lambda: None)()
        getattr(self, f"during_{self.phase}", lambda: None)()

    def enter_downloading(self) -> None:
        self.files = "unverified"

    def enter_starting(self) -> None:
        self.process, self.started = "alive", self.generation

    def enter_stopped(self) -> None:
        self.process, self.started, self.failures = "none", None, 0

    def enter_failed(self) -> None:
        self.failures += 1
        self.retry_at = self.now + retry_seconds(self.failures)
        self.process, self.started = "none", self.generation

    def during_downloading(self) -> None:
        if self.files == "unverified":
            self.files = "unavailable" if self.hub_fails else "verified"

    def during_stopping(self) -> None:
        if self.process == "alive" and (not self.deaf or self.now - self.since > phases.KILL_SECONDS):
            self.process = "ended"

    def during_draining(self) -> None:
        self.in_flight = 0


def well(world: World) -> World:
    return replace(world, hub_fails=False, claim_is_free=True, mute=False, answers=True, retryable=True)


EVENTS = {
    "start": lambda world: replace(world, wanted=True, kept=True),
    "stop": lambda world: replace(world, wanted=False, kept=False),
    "on demand": lambda world: replace(world, wanted=False, kept=True),
    "change": lambda world: replace(world, generation=world.generation + 1, files="unverified"),
    "die": lambda world: replace(world, process="ended" if world.process == "alive" else world.process),
    "hang": lambda world: replace(world, answers=False),
    "request": lambda world: replace(world, in_flight=world.in_flight + 1),
    "hub fails": lambda world: replace(world, hub_fails=True),
    "no memory": lambda world: replace(world, claim_is_free=False),
    "mute": lambda world: replace(world, mute=True),
    "deaf": lambda world: replace(world, deaf=True),
    "bad configuration": lambda world: replace(world, retryable=False),
    "all is well": well,
    "agent restarts": lambda world: replace(
        world, phase="unknown" if world.process == "alive" else world.phase, killed=None
    ),
}
SECONDS = (0.1, 5.0, 61.0, 901.0)
SCHEDULES = st.lists(
    st.tuples(st.sampled_from(sorted(EVENTS)), st.sampled_from(SECONDS), st.integers(1, 6)), max_size=20
)
Schedule = list[tuple[str, float, int]]


def walked(schedule: Schedule) -> Iterator[World]:
    """Each event, and the rounds after it."""
    world = World()
    for event, seconds, rounds in schedule:
        world = EVENTS[event](world)
        yield world
        for _ in range(rounds):
            world.step(seconds)
            yield world


def test_the_events_reach_every_phase() -> None:
    """Or the walks would prove little."""
    chance = random.Random(0)  # noqa: S311 the same walks each time
    reached: set[Phase] = set()
    for _ in range(300):
        schedule = [(chance.choice(sorted(EVENTS)), chance.choice(SECONDS), chance.randint(1, 6)) for _ in range(20)]
        reached.update(world.phase for world in walked(schedule))
    assert reached == set(get_args(Phase))


@given(SCHEDULES, st.booleans())
def test_no_schedule_ends_in_a_phase_that_cannot_be_left(schedule: Schedule, wanted: bool) -> None:
    """Once all is well again, what is wanted runs, and what is not has stopped."""
    world = [World(), *walked(schedule)][-1]
    world = replace(well(world), wanted=wanted, kept=wanted)
    for _ in range(12):
        world.step(phases.LONGEST_RETRY_SECONDS + 1)
    assert world.phase == ("running" if wanted else "stopped")
    assert world.process == ("alive" if wanted else "none")
