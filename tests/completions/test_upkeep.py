"""Upkeep rolls up, deletes and looks for patterns, and a failure of one task does not stop the others."""

from collections.abc import Callable
from functools import partial
from typing import Any

from people import PEPPER
from tollgate.app import compose
from tollgate.completions.sweeper import PAGE, ROUND_SECONDS, UPKEEP_SECONDS, Sweeper
from tollgate.completions.upkeep import TELLING_SECONDS, Upkeep
from tollgate.core.errors import DatabaseUnavailable, TollgateError
from tollgate.database import Json
from tollgate.process.clock import monotonic
from tollgate.settings import read

ROLLING, DROPPING, LOOKING = "tollgate_roll_up_usage", "tollgate_drop_old_requests", "tollgate_detect_patterns"
RENEWING = "tollgate_renew_leaders"
FORGETTING = "tollgate_drop_old_contents"
EXPIRING = "tollgate_drop_expired_cached"
KEEPING = "tollgate_keep_fleet"
EVALUATING, TELLING = "tollgate_alert_round", "tollgate_lease_deliveries"
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


def upkeep(door: Recorder, clock: Callable[[], float] = lambda: 0.0, retention_days: int | None = 1) -> Upkeep:
    return Upkeep(
        door,
        evaluate=partial(door.call, EVALUATING),
        send_due=partial(door.call, TELLING),
        retention_days=retention_days,
        clock=clock,
    )


async def test_each_step_is_repeated_while_there_is_more() -> None:
    door = Recorder(**{ROLLING: [{"more": True}, {"more": True}], DROPPING: [{"more": True}]})
    await upkeep(door).turn(20.0)
    assert door.asked == [EVALUATING] + [ROLLING] * 3 + [DROPPING] * 2 + [RENEWING, LOOKING, EXPIRING, KEEPING, TELLING]


async def test_nothing_is_dropped_unless_the_operator_said_so() -> None:
    door = Recorder()
    await upkeep(door, retention_days=None).turn(20.0)
    assert door.asked == [EVALUATING, ROLLING, RENEWING, LOOKING, EXPIRING, KEEPING, TELLING]


async def test_a_step_that_fails_keeps_no_other_from_its_turn() -> None:
    door = Recorder(**{EVALUATING: [DatabaseUnavailable()], ROLLING: [DatabaseUnavailable()]})
    await upkeep(door).turn(20.0)
    assert door.asked == [EVALUATING, ROLLING, DROPPING, RENEWING, LOOKING, EXPIRING, KEEPING, TELLING]


async def test_it_ends_when_the_round_does_and_a_backlog_leaves_time_to_tell() -> None:
    door = Recorder(**{ROLLING: [{"more": True}] * 100})
    times = iter([0.0, 1.0, 2.0, 3.0, 4.0, *[5.0] * 100])
    await upkeep(door, lambda: next(times)).turn(5.0 + TELLING_SECONDS)
    assert door.asked == [EVALUATING] + [ROLLING] * 4 + [TELLING]


async def test_a_sweep_does_it() -> None:
    door = Recorder()
    rooms = compose(read({"KEY_PEPPER": PEPPER, "REQUEST_RETENTION_DAYS": "90"}), door, monotonic, {})
    await rooms.sweeper.sweep()
    steps = [EVALUATING, ROLLING, DROPPING, RENEWING, LOOKING, EXPIRING, KEEPING, FORGETTING]
    assert door.asked == ["tollgate_due", *steps, RECORDING, TELLING]
    await rooms.sweeper.sweep()
    await rooms.close()
    assert door.asked[len(steps) + 3 :] == ["tollgate_due", *steps, TELLING], "a sample a minute is enough"


async def test_a_backlog_of_requests_leaves_time_for_it() -> None:
    door = Recorder(tollgate_due=[{"data": [{}] * PAGE}] * 100)
    times = iter([0.0, 0.0, *[ROUND_SECONDS - UPKEEP_SECONDS] * 1000])
    given: list[float] = []

    async def kept(ends_at: float) -> None:
        given.append(ends_at)

    never: Any = None
    await Sweeper(door, never, never, [], clock=lambda: next(times), upkeep=kept).sweep()
    assert (door.asked, given) == (["tollgate_due"], [ROUND_SECONDS])
