"""Who is spared: an upstream that fails again and again, and one that we would drown in repetitions. Time is given."""

from collections import OrderedDict
from typing import Final, Literal, NamedTuple

State = Literal["closed", "open", "half"]

MOST_REMEMBERED: Final = 1000
"""Breakers of one upstream. Only a model that fails has one."""

REPETITION_COST: Final = 5
"""Calls that pay for one repetition: a fifth of all may be repeated."""
FIRST_REPETITIONS: Final = 5
MOST_REPETITIONS: Final = 50
REPETITIONS_A_SECOND: Final = 0.5
"""So that a quiet upstream may be asked again too."""


class Temper(NamedTuple):
    """How much a breaker bears, and how long it stays open: doubled each time, up to a longest."""

    faults: int
    first_seconds: float
    longest_seconds: float


OF_OPENROUTER: Final = Temper(faults=10, first_seconds=1.0, longest_seconds=5.0)
"""Behind it are many providers, and for most models nobody else: it must never be locked out for long."""
OF_OTHERS: Final = Temper(faults=5, first_seconds=1.0, longest_seconds=30.0)


class Breaker:
    """Counts faults in a row. Open it lets nobody through; then one, on whom it depends."""

    def __init__(self, temper: Temper) -> None:
        self._temper = temper
        self._faults = 0
        self._openings = 0
        self._open_until: float | None = None
        self._probing = False

    def state(self, now: float) -> State:
        if self._open_until is None:
            return "closed"
        return "half" if now >= self._open_until else "open"

    def admits(self, now: float) -> bool:
        """Whether one more may go. When it is half open, that one is the probe, and must be reported on."""
        state = self.state(now)
        if state == "half" and not self._probing:
            self._probing = True
            return True
        return state == "closed"

    def seconds_left(self, now: float) -> float:
        return max(0.0, (self._open_until or now) - now)

    def answered(self) -> None:
        """It is alive. Faults are forgotten only when an answer comes to its end; one more opens it again."""
        self._probing = False
        self._open_until = None

    def failed(self, now: float) -> None:
        self._faults += 1
        if self.state(now) == "open":
            return  # one that was under way before
        if self._faults >= self._temper.faults:
            self._open_until = now + min(
                self._temper.first_seconds * 2.0 ** min(self._openings, 20), self._temper.longest_seconds
            )
            self._openings += 1
        self._probing = False

    def abandoned(self) -> None:
        """The client left before there was anything to learn."""
        self._probing = False


class Breakers:
    """Those of one upstream, by model. What works has none, so a good call costs a look."""

    def __init__(self, temper: Temper) -> None:
        self._temper = temper
        self._kept: OrderedDict[str, Breaker] = OrderedDict()

    def of(self, model: str) -> Breaker | None:
        return self._kept.get(model)

    def failed(self, model: str, now: float) -> None:
        breaker = self._kept.setdefault(model, Breaker(self._temper))
        breaker.failed(now)
        self._kept.move_to_end(model)
        if len(self._kept) > MOST_REMEMBERED:
            self._kept.popitem(last=False)

    def succeeded(self, model: str) -> None:
        """An answer has come to its end: all is forgiven."""
        self._kept.pop(model, None)

    def states(self, now: float) -> dict[str, State]:
        return {model: breaker.state(now) for model, breaker in self._kept.items()}

    def worst(self, now: float) -> State:
        states = {breaker.state(now) for breaker in self._kept.values()}
        return "open" if "open" in states else "half" if "half" in states else "closed"


class Budget:
    """How many repetitions an upstream still gets. Each call adds a part of one, and so does time."""

    def __init__(self, now: float) -> None:
        self._left = float(FIRST_REPETITIONS)
        self._seen = now

    def call(self) -> None:
        self._left = min(self._left + 1 / REPETITION_COST, MOST_REPETITIONS)

    def take(self, now: float) -> bool:
        passed = max(0.0, now - self._seen)
        self._seen = max(now, self._seen)
        self._left = min(self._left + passed * REPETITIONS_A_SECOND, MOST_REPETITIONS)
        if self._left < 1:
            return False
        self._left -= 1
        return True
