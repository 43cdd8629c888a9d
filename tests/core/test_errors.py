import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.core import errors
from tollgate.core.conflicts import SENTENCES
from tollgate.core.errors import (
    BadRequest,
    InternalError,
    NotFound,
    PermissionDenied,
    TollgateError,
    Unauthenticated,
    from_code,
    tree,
)
from tollgate.web.error_responses import render

DRAWN = re.compile(r"^(?P<indent>[│ ├└─]*)(?P<name>[A-Z]\w+)(?: +(?P<status>\d{3}))?(?: +(?P<code>[a-z_]+))?$")
TYPES = {401: {"authentication_error"}, 403: {"permission_error"}}
OTHER_TYPES = {"invalid_request_error", "insufficient_quota", "rate_limit_error"}
NAMED = ("message", "type", "code", "param")

Node = tuple[int, str, int | None, str | None]

EVERY_ERROR = pytest.mark.parametrize("kind", list(tree()), ids=lambda kind: kind.__name__)

facts = st.dictionaries(
    st.from_regex(r"[a-z_]{1,12}", fullmatch=True).filter(lambda name: name not in ("self", "message", "param"))
    | st.sampled_from(["type", "code"]),
    st.none() | st.integers() | st.text() | st.lists(st.text()),
)


def drawn() -> Iterator[Node]:
    """The docstring's tree; a status that is not repeated is the one of the branch."""
    branch: dict[int, int | None] = {-1: None}
    for line in inspect.cleandoc(errors.__doc__ or "").splitlines():
        if found := DRAWN.match(line):
            depth = len(found["indent"]) // 4
            branch[depth] = int(found["status"]) if found["status"] else branch[depth - 1]
            yield depth, found["name"], branch[depth], found["code"]


def written(kind: type[TollgateError], depth: int = 0) -> Iterator[Node]:
    yield depth, kind.__name__, getattr(kind, "status", None), getattr(kind, "code", None)
    for branch in kind.__subclasses__():
        yield from written(branch, depth + 1)


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    assert list(drawn()) == list(written(TollgateError))


def test_the_drawn_tree_is_read_whole() -> None:
    lines = [line for line in (errors.__doc__ or "").splitlines() if re.search("[├└]──", line)]
    assert len(list(drawn())) == len(lines) + 1 > 15


def test_no_two_errors_share_a_code() -> None:
    codes = [error.code for error in tree()]
    assert len(codes) == len(set(codes))


@EVERY_ERROR
def test_every_error_renders_in_openai_s_shape(kind: type[TollgateError]) -> None:
    answer = render(kind())
    assert answer.status_code == kind.status
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(bytes(answer.body)) == {
        "error": {"message": kind.sentence, "type": kind.type, "code": kind.code, "param": None}
    }


@EVERY_ERROR
def test_every_error_renders_in_openrouter_s_shape(kind: type[TollgateError]) -> None:
    assert kind().body("openrouter") == {
        "error": {"code": kind.status, "message": kind.sentence, "metadata": {"error_type": kind.code}}
    }


@given(facts=facts)
def test_facts_are_openrouter_s_metadata_and_never_in_the_place_of_our_code(facts: dict[str, Any]) -> None:
    error = NotFound("No such org.", param="org_id", **facts | {"error_type": "forged"}).body("openrouter")["error"]
    metadata = facts | {"error_type": "not_found"}
    assert error == {"code": 404, "message": "No such org.", "param": "org_id", "metadata": metadata}


@EVERY_ERROR
def test_every_error_has_a_type_that_sdks_know_for_its_status(kind: type[TollgateError]) -> None:
    usual = {"server_error"} if kind.status >= 500 else TYPES.get(kind.status, OTHER_TYPES)
    assert kind.type in usual


@EVERY_ERROR
def test_every_error_says_what_happened_in_whole_sentences(kind: type[TollgateError]) -> None:
    assert kind.sentence[0].isupper()
    assert kind.sentence.endswith(".")
    assert "\n" not in kind.sentence


@pytest.mark.parametrize("kind", [kind for kind in tree() if issubclass(kind, Unauthenticated)])
def test_a_401_says_how_to_authenticate(kind: type[TollgateError]) -> None:
    assert render(kind()).headers["www-authenticate"] == "Bearer"


def test_an_outage_says_when_to_come_back() -> None:
    assert render(errors.DatabaseUnavailable()).headers["retry-after"].isdigit()


@given(facts=facts)
def test_facts_are_fields_beside_the_named_ones_and_never_in_their_place(facts: dict[str, Any]) -> None:
    error = NotFound("No such org.", param="org_id", **facts).body()["error"]
    assert {name: error[name] for name in NAMED} == {
        "message": "No such org.",
        "type": "invalid_request_error",
        "code": "not_found",
        "param": "org_id",
    }
    assert error == facts | {name: error[name] for name in NAMED}


@EVERY_ERROR
def test_a_code_of_the_database_becomes_its_error_with_its_facts(kind: type[TollgateError]) -> None:
    error = from_code(kind.code, {"org_id": "org_1", "param": "org_id"})
    assert type(error) is kind
    assert error.facts == {"org_id": "org_1"}
    assert error.param == "org_id"
    about_a_term = "This API key may not grant org_id: " if kind is PermissionDenied else kind.sentence
    assert error.message.startswith("org_id: is not valid." if kind is BadRequest else about_a_term)


@given(code=st.text())
def test_a_code_that_nobody_drew_becomes_an_internal_error(code: str) -> None:
    known = {error.code for error in tree()}
    assert code in known or type(from_code(code, {})) is InternalError


@pytest.mark.parametrize("fact", ["message", "type", "code"])
def test_a_fact_of_the_database_does_not_overwrite_what_the_error_says(fact: str) -> None:
    assert from_code("not_found", {fact: "forged"}).body() == NotFound().body()


def test_every_conflict_that_the_database_refuses_has_a_sentence() -> None:
    schemas = (Path(__file__).parents[2] / "supabase" / "schemas").rglob("*.sql")
    refused = [sql for file in schemas for sql in re.findall(r"refuse\(409, 'conflict',[^;]*", file.read_text())]
    reasons = [set(re.findall(r"""["'](\w+)["']""", sql)) & set(SENTENCES) for sql in refused]
    assert all(reasons), "a conflict gives no reason that has a sentence"
    assert set().union(*reasons) == set(SENTENCES)


@pytest.mark.parametrize(
    ("code", "given", "message"),
    [
        ("invalid_request", {"param": "expires_at", "fault": "is in the past"}, "expires_at: is in the past."),
        ("not_found", {"kind": "org", "id": "org_x"}, "No org has the id org_x."),
        ("not_found", {"kind": "security_event", "id": 7}, "No security event has the id 7."),
        ("conflict", {"reason": "email_taken", "email": "a@b.test"}, "A user with the email a@b.test exists."),
        (
            "conflict",
            {"reason": "expired", "key_id": "key_1"},
            "The key key_1 expired at $expired_at. Create a new key.",
        ),
        ("conflict", {"reason": "unheard_of"}, errors.Conflict.sentence),
        (
            "model_not_found",
            {"model": "a/b", "expired_on": "2026-11-01"},
            "The model a/b expired on 2026-11-01. GET /v1/models lists the models.",
        ),
    ],
)
def test_what_was_looked_for_or_collides_is_named(code: str, given: dict[str, Any], message: str) -> None:
    assert from_code(code, given).message == message


def test_a_request_that_no_wait_would_help_is_not_told_to_wait() -> None:
    assert "Retry-After" in errors.RateLimitExceeded(retry_after_ms=10).message
    too_large = errors.RateLimitExceeded(retry_after_ms=None, limit=10)
    assert "Retry-After" not in too_large.message
    assert "fewer tokens" in too_large.message
    assert too_large.body()["error"]["limit"] == 10


MONTH = {"limit": 50, "period": "month", "resets_at": "2026-12-01T00:00:00.000Z"}


@pytest.mark.parametrize(
    ("code", "facts", "said"),
    [
        (
            "quota_exhausted",
            MONTH | {"needed": 196, "left": 50},
            "This request needs 196 tokens, and 50 are left of this API key's quota of 50 tokens until "
            "2026-12-01T00:00:00.000Z. Request fewer tokens, or raise tokens_per_month of the key.",
        ),
        (
            "quota_exhausted",
            MONTH | {"needed": 1, "left": 0, "period": "lifetime", "resets_at": None},
            "This API key has used up its quota of 50 tokens. Raise tokens_in_all of the key, or use another key.",
        ),
        (
            "key_budget_exhausted",
            {"required_nanos": 10_500, "left_nanos": 10_000, "budget_nanos": 10**9, "resets_at": None},
            "This request may cost 0.0000105 credits, and 0.00001 are left of this API key's budget of 1 credits. "
            "Request fewer tokens, or raise budget_nanos of the key.",
        ),
        (
            "key_budget_exhausted",
            {"required_nanos": 1, "left_nanos": 0, "budget_nanos": 5, "resets_at": "2026-12-01T00:00:00.000Z"},
            "This API key has used up its budget of 0.000000005 credits until 2026-12-01T00:00:00.000Z. "
            "Raise budget_nanos of the key, or use another key.",
        ),
        (
            "insufficient_credits",
            {"required_nanos": 2 * 10**9, "available_nanos": 10**9, "affordable_output_tokens": 7},
            "This request may cost 2 credits, and 1 are available. Add credits, or request fewer output tokens.",
        ),
        (
            "insufficient_credits",
            {"required_nanos": 1, "available_nanos": 0, "affordable_output_tokens": 0},
            "No credits are available. Add credits, or wait until requests in progress end.",
        ),
        (
            "too_many_in_flight",
            {"of": "key", "limit": 2, "in_flight": 2},
            "This key has as many requests in progress as it may, 2 of 2. Send it again when one of them has finished, "
            "or ask your operator to raise max_concurrent_requests.",
        ),
        (
            "upstream_timeout",
            {"phase": "total"},
            "The upstream did not respond in time. If it did the work, the work is charged at its cost. "
            "Request less output, or ask your operator to raise UPSTREAM_TIMEOUT_SECONDS.",
        ),
        (
            "rate_limit_exceeded",
            {
                "of": "key",
                "limit": 9,
                "measure": "tokens",
                "window": "hour",
                "needed": 5,
                "left": 4,
                "retry_after_ms": 1,
            },
            "This request needs 5 tokens, and this key may use 9 tokens in any hour, of which 4 are left. "
            "The request does not fit into a limit at the moment. Send it again after the time in Retry-After.",
        ),
        (
            "rate_limit_exceeded",
            {"of": "org", "limit": 60, "measure": "requests", "window": "minute", "needed": 1, "retry_after_ms": 5},
            "This org may send 60 requests in any minute. "
            "The request does not fit into a limit at the moment. Send it again after the time in Retry-After.",
        ),
    ],
)
def test_a_refusal_says_what_is_needed_and_what_is_left(code: str, facts: dict[str, Any], said: str) -> None:
    error = from_code(code, facts)
    assert error.message == said
    assert error.facts == facts


def test_an_error_s_own_words_win_over_its_sentence() -> None:
    error = BadRequest("limit: too large.", param="limit")
    assert str(error) == error.message == "limit: too large."
    assert error.body()["error"]["param"] == "limit"


def test_one_error_s_facts_are_not_another_s() -> None:
    BadRequest(seen=1)
    assert BadRequest().facts == {}
