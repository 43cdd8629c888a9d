"""The headers that report limits."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tollgate.limits import rules

REQUESTS = {"limit": 600, "remaining": 599, "reset_ms": 60_000}
TOKENS = {"limit": 2_000_000, "remaining": 0, "reset_ms": 1}
REFUSED = {"measure": "tokens", "limit": 100, "window": "minute", "of": "key", "retry_after_ms": 1_001}

moments = st.integers(0, 10**10)


def test_each_measure_is_told_of_its_tightest_window() -> None:
    assert rules.remaining({"requests": REQUESTS, "tokens": TOKENS}) == {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "599",
        "x-ratelimit-reset-requests": "60s",
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
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "2s",
    }


def test_what_will_never_be_admitted_is_not_worth_sending_again() -> None:
    assert rules.refused(REFUSED | {"retry_after_ms": None}) == {"x-should-retry": "false"}


@given(moments)
def test_nobody_is_told_to_come_back_too_early_nor_a_second_too_late(wait_ms: int) -> None:
    told = rules.refused(REFUSED | {"retry_after_ms": wait_ms})
    assert 0 <= int(told["retry-after"]) * 1000 - wait_ms < 1000
    assert told["x-ratelimit-reset-tokens"] == f"{told['retry-after']}s"


@given(moments, st.integers(0, 10**11), st.integers(0, 10**11))
def test_whatever_is_told_is_a_header(reset_ms: int, limit: int, left: int) -> None:
    window = {"limit": limit, "remaining": left, "reset_ms": reset_ms}
    for value in rules.remaining({"requests": window, "tokens": window}).values():
        assert value.removesuffix("s").isdecimal()
