"""Upkeep rolls up, deletes and looks for patterns, and a failure of one task does not stop the others."""

from typing import Any

from people import PEPPER
from tollgate.app import compose
from tollgate.completions.upkeep import Upkeep
from tollgate.core.errors import DatabaseUnavailable, TollgateError
from tollgate.database import Json
from tollgate.process.clock import monotonic
from tollgate.settings import read

ROLLING, DROPPING, LOOKING = "tollgate_roll_up_usage", "tollgate_drop_old_requests", "tollgate_detect_patterns"
RENEWING = "tollgate_renew_leaders"
FORGETTING = "tollgate_drop_old_contents"
EXPIRING = "tollgate_drop_expired_cached"
KEEPING = "tollgate_keep_fleet"
RECORDING = "tollgate_record_process"


class Recorder:
    """A door that answers from a list, and records the calls."""

    def __init__(self, **answers: list[Any]) -> None:
        self.asked: list[str] = []
        self._answers = answers

    async def call(self, function: str, **arguments: Json) -> Json:
        self.asked.append(function)
        waiting = self._answers.get(function, [])
        answer = waiting.pop(0) if waiting else {"more": False, "data": []}
        if isinstance(answer, TollgateError):
            raise answer
        return answer

    async def close(self) -> None:
        pass


async def test_each_step_is_repeated_while_there_is_more() -> None:
    door = Recorder(**{ROLLING: [{"more": True}, {"more": True}], DROPPING: [{"more": True}]})
    await Upkeep(door, retention_days=30, clock=lambda: 0.0).turn(1.0)
    assert door.asked == [ROLLING] * 3 + [DROPPING] * 2 + [RENEWING, LOOKING, EXPIRING, KEEPING]


async def test_nothing_is_dropped_unless_the_operator_said_so() -> None:
    door = Recorder()
    await Upkeep(door, retention_days=None, clock=lambda: 0.0).turn(1.0)
    assert door.asked == [ROLLING, RENEWING, LOOKING, EXPIRING, KEEPING]


async def test_a_step_that_fails_keeps_no_other_from_its_turn() -> None:
    door = Recorder(**{ROLLING: [DatabaseUnavailable()]})
    await Upkeep(door, retention_days=1, clock=lambda: 0.0).turn(1.0)
    assert door.asked == [ROLLING, DROPPING, RENEWING, LOOKING, EXPIRING, KEEPING]


async def test_it_ends_when_the_round_does() -> None:
    door = Recorder(**{ROLLING: [{"more": True}] * 100})
    times = iter(range(1000))
    await Upkeep(door, retention_days=1, clock=lambda: float(next(times))).turn(5.0)
    assert door.asked == [ROLLING] * 5


async def test_a_sweep_does_it() -> None:
    door = Recorder()
    rooms = compose(read({"KEY_PEPPER": PEPPER, "REQUEST_RETENTION_DAYS": "90"}), door, monotonic, {})
    await rooms.sweeper.sweep()
    steps = [ROLLING, DROPPING, RENEWING, LOOKING, EXPIRING, KEEPING, FORGETTING]
    assert door.asked == ["tollgate_due", *steps, RECORDING]
    await rooms.sweeper.sweep()
    await rooms.close()
    assert door.asked[len(steps) + 2 :] == ["tollgate_due", *steps], "a sample a minute is enough"
