"""Circuit breakers, and the budget for repeated calls. The clock is a parameter.

A failure that a request can provoke counts for the org that sent it. One org's failures make up at most half of what
opens the breaker of a model for all orgs, so that takes two orgs. One org alone opens the breaker for itself only.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

State = Literal["closed", "open", "half"]

MOST_REMEMBERED: Final = 2000
"""Breakers of one upstream, of both kinds. Only models that fail have one."""

LATELY_SECONDS: Final = 600.0
"""For so long an upstream that nobody called since is not taken for one that works."""

REPETITION_COST: Final = 5
"""Calls that pay for one repetition: a fifth of all may be repeated."""
FIRST_REPETITIONS: Final = 5
MOST_REPETITIONS: Final = 50
REPETITIONS_A_SECOND: Final = 0.5
"""Lets calls to a rarely used upstream be repeated too."""


class Temper(NamedTuple):
    """How many faults open a breaker, and for how long: doubled each time, up to a longest."""

    faults: int
    first_seconds: float
    longest_seconds: float

    @property
    def most_of_one_org(self) -> int:
        return (self.faults + 1) // 2


OF_OPENROUTER: Final = Temper(faults=10, first_seconds=1.0, longest_seconds=5.0)
"""It stands for many providers, and most models have no other route, so its breakers close soon."""
OF_OTHERS: Final = Temper(faults=5, first_seconds=1.0, longest_seconds=30.0)


class Breaker:
    """Counts consecutive faults. While it is open no call passes; then one may, and its result decides."""

    def __init__(self, temper: Temper) -> None:
        self._temper = temper
        self._faults = Counter[str | None]()
        """By the org whose request may have provoked them; None where no request can have done so."""
        self._since = set[str | None]()
        """The orgs with a fault since it last opened, or since the upstream last answered."""
        self._openings = 0
        self._open_until: float | None = None
        self._probing = False

    def state(self, now: float) -> State:
        if self._open_until is None:
            return "closed"
        return "half" if now >= self._open_until else "open"

    def was_open(self, now: float) -> bool:
        """Whether it is open, or was so lately and nothing was answered since."""
        return self._open_until is not None and now - self._open_until < LATELY_SECONDS

    def admits(self, now: float) -> bool:
        """Whether one more call may go."""
        state = self.state(now)
        return state == "closed" or (state == "half" and not self._probing)

    def begin(self, now: float) -> None:
        """A call goes. If the breaker is half open, the call is the probe, and its result must be reported."""
        self._probing = self.state(now) == "half"

    def seconds_left(self, now: float) -> float:
        return max(0.0, (self._open_until or now) - now)

    def answered(self) -> None:
        """The upstream answers. Its faults count until an answer is complete: one more fault, or one of each of two
        orgs, opens the breaker again."""
        self._probing = False
        self._open_until = None
        self._since.clear()

    def failed(self, now: float, org_id: str | None = None) -> None:
        """`org_id`: the org whose request may have provoked the fault."""
        if not self._is_enough:
            self._faults[org_id] += 1
        if self.state(now) == "open":
            return  # the call began before the breaker opened
        self._since.add(org_id)
        if self._is_enough and (None in self._since or len(self._since) > 1):
            self._since.clear()
            self._open_until = now + min(
                self._temper.first_seconds * 2.0 ** min(self._openings, 20), self._temper.longest_seconds
            )
            self._openings += 1
        self._probing = False

    def abandoned(self) -> None:
        """The client left before the upstream answered."""
        self._probing = False

    @property
    def _is_enough(self) -> bool:
        most = self._temper.most_of_one_org
        counted = (count if org_id is None else min(count, most) for org_id, count in self._faults.items())
        return sum(counted) >= self._temper.faults


class Breakers:
    """Those of one upstream, by model, and by model and org. A model that works has none."""

    def __init__(self, temper: Temper) -> None:
        self._temper = temper
        self._kept: OrderedDict[tuple[str, str | None], Breaker] = OrderedDict()
        """By model and org; None is all orgs."""

    def admits(self, model: str, org_id: str, now: float) -> bool:
        """Whether one more call may go. Then one of answered, succeeded, failed or abandoned must report on it."""
        if not self._kept:
            return True
        concerned = self._concerned(model, org_id)
        if not all(breaker.admits(now) for breaker in concerned):
            return False
        for breaker in concerned:
            breaker.begin(now)
        return True

    def state(self, model: str, org_id: str, now: float) -> State:
        """For calls of this org."""
        return _worst(breaker.state(now) for breaker in self._concerned(model, org_id))

    def seconds_left(self, model: str, org_id: str, now: float) -> float:
        return max((breaker.seconds_left(now) for breaker in self._concerned(model, org_id)), default=0.0)

    def answered(self, model: str, org_id: str) -> None:
        for breaker in self._concerned(model, org_id):
            breaker.answered()

    def abandoned(self, model: str, org_id: str) -> None:
        for breaker in self._concerned(model, org_id):
            breaker.abandoned()

    def failed(self, model: str, org_id: str, now: float, *, provoked: bool) -> None:
        """`provoked`: the request may have caused the failure."""
        self.abandoned(model, org_id)
        self._made(model, None).failed(now, org_id if provoked else None)
        if provoked:
            self._made(model, org_id).failed(now)

    def succeeded(self, model: str, org_id: str) -> None:
        """An answer is complete: the faults of the model and of this org are forgotten, but not those of other orgs."""
        if self._kept:
            self._kept.pop((model, None), None)
            self._kept.pop((model, org_id), None)

    def checked(self, now: float, *, is_up: bool) -> None:
        """Reports a health check to the breakers that are half open."""
        for breaker in self._kept.values():
            if breaker.state(now) == "half":
                breaker.answered() if is_up else breaker.failed(now)

    def states(self, now: float) -> dict[str, State]:
        """By model, for all orgs."""
        return {model: breaker.state(now) for (model, org_id), breaker in self._kept.items() if org_id is None}

    def were_open(self, now: float) -> bool:
        """Whether one of all orgs is open, or was so lately."""
        return any(breaker.was_open(now) for (_, org_id), breaker in self._kept.items() if org_id is None)

    def worst(self, now: float) -> State:
        return _worst(self.states(now).values())

    def _concerned(self, model: str, org_id: str) -> list[Breaker]:
        if not self._kept:
            return []
        return [breaker for whose in (None, org_id) if (breaker := self._kept.get((model, whose)))]

    def _made(self, model: str, org_id: str | None) -> Breaker:
        """When there are too many, the one that failed longest ago is dropped."""
        breaker = self._kept.setdefault((model, org_id), Breaker(self._temper))
        self._kept.move_to_end((model, org_id))
        if len(self._kept) > MOST_REMEMBERED:
            self._kept.popitem(last=False)
        return breaker


def _worst(states: Iterable[State]) -> State:
    found = set(states)
    return "open" if "open" in found else "half" if "half" in found else "closed"


class Budget:
    """How many calls to an upstream may be repeated. Each call adds a fraction of one, and so does time."""

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
