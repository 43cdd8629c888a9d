"""The arithmetic of sliding windows in the database, under any schedule."""

from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windows import SPANS, START, Windows, at_ease

Schedule = list[tuple[int, int]]
"""Milliseconds to wait, tokens to ask for."""

waits = st.one_of(st.integers(0, 5_000), st.integers(0, 200_000), st.integers(0, 100_000_000))
schedules = st.lists(st.tuples(waits, st.integers(0, 60)), min_size=1, max_size=25)
limit = st.one_of(st.none(), st.integers(1, 12))
token_limit = st.one_of(st.none(), st.integers(1, 150))
limits = st.tuples(limit, limit, limit, token_limit, token_limit, token_limit)


@pytest.fixture
def windows(shared_database: str) -> Iterator[Windows]:
    made = Windows(shared_database)
    yield made
    made.close()


def weighted(admitted: list[tuple[int, int]], span: int, at: int, measure: int) -> Fraction:
    """The content of a window of this span at a time, by definition."""
    bucket, elapsed = divmod(at, span)
    amount = {
        age: sum((1, tokens)[measure] for when, tokens in admitted if when // span == bucket - age) for age in (0, 1)
    }
    return amount[0] + Fraction(amount[1] * (span - elapsed), span)


def run(windows: Windows, schedule: Schedule, most: tuple[int | None, ...]) -> list[tuple[int, int]]:
    """Plays a schedule and returns what was admitted, checking every window at every admission."""
    at, counters = START, None
    admitted: list[tuple[int, int]] = []
    for wait, tokens in schedule:
        at += wait
        if windows.exceeded(counters, most, at, tokens) is not None:
            continue
        counters = windows.take(counters, at, tokens)
        admitted.append((at, tokens))
        for place, bound in enumerate(most):
            if bound is not None:
                assert weighted(admitted, list(SPANS.values())[place % 3], at, place // 3) <= bound
    return admitted


@at_ease
@given(schedules, limits)
def test_no_window_ever_exceeds_its_limit(windows: Windows, schedule: Schedule, most: tuple[int | None, ...]) -> None:
    admitted = run(windows, schedule, most)
    for place, bound in enumerate(most):
        span = list(SPANS.values())[place % 3]
        aligned: dict[int, int] = {}
        for when, tokens in admitted:
            aligned[when // span] = aligned.get(when // span, 0) + (1, tokens)[place // 3]
        assert bound is None or all(count <= bound for count in aligned.values())


@at_ease
@given(schedules, limits, st.integers(0, 60))
def test_a_lone_request_after_retry_after_is_admitted_and_not_a_millisecond_before(
    windows: Windows, schedule: Schedule, most: tuple[int | None, ...], tokens: int
) -> None:
    at, counters = START, None
    for wait, asked in schedule:
        at += wait
        if windows.exceeded(counters, most, at, asked) is None:
            counters = windows.take(counters, at, asked)
    refused = windows.exceeded(counters, most, at, tokens)
    if refused is None:
        return
    wait = refused["retry_after_ms"]
    if wait is None:
        assert tokens > min(bound for bound in most[3:] if bound is not None)
        return
    assert wait > 0
    assert windows.exceeded(counters, most, at + wait, tokens) is None
    assert windows.exceeded(counters, most, at + wait - 1, tokens) is not None


@at_ease
@given(schedules, limits)
def test_there_is_room_exactly_where_no_limit_is_exceeded(
    windows: Windows, schedule: Schedule, most: tuple[int | None, ...]
) -> None:
    at, counters = START, None
    for wait, asked in schedule:
        at += wait
        exceeded = windows.exceeded(counters, most, at, asked)
        _, requests_left, _, _, tokens_left, _ = windows.remaining(counters, most, at)
        fits = (requests_left is None or requests_left >= 1) and (tokens_left is None or tokens_left >= asked)
        assert fits == (exceeded is None)
        if fits:
            counters = windows.take(counters, at, asked)


@at_ease
@given(schedules, limits)
def test_what_a_request_took_is_back_at_the_reset_and_not_a_millisecond_before(
    windows: Windows, schedule: Schedule, most: tuple[int | None, ...]
) -> None:
    at, counters = START, None
    for wait, tokens in schedule:
        at += wait
        counters = windows.take(counters, at, tokens + 1)
    for measure in (0, 3):
        limit, _, reset = windows.remaining(counters, most, at)[measure : measure + 3]
        if limit is None or reset is None:
            assert most[measure : measure + 3] == (None, None, None)
            continue
        window = list(SPANS.values()).index(next(span for span in SPANS.values() if span < reset <= 2 * span))
        alone = tuple(bound if place == measure + window else None for place, bound in enumerate(most))
        assert windows.remaining(counters, alone, at + reset)[measure + 1] == limit
        left_just_before = windows.remaining(counters, alone, at + reset - 1)[measure + 1]
        assert left_just_before is not None
        assert left_just_before < limit


@at_ease
@given(schedules, st.integers(0, 100_000_000), st.integers(-60, 60))
def test_a_correction_changes_only_the_buckets_that_reserved(
    windows: Windows, schedule: Schedule, later: int, difference: int
) -> None:
    at, counters = START, None
    for wait, tokens in schedule:
        at += wait
        counters = windows.take(counters, at, tokens)
    before = windows.ask("select tollgate.roll($1, $2)", counters, at + later)
    after = windows.ask("select tollgate.correct($1, $2, $3, $4)", counters, at, at + later, difference)
    for place, span in enumerate(SPANS.values()):
        age = (at + later) // span - at // span
        expected = list(before[place * 5 : place * 5 + 5])
        if age in (0, 1):
            expected[2 if age == 0 else 4] = max(0, expected[2 if age == 0 else 4] + difference)
        assert list(after[place * 5 : place * 5 + 5]) == expected


def test_a_clock_that_goes_back_frees_nothing(windows: Windows) -> None:
    most = (1, None, None, None, None, None)
    counters = windows.take(None, START, 0)
    for back in (1, 59_999, 60_000, 3_600_000):
        assert windows.exceeded(counters, most, START - back, 0) is not None


def test_twice_the_limit_does_not_pass_at_the_turn(windows: Windows) -> None:
    """Calendar windows would allow it: a full minute just before the turn, and another just after."""
    most = (10, None, None, None, None, None)
    turn = START - START % 60_000
    counters = None
    for moment in range(turn - 10, turn):
        assert windows.exceeded(counters, most, moment, 0) is None
        counters = windows.take(counters, moment, 0)
    assert windows.exceeded(counters, most, turn, 0)["retry_after_ms"] == 6_000
