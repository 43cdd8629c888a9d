"""The changes of a deployment's phase, until the control plane knows them: when, from which to which, and why."""

from collections import deque
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from tollgate.agent.phases import Phase
from tollgate.process.clock import Monotonic

MOST: Final = 100
"""Kept while the control plane is away: the last."""


class PhaseChange(NamedTuple):
    number: int
    before: Phase
    phase: Phase
    why: str
    at: float


class PhaseChanges:
    def __init__(self, clock: Monotonic) -> None:
        self._clock = clock
        self._number = 0
        self._kept: deque[PhaseChange] = deque(maxlen=MOST)

    def note(self, before: Phase, phase: Phase, why: str) -> None:
        """Numbers grow within an incarnation, also when the agent is started again, as those of syncs do."""
        now = self._clock()
        self._number = max(self._number + 1, int(now * 1000))
        self._kept.append(PhaseChange(self._number, before, phase, why, now))

    def told(self) -> list[dict[str, Any]]:
        now = self._clock()
        return [
            {
                **{"number": one.number, "before": one.before, "phase": one.phase, "why": one.why},
                "seconds_ago": round(now - one.at, 3),
            }
            for one in self._kept
        ]

    def acknowledge(self, observation: Mapping[str, Any]) -> None:
        """Those that were told are known now."""
        last = max((change["number"] for change in observation["changes"]), default=0)
        while self._kept and self._kept[0].number <= last:
            self._kept.popleft()
