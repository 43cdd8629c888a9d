"""What a client of OpenAI's API gets of an upstream's error."""

import json
from typing import Any

import pytest

from tollgate.core import upstream_errors

OF_OPENROUTER = {
    "message": "flagged",
    "code": 403,
    "metadata": {"error_type": "content_policy_violation", "reasons": ["violence"], "type": "forged"},
}


def shown(error: Any, status: int = 400) -> dict[str, Any]:
    body = json.dumps({"error": error, "user_id": "user_of_our_account"}).encode()
    told = json.loads(upstream_errors.in_answer(body, status, "openrouter"))
    assert told.keys() == {"error"}
    return dict(told["error"])


def test_the_facts_of_an_upstream_are_fields_beside_the_named_ones() -> None:
    assert shown(OF_OPENROUTER) == {
        "message": "flagged",
        "type": "permission_error",
        "code": "content_policy_violation",
        "param": None,
        "reasons": ["violence"],
        "upstream": "openrouter",
        "upstream_code": 403,
    }


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalid_request", "invalid_request_error"),
        (404, "not_found", "invalid_request_error"),
        (429, "rate_limit_exceeded", "rate_limit_error"),
        (500, "upstream_unavailable", "server_error"),
        (529, "upstream_busy", "server_error"),
    ],
)
def test_an_error_without_a_word_gets_that_of_its_status(status: int, code: str, kind: str) -> None:
    for given in (None, status, "Not A Word"):
        told = shown({"message": "no", "code": given}, status)
        assert (told["code"], told["type"], told["upstream_code"]) == (code, kind, given)


def test_an_upstream_s_own_word_and_type_stay() -> None:
    told = shown({"message": "long", "type": "BadRequestError", "code": "context_length_exceeded", "param": "messages"})
    assert (told["code"], told["type"], told["param"]) == ("context_length_exceeded", "BadRequestError", "messages")


@pytest.mark.parametrize("error", [{"code": 429, "message": "slow"}, "slow"])
def test_only_the_error_of_an_event_changes(error: Any) -> None:
    event = b'event: x\r\ndata: {"a": 1.50, "error": %b, "choices":[]}\r\n\r\n'
    told = upstream_errors.in_event(event % json.dumps(error).encode(), "openrouter")
    before, _, rest = told.partition(b'"error": ')
    written, _, after = rest.partition(b', "choices"')
    assert (before, after) == (b'event: x\r\ndata: {"a": 1.50, ', b":[]}\r\n\r\n")
    assert json.loads(written)["message"] == "slow"
    assert isinstance(json.loads(written)["code"], str)


@pytest.mark.parametrize("data", [b'{"error": null}', b'{"error": NaN}', b'text with "error"', b"{}"])
def test_an_event_without_an_error_stays(data: bytes) -> None:
    event = b"data: " + data + b"\n\n"
    assert upstream_errors.in_event(event, "openrouter") == event
