"""The security counters: what they count together, and their bounds."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.audit import rules
from tollgate.audit.security_counters import MOST_OF_EACH, NETWORK_SECONDS, OTHERS, SecurityCounters

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CALLER = {"ip": "192.0.2.1", "digests": ["ab", "cd"], "user_agent": "tests/1.0", "request_id": "req_1"}


class Day:
    """A clock that advances by a second with each reading."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        self.seconds += 1
        return NOON + timedelta(seconds=self.seconds)

    def clock(self) -> float:
        return self.seconds


def counter(day: Day | None = None) -> SecurityCounters:
    day = day or Day()
    return SecurityCounters(now=day.now, clock=day.clock)


def refused(counters: SecurityCounters, code: str, key_id: str | None = None, **caller: Any) -> None:
    facts = {"error_code": code} | ({"key_id": key_id} if key_id else {})
    counters.count("POST", "/v1/chat/completions", facts, CALLER | caller)


def taken(counters: SecurityCounters) -> dict[str, list[dict[str, Any]]]:
    found = counters.take()
    assert found is not None
    return found


def test_nothing_seen_is_nothing_to_hand_over() -> None:
    assert counter().take() is None


def test_refusals_of_one_address_are_one_count_with_its_first_and_last() -> None:
    counters = counter()
    for _ in range(3):
        refused(counters, "invalid_api_key", digests=[])  # a mistyped one, which has none
    assert taken(counters)["refusals"] == [
        {
            "kind": "authentication_failed",
            "key_id": None,
            "digest": None,
            "address": "192.0.2.1",
            "times": 3,
            "first_seen": "2026-01-01T12:00:01+00:00",
            "last_seen": "2026-01-01T12:00:03+00:00",
            "code": "invalid_api_key",
        }
    ]
    assert counters.take() is None


def test_a_named_key_is_who_is_meant_wherever_it_comes_from() -> None:
    counters = counter()
    refused(counters, "key_revoked", "key_1")
    refused(counters, "key_revoked", "key_1", ip="198.51.100.9")
    (one,) = taken(counters)["refusals"]
    assert (one["key_id"], one["times"], one["address"]) == ("key_1", 2, "198.51.100.9")


def test_a_limit_names_no_key_so_its_digest_goes_along() -> None:
    counters = counter()
    refused(counters, "rate_limit_exceeded")
    (one,) = taken(counters)["refusals"]
    assert (one["kind"], one["digest"]) == ("limit_exceeded", "ab")


def test_a_stranger_s_digest_goes_nowhere() -> None:
    counters = counter()
    refused(counters, "invalid_api_key")
    assert "'ab'" not in repr(taken(counters))


def test_a_request_without_a_key_is_not_counted_and_missing_credits_are_no_security_event() -> None:
    counters = counter()
    refused(counters, "missing_api_key")
    counters.count("GET", "/healthz", {}, {})
    assert counters.take() is None
    refused_call(counters, "maker/model", code="insufficient_credits")
    assert taken(counters)["refusals"] == []


def test_a_key_that_asks_for_what_is_an_operator_s_is_told_by_its_route() -> None:
    counters = counter()
    for _ in range(2):
        counters.count("GET", "/admin/orgs/{id}", {"error_code": "permission_denied", "key_id": "key_1"}, CALLER)
    found = taken(counters)
    assert found["trespasses"] == [
        {
            "key_id": "key_1",
            "target": "GET /admin/orgs/{id}",
            "times": 2,
            "ip": "192.0.2.1",
            "user_agent": "tests/1.0",
            "request_id": "req_1",
        }
    ]
    assert found["uses"] == []


def test_a_network_is_told_again_after_an_hour_only() -> None:
    day = Day()
    counters = counter(day)
    for ip in ("192.0.2.1", "192.0.2.200", "198.51.100.1"):
        counters.count("GET", "/user/balance", {"key_id": "key_1"}, {"ip": ip})
    assert [use["network"] for use in taken(counters)["uses"]] == ["192.0.2.0/24", "198.51.100.0/24"]
    counters.count("GET", "/user/balance", {"key_id": "key_1"}, {"ip": "192.0.2.2"})
    assert counters.take() is None
    day.seconds += NETWORK_SECONDS
    counters.count("GET", "/user/balance", {"key_id": "key_1"}, {"ip": "192.0.2.2"})
    assert [use["network"] for use in taken(counters)["uses"]] == ["192.0.2.0/24"]


def test_a_network_that_a_key_was_refused_from_is_none_it_was_used_from() -> None:
    counters = counter()
    refused(counters, "ip_not_allowed", "key_1")
    assert taken(counters)["uses"] == []


def test_an_attack_from_everywhere_stays_within_bounds_and_loses_no_count() -> None:
    counters = counter()
    attempts = MOST_OF_EACH * 3
    for number in range(attempts):
        refused(counters, "invalid_api_key", ip=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        counters.count("GET", "/user/balance", {"key_id": f"key_{number}"}, CALLER)
        counters.count("GET", f"/admin/{number}", {"key_id": "key_1", "error_code": "permission_denied"}, CALLER)
    found = taken(counters)
    assert len(found["refusals"]) == MOST_OF_EACH + 1
    assert sum(one["times"] for one in found["refusals"]) == attempts
    assert found["refusals"][-1]["address"] == OTHERS
    assert len(found["uses"]) == len(found["trespasses"]) == MOST_OF_EACH


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*rules.KINDS, "not_found", "permission_denied"]),
            st.sampled_from([None, "key_1", "key_2"]),
            st.sampled_from([None, "192.0.2.1", "2001:db8::1"]),
        )
    )
)
def test_every_refusal_that_counts_is_counted_once(seen: list[tuple[str, str | None, str | None]]) -> None:
    counters = counter()
    for code, key_id, ip in seen:
        refused(counters, code, key_id, ip=ip)
    found = counters.take() or {"refusals": []}
    for kind in set(rules.KINDS.values()):
        expected = sum(rules.KINDS.get(code) == kind for code, _, _ in seen)
        assert sum(one["times"] for one in found["refusals"] if one["kind"] == kind) == expected
    who = [
        (one["kind"], one["key_id"], one["digest"], one["address"] if not one["key_id"] else None)
        for one in found["refusals"]
    ]
    assert len(set(who)) == len(who)


def refused_call(
    counters: SecurityCounters, model: str, request_id: str = "req_1", code: str = "quota_exhausted", **facts: Any
) -> None:
    noted = {"error_code": code, "model": model, "refusal": facts}
    counters.count("POST", "/v1/chat/completions", noted, CALLER | {"request_id": request_id})


def test_refused_calls_of_a_model_are_one_count_with_the_last_as_a_sample() -> None:
    counters = counter()
    refused_call(counters, "maker/model", tokens_needed=10)
    refused_call(counters, "maker/model", "req_2", tokens_needed=20)
    assert taken(counters)["refused_calls"] == [
        {
            "code": "quota_exhausted",
            "key_id": None,
            "digest": "ab",
            "model": "maker/model",
            "times": 2,
            "first_seen": "2026-01-01T12:00:01+00:00",
            "last_seen": "2026-01-01T12:00:03+00:00",
            "request_id": "req_2",
            "facts": {"tokens_needed": 20},
        }
    ]


@pytest.mark.parametrize("code", ["model_not_allowed", "paid_calls_suspended", "permission_denied"])
def test_a_forbidden_paid_call_is_counted_and_other_forbidden_calls_are_not(code: str) -> None:
    counters = counter()
    counters.count("GET", "/user/usage", {"error_code": code}, CALLER)
    assert counters.take() is None
    refused_call(counters, "maker/model", code=code)
    assert [call["code"] for call in taken(counters)["refused_calls"]] == [code]


def test_refused_calls_of_more_models_than_fit_are_counted_without_their_model() -> None:
    counters = counter()
    for number in range(MOST_OF_EACH + 7):
        refused_call(counters, f"maker/model-{number}")
    found = taken(counters)["refused_calls"]
    assert len(found) == MOST_OF_EACH + 1
    assert (found[-1]["model"], found[-1]["times"]) == (None, 7)


def widths(counters: SecurityCounters) -> dict[tuple[str, str | None, str], tuple[int, int]]:
    """By kind, key and what it was done to: how often, and with how many different things."""
    return {
        (one["kind"], one["key_id"], one["about"]): (one["times"], int(one["marks"], 16).bit_count())
        for one in taken(counters)["spreads"]
    }


def test_a_spread_counts_how_often_and_how_many_different() -> None:
    counters = counter()
    for missing in ("a", "b", "a", "c"):
        counters.count("GET", "/x/{id}", {"error_code": "not_found", "missing": missing, "key_id": "key_1"}, CALLER)
    counters.count("GET", "/nowhere", {"error_code": "not_found", "key_id": "key_1"}, CALLER)  # no id: a path
    counters.count("GET", "/v1/models/{name}", {"model_read": "m", "key_id": "key_1"}, CALLER)
    for ip in ("192.0.2.1", "192.0.2.2", "198.51.100.1"):
        counters.count("POST", "/v1/x", {"replayed": "req_9", "key_id": "key_1"}, CALLER | {"ip": ip})
    reused = {"error_code": "idempotency_key_reused", "refusal": {"request_id": "req_9"}, "key_id": "key_1"}
    counters.count("POST", "/v1/x", reused, CALLER)
    for number in range(5):
        refused(counters, "invalid_api_key", ip=f"10.0.0.{number}", digests=["the same"])
    assert widths(counters) == {
        ("missing_ids", "key_1", ""): (4, 3),
        ("models_read", "key_1", ""): (1, 1),
        ("repeated_from", "key_1", "req_9"): (4, 2),
        ("reused_keys", "key_1", ""): (1, 1),
        ("failed_addresses", None, ""): (1, 1),
        ("failed_credentials", None, ""): (1, 1),
    }


def test_only_new_addresses_with_new_credentials_are_stuffing() -> None:
    day = Day()
    counters = counter(day)
    for number in range(20):  # a list of leaked keys
        refused(counters, "invalid_api_key", ip=f"10.0.0.{number}", digests=[f"leaked {number}"])
        refused(counters, "invalid_api_key", ip=f"10.0.1.{number}", digests=["one of a fleet"])
        refused(counters, "sign_in_failed", ip="10.0.2.1", digests=[f"typed {number}"])
    assert {kind: times for (kind, _, _), (times, _) in widths(counters).items()} == {
        "failed_addresses": 22,
        "failed_credentials": 22,
    }
    day.seconds += NETWORK_SECONDS
    refused(counters, "invalid_api_key", ip="10.0.0.1", digests=["leaked 1"])
    assert len(widths(counters)) == 2


def test_a_good_call_adds_no_spread_and_one_tenant_fills_no_memory() -> None:
    counters = counter()
    counters.count("POST", "/v1/chat/completions", {"key_id": "key_1", "model": "m"}, CALLER)
    assert taken(counters)["spreads"] == []
    for number in range(MOST_OF_EACH + 9):
        facts = {"replayed": f"req_{number}", "key_id": "key_1"}
        counters.count("POST", "/v1/chat/completions", facts, CALLER)
    assert len(taken(counters)["spreads"]) == MOST_OF_EACH


def test_a_client_cannot_choose_things_of_one_mark() -> None:
    things = [f"id_{number}" for number in range(20)]
    marks = [[rules.mark_of(thing, key) for thing in things] for key in (b"ours", b"another")]
    assert marks[0] != marks[1]
    assert all(mark.bit_count() == 1 and mark.bit_length() <= rules.MARKS for mark in marks[0])
