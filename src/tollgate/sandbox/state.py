"""The state of the sandbox, and the settings of its behaviour."""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tollgate.sandbox.catalog import Catalog
from tollgate.sandbox.faults import FOLLOWED_BY_FALLBACKS
from tollgate.sandbox.generation import ApiType, Generation
from tollgate.sandbox.job import Job
from tollgate.sandbox.ledger import Clock, Ledger, PromptCache
from tollgate.sandbox.prices import Used
from tollgate.sandbox.speech import Finish

Randomness = Callable[[int], int]
"""Gives a number of that many bits."""

ID_BITS = 80
PROMPTS_KEPT = 10_000


@dataclass(frozen=True)
class Habits:
    """How it behaves where no fault says otherwise."""

    generation_delay_seconds: float = 1.0
    """How long GET /generation does not know what was just answered."""
    token_delay_seconds: float = 0.0
    """How long each token takes to say, streamed or not."""
    bill_cancelled: Literal["produced", "all"] = "produced"
    """What a stream costs that the client broke off: providers differ."""
    gate_seconds: float = 30.0
    """How long a request is held for others to come."""
    list_faults: bool = False
    """Whether GET /models offers every fault as a model, sandbox/fault-<name>."""
    listed_faults: tuple[str, ...] = ()
    """Those that it offers otherwise, values included."""
    kept_generations: int = 100_000
    most_tokens: int = sys.maxsize
    """Of an answer, in all its choices together."""
    bounded: bool = False
    """Whether faults are bounded, and little is kept of what a request says."""


BOUNDED = Habits(
    bounded=True, gate_seconds=5.0, kept_generations=1000, most_tokens=10_000, listed_faults=FOLLOWED_BY_FALLBACKS
)
"""Of a sandbox that strangers use: what one of them asks for takes little from the others."""


class Barrier:
    """Holds requests until enough of them wait at once, then lets them all through and closes behind them."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Event] = []

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def enter(self, enough: int) -> asyncio.Event:
        """The event to wait for. The request that completes the number sets all events."""
        event = asyncio.Event()
        self._waiting.append(event)
        if len(self._waiting) >= enough:
            for one in self._waiting:
                one.set()
            self._waiting.clear()
        return event

    def leave(self, event: asyncio.Event) -> None:
        if event in self._waiting:
            self._waiting.remove(event)


class State:
    def __init__(self, habits: Habits, catalog: Catalog, clock: Clock, randomness: Randomness) -> None:
        self.habits = habits
        self.catalog = catalog
        self.clock = clock
        self.ledger = Ledger(clock, kept=habits.kept_generations)
        self.prompts = PromptCache(PROMPTS_KEPT)
        self.barriers: dict[int, Barrier] = {}
        self._randomness = randomness

    @property
    def held(self) -> int:
        """How many requests wait at barriers."""
        return sum(barrier.waiting for barrier in self.barriers.values())

    def new_id(self) -> str:
        return f"gen-{int(self.clock())}-{self._randomness(ID_BITS):0{ID_BITS // 4}x}"

    def open(self, job: Job, *, api_type: ApiType = "completions", streamed: bool = False) -> Generation:
        generation = Generation(self.new_id(), job, api_type, streamed, self.clock())
        self.ledger.open(generation)
        return generation

    def end(self, generation: Generation, used: Used, finish: Finish | None, *, cancelled: bool = False) -> None:
        generation.end(used, finish, self.clock(), cancelled=cancelled)
        self.ledger.count(generation)

    def forget(self) -> None:
        self.ledger.forget()
        self.prompts.forget()
        self.barriers.clear()
