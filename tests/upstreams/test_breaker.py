from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tollgate.upstreams import breaker
from tollgate.upstreams.breaker import OF_OPENROUTER, Breaker, Breakers, Budget, Temper

TEMPER = Temper(faults=3, first_seconds=1.0, longest_seconds=5.0)


class Breaking(RuleBasedStateMachine):
    """A breaker and what it promises: it opens for faults in a row alone, never for long, and lets one probe in."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.kept = Breakers(TEMPER)
        self.in_a_row = 0
        self.under_way = 0
        self.probes = 0
        self.opened_at: float | None = None

    @property
    def of_model(self) -> Breaker | None:
        return self.kept.of("m")

    @rule()
    def ask(self) -> None:
        one = self.of_model
        state = one.state(self.now) if one else "closed"
        admitted = one is None or one.admits(self.now)
        assert admitted == (state == "closed" or (state == "half" and self.probes == 0))
        if admitted:
            self.under_way += 1
            self.probes += state == "half"

    @precondition(lambda self: self.under_way)
    @rule()
    def fail(self) -> None:
        was_open = self.of_model is not None and self.of_model.state(self.now) == "open"
        self.under_way -= 1
        self.in_a_row += 1
        self.kept.failed("m", self.now)
        if not was_open:
            self.probes = 0
            self.opened_at = self.now if self.in_a_row >= TEMPER.faults else None

    @precondition(lambda self: self.under_way)
    @rule()
    def succeed(self) -> None:
        self.under_way -= 1
        self.in_a_row = self.probes = 0
        self.opened_at = None
        if one := self.of_model:
            one.answered()
        self.kept.succeeded("m")

    @precondition(lambda self: self.under_way)
    @rule()
    def abandon(self) -> None:
        self.under_way -= 1
        self.probes = 0
        if one := self.of_model:
            one.abandoned()

    @rule(seconds=st.floats(0.01, 3))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def opens_only_for_faults_in_a_row_and_never_for_long(self) -> None:
        state = self.kept.worst(self.now)
        if self.in_a_row < TEMPER.faults:
            assert state == "closed"
        if self.opened_at is not None and self.now < self.opened_at + TEMPER.first_seconds:
            assert state == "open"
        if one := self.of_model:
            assert one.seconds_left(self.now) <= TEMPER.longest_seconds + 1e-6


TestBreaking = Breaking.TestCase


def failed(times: int, temper: Temper = TEMPER, now: float = 0.0) -> Breaker:
    made = Breaker(temper)
    for _ in range(times):
        made.failed(now)
    return made


def test_it_rests_longer_each_time_up_to_a_longest() -> None:
    made, now, rests = failed(3), 0.0, []
    for _ in range(5):
        rests.append(made.seconds_left(now))
        now += rests[-1]
        assert made.admits(now)
        made.failed(now)
    assert rests == [1, 2, 4, 5, 5]


def test_one_more_fault_after_a_good_head_opens_it_again() -> None:
    made = failed(3)
    assert made.admits(1.0)
    made.answered()
    assert made.state(1.0) == "closed"
    made.failed(1.5)
    assert made.state(1.5) == "open"


def test_openrouter_is_never_locked_out_for_long() -> None:
    assert failed(9, OF_OPENROUTER).admits(0.0)
    assert failed(1000, OF_OPENROUTER).seconds_left(0.0) <= 5


def test_what_works_is_not_remembered_and_what_fails_not_without_end() -> None:
    kept = Breakers(TEMPER)
    for number in range(3 * breaker.MOST_REMEMBERED):
        kept.failed(f"m{number}", 0.0)
    assert sum(kept.of(f"m{number}") is not None for number in range(3 * breaker.MOST_REMEMBERED)) == 1000
    kept.succeeded("m2999")
    assert kept.of("m2999") is None


@given(st.lists(st.booleans(), max_size=300))
def test_repetitions_are_a_fifth_of_all_calls_and_a_few(asks: list[bool]) -> None:
    budget, calls, repeated = Budget(0.0), 0, 0
    for ask in asks:
        if ask:
            repeated += budget.take(0.0)
        else:
            budget.call()
            calls += 1
        assert repeated <= calls / 5 + breaker.FIRST_REPETITIONS + 1e-6


def test_time_gives_repetitions_back_and_a_clock_that_steps_back_takes_none() -> None:
    budget = Budget(100.0)
    assert [budget.take(100.0) for _ in range(6)] == [True] * 5 + [False]
    assert not budget.take(50.0)
    assert budget.take(102.0)
    assert not budget.take(102.0)
