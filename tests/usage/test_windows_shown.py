"""The windows that a monitor shows are those that admission counts in."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windows import SPANS, START, Windows, at_ease

MEASURES = ("requests", "tokens")
MUCH = (10**7,) * 6

counts = st.one_of(st.just(0), st.integers(0, 10**6))
limits = st.tuples(*[st.none() | st.integers(0, 10**6)] * 6)
moments = st.integers(START, START + 3 * 86_400_000)


@st.composite
def counted(draw: Any) -> tuple[list[int], int]:
    """Counters of now or of a little earlier, and the time."""
    now = draw(moments)
    made = []
    for span in SPANS.values():
        made += [now // span - draw(st.integers(0, 2)), *(draw(counts) for _ in range(4))]
    return made, now


class Shown(Windows):
    def windows(self, counters: list[int], most: tuple[int | None, ...], at: int) -> Any:
        sql = "select tollgate.windows($1, row($2,$3,$4,$5,$6,$7)::tollgate.limits, $8)"
        return json.loads(self.ask(sql, counters, *most, at))


@pytest.fixture
def shown(shared_database: str) -> Iterator[Shown]:
    made = Shown(shared_database)
    yield made
    made.close()


@given(counted(), limits)
@at_ease
def test_what_remains_is_what_admission_lets_through(
    shown: Shown, counted: tuple[list[int], int], most: tuple[int | None, ...]
) -> None:
    told, remaining = shown.windows(counted[0], most, counted[1]), shown.remaining(counted[0], most, counted[1])
    for measure, left in zip(MEASURES, (remaining[1], remaining[4]), strict=True):
        limited = [window for window in told[measure].values() if window["limit"] is not None]
        assert min((window["limit"] - window["used"] for window in limited), default=None) == left
        assert all(window["remaining"] == max(0, window["limit"] - window["used"]) for window in limited)


@given(counted())
@at_ease
def test_a_window_is_free_again_when_it_says_and_no_sooner(shown: Shown, counted: tuple[list[int], int]) -> None:
    counters, now = counted
    told = shown.windows(counters, MUCH, now)
    for measure in MEASURES:
        for name, window in told[measure].items():
            if window["resets_at"] is None:
                assert window["used"] == 0
                continue
            free = round(datetime.fromisoformat(window["resets_at"]).timestamp() * 1000)
            assert now < free <= now + 2 * SPANS[name]
            assert shown.windows(counters, MUCH, free)[measure][name]["used"] == 0
            assert shown.windows(counters, MUCH, free - 1)[measure][name]["used"] > 0
