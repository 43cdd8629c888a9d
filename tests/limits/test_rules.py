"""The headers that report limits."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.limits import rules

REQUESTS = {"limit": 600, "remaining": 599, "reset_ms": 60_000}
TOKENS = {"limit": 2_000_000, "remaining": 0, "reset_ms": 1}
REFUSED = {
    "measure": "tokens",
    "limit": 100,
    "window": "minute",
    "of": "key",
    "left": 7,
    "reset_ms": 107_001,
    "retry_after_ms": 1_001,
}

moments = st.integers(0, 10**10)


def test_each_measure_is_told_of_its_tightest_window() -> None:
    assert rules.remaining({"requests": REQUESTS, "tokens": TOKENS}) == {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "599",
        "x-ratelimit-reset-requests": "1m0s",
        "x-ratelimit-limit-tokens": "2000000",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "1s",
    }


def test_where_there_is_no_limit_nothing_is_told() -> None:
    nothing: list[Any] = [None, {}, {"requests": None, "tokens": None}]
    assert [rules.remaining(limits) for limits in nothing] == [{}, {}, {}]
    assert set(rules.remaining({"requests": REQUESTS, "tokens": None})) == {
        f"x-ratelimit-{what}-requests" for what in ("limit", "remaining", "reset")
    }


def test_a_refusal_says_when_to_come_back_and_what_was_too_much() -> None:
    assert rules.refused(REFUSED) == {
        "retry-after": "2",
        "retry-after-ms": "1001",
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "7",
        "x-ratelimit-reset-tokens": "1m48s",
    }


def test_what_will_never_be_admitted_is_not_worth_sending_again() -> None:
    assert rules.refused(REFUSED | {"retry_after_ms": None}) == {"x-should-retry": "false"}


@given(moments)
def test_nobody_is_told_to_come_back_too_early_nor_a_second_too_late(wait_ms: int) -> None:
    told = rules.refused(REFUSED | {"retry_after_ms": wait_ms})
    assert 0 <= int(told["retry-after"]) * 1000 - wait_ms < 1000


@given(moments, st.integers(0, 10**11), st.integers(0, 10**11))
def test_whatever_is_told_is_a_header(reset_ms: int, limit: int, left: int) -> None:
    window = {"limit": limit, "remaining": left, "reset_ms": reset_ms}
    headers = rules.remaining({"requests": window, "tokens": window})
    for measure in ("requests", "tokens"):
        assert re.fullmatch("((\\d+h)?[0-5]?\\dm)?[0-5]?\\ds", headers.pop(f"x-ratelimit-reset-{measure}"))
    assert all(value.isdecimal() for value in headers.values())


@pytest.mark.parametrize(
    ("milliseconds", "written"),
    [(0, "0s"), (1, "1s"), (59_001, "1m0s"), (108_000, "1m48s"), (360_000, "6m0s"), (172_800_000, "48h0m0s")],
)
def test_a_duration_is_written_as_openai_does(milliseconds: int, written: str) -> None:
    assert rules.duration(milliseconds) == written


@pytest.mark.parametrize(("given_back", "left"), [(10, "15"), (1_000, "100"), (-3, "2"), (-9, "0")])
def test_a_settled_request_gives_tokens_back_within_the_limit(given_back: int, left: str) -> None:
    limits = {"requests": REQUESTS, "tokens": {"limit": 100, "remaining": 5, "reset_ms": 1}}
    headers = rules.remaining(limits)
    assert rules.remaining(limits, given_back) == headers | {"x-ratelimit-remaining-tokens": left}
    assert rules.remaining({"requests": REQUESTS}, given_back) == rules.remaining({"requests": REQUESTS})
