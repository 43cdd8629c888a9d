import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tollgate.upstreams import breaker
from tollgate.upstreams.breaker import OF_OPENROUTER, OF_OTHERS, Breaker, Breakers, Budget, Temper

TEMPER = Temper(faults=3, first_seconds=1.0, longest_seconds=5.0)
ORGS = ["one", "other", None]
"""None for a failure that no request can have provoked."""


class Breaking(RuleBasedStateMachine):
    """A breaker and what it promises: it opens for faults in a row alone, never for one org's and never for long, and
    lets one probe in."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.one = Breaker(TEMPER)
        self.in_a_row: list[str | None] = []
        self.since: set[str | None] = set()
        self.under_way = 0
        self.probes = 0
        self.opened_at: float | None = None

    @property
    def is_enough(self) -> bool:
        return sum(min(self.in_a_row.count(org), 2 if org else 99) for org in ORGS) >= TEMPER.faults

    @rule()
    def ask(self) -> None:
        state = self.one.state(self.now)
        admitted = self.one.admits(self.now)
        assert admitted == (state == "closed" or (state == "half" and self.probes == 0))
        if admitted:
            self.one.begin(self.now)
            self.under_way += 1
            self.probes += state == "half"

    @precondition(lambda self: self.under_way)
    @rule(org=st.sampled_from(ORGS))
    def fail(self, org: str | None) -> None:
        was_open = self.one.state(self.now) == "open"
        self.under_way -= 1
        self.in_a_row.append(org)
        self.one.failed(self.now, org)
        if not was_open:
            self.probes = 0
            self.since.add(org)
            if self.is_enough and (None in self.since or len(self.since) > 1):
                self.opened_at = self.now
                self.since.clear()

    @precondition(lambda self: self.under_way)
    @rule()
    def succeed(self) -> None:
        self.under_way -= 1
        self.in_a_row.clear()
        self.since.clear()
        self.probes = 0
        self.opened_at = None
        self.one = Breaker(TEMPER)

    @precondition(lambda self: self.under_way)
    @rule()
    def abandon(self) -> None:
        self.under_way -= 1
        self.probes = 0
        self.one.abandoned()

    @rule(seconds=st.floats(0.01, 3))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def opens_only_for_faults_in_a_row_and_never_for_long(self) -> None:
        state = self.one.state(self.now)
        if not self.is_enough:
            assert state == "closed"
        if self.opened_at is not None and self.now < self.opened_at + TEMPER.first_seconds:
            assert state == "open"
        assert self.one.seconds_left(self.now) <= TEMPER.longest_seconds + 1e-6


TestBreaking = Breaking.TestCase


def failed(times: int, temper: Temper = TEMPER, now: float = 0.0) -> Breaker:
    made = Breaker(temper)
    for _ in range(times):
        made.failed(now)
    return made


def failing(*orgs: str, provoked: bool = True, temper: Temper = TEMPER) -> Breakers:
    made = Breakers(temper)
    for org in orgs:
        made.failed("m", org, 0.0, provoked=provoked)
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


@pytest.mark.parametrize("temper", [TEMPER, OF_OPENROUTER, OF_OTHERS])
def test_one_org_alone_rests_a_model_for_itself_and_never_for_others(temper: Temper) -> None:
    kept = failing(*["attacker"] * 1000, temper=temper)
    assert not kept.admits("m", "attacker", 0.0)
    assert kept.admits("m", "victim", 0.0)
    assert kept.admits("another model", "attacker", 0.0)
    assert kept.states(0.0) == {"m": "closed"}


@pytest.mark.parametrize("temper", [TEMPER, OF_OPENROUTER, OF_OTHERS])
def test_two_orgs_whose_calls_fail_rest_it_for_all(temper: Temper) -> None:
    kept = failing(*["one", "other"] * ((temper.faults + 1) // 2), temper=temper)
    assert not kept.admits("m", "a third", 0.0)
    assert kept.states(0.0) == {"m": "open"}


def test_one_failure_of_another_org_is_not_enough_beside_a_thousand_of_one() -> None:
    assert failing(*["attacker"] * 1000, "victim", temper=OF_OTHERS).admits("m", "victim", 0.0)


def test_what_two_orgs_have_rested_one_alone_cannot_keep_at_rest() -> None:
    kept = failing("attacker", "victim", "attacker")
    for now in (1.0, 1.1, 1.2):
        if kept.admits("m", "attacker", now):
            kept.failed("m", "attacker", now, provoked=True)
    assert kept.state("m", "attacker", 1.2) == "open", "it rests by its own"
    assert kept.admits("m", "victim", 1.2)
    kept.answered("m", "victim")
    kept.failed("m", "attacker", 1.3, provoked=True)
    assert kept.admits("m", "a third", 1.3), "one more of one org after a good head"
    kept.failed("m", "victim", 1.4, provoked=True)
    assert not kept.admits("m", "a third", 1.4)


def test_what_no_request_provokes_rests_it_for_all_whoever_asked() -> None:
    kept = failing("one", "one", "one", provoked=False)
    assert not kept.admits("m", "other", 0.0)
    assert kept.worst(0.0) == "open"


def test_what_was_open_is_not_taken_for_what_works_for_a_while() -> None:
    kept = failing("one", "other", "one", "one")
    assert [kept.were_open(now) for now in (0.0, 60.0, 1 + breaker.LATELY_SECONDS)] == [True, True, False]
    kept.succeeded("m", "one")
    assert not kept.were_open(60.0)


def test_one_probe_is_that_of_both_breakers() -> None:
    kept = failing("one", "other", "one", "one")
    assert kept.admits("m", "one", 1.0)
    assert not kept.admits("m", "other", 1.0)
    kept.abandoned("m", "one")
    assert kept.admits("m", "other", 1.0)
    kept.succeeded("m", "other")
    assert (kept.state("m", "other", 1.0), kept.state("m", "one", 0.5)) == ("closed", "open")


def test_a_checkup_speaks_for_all_that_wait_for_it_and_for_nobody_else() -> None:
    kept = failing("one", "one", "one", "other")
    kept.failed("n", "one", 0.9, provoked=False)
    kept.checked(1.0, is_up=True)
    assert (kept.state("m", "one", 1.0), kept.state("m", "other", 1.0)) == ("closed", "closed")
    kept = failing("one", "one", "one", "other")
    kept.checked(1.0, is_up=False)
    assert kept.seconds_left("m", "one", 1.0) == 2


def test_what_works_is_not_remembered_and_what_fails_not_without_end() -> None:
    kept = Breakers(TEMPER)
    for number in range(3 * breaker.MOST_REMEMBERED):
        kept.failed(f"m{number}", "one", 0.0, provoked=True)
    assert len(kept.states(0.0)) == breaker.MOST_REMEMBERED / 2
    last = f"m{3 * breaker.MOST_REMEMBERED - 1}"
    kept.succeeded(last, "one")
    assert last not in kept.states(0.0)


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
