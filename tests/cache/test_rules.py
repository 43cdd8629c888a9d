"""The decisions of the cache: different requests never share an entry."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollgate.cache import rules
from tollgate.cache.rules import Bounds, Wish
from tollgate.core import request_body, strict_json
from tollgate.core.models import Route, Upstream
from tollgate.core.request_body import Ask

BOUNDS = Bounds(3600, 7200, 100, 10_000, 0, 20.0)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
NUMBERS = st.one_of(
    st.integers(-3, 3), st.decimals(-3, 3, places=1), st.sampled_from([Decimal("1E+1"), Decimal("10"), Decimal("0.0")])
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS, st.sampled_from(["1", "1.0", "Decimal('1')", "None", "[]"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)
DOCUMENTS = st.dictionaries(TEXTS, VALUES, max_size=3)
UPSTREAM = Upstream("one", "vllm", "https://one.example/v1")
ROUTE = Route(UPSTREAM, "m", None)


def written(value: Any, *, backwards: bool = False) -> str:
    """As JSON, each number as it is."""
    if isinstance(value, dict):
        members = [f"{json.dumps(name)} : {written(one, backwards=backwards)}" for name, one in value.items()]
        return "{ " + ",".join(reversed(members) if backwards else members) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(written(one, backwards=backwards) for one in value) + "]"
    return str(value) if isinstance(value, Decimal) else json.dumps(value)


def same(one: Any, other: Any) -> bool:
    """The same JSON, but for the order of members. 1 and 1.0 differ, and so do 1 and true."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and str(one) == str(other)


@settings(max_examples=60)
@given(DOCUMENTS, DOCUMENTS)
def test_two_requests_have_the_same_digest_only_if_they_are_the_same(one: Any, other: Any) -> None:
    assert (rules.digest(one) == rules.digest(other)) == same(one, other)


@settings(max_examples=60)
@given(DOCUMENTS)
def test_order_and_blanks_and_our_own_field_change_no_digest(document: dict[str, Any]) -> None:
    read = strict_json.from_client(written(document).encode())
    again = strict_json.from_client(written(document, backwards=True).encode())
    assert rules.digest(read) == rules.digest(again)
    if "cache" not in document:
        assert rules.digest({**read, "cache": True}) == rules.digest({**read, "cache": False}) == rules.digest(read)
        assert rules.digest({**read, "cache": {}}) != rules.digest(read)


@settings(max_examples=60)
@given(DOCUMENTS, st.sampled_from(["value", "nested", "member"]))
def test_any_change_of_a_request_changes_its_digest(document: dict[str, Any], how: str) -> None:
    changed = {
        "value": {**document, "x": document.get("x") is None or None},
        "nested": {**document, "x": [document.get("x")]},
        "member": {**document, "longer name": None},
    }[how]
    assert rules.digest(changed) != rules.digest(document)


def ask(endpoint: Any = "chat", **more: Any) -> Ask:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **more}
    return request_body.read(json.dumps(body).encode(), endpoint)


KEYS = {
    "another request": {"request": b"2"},
    "another pepper": {"pepper": "q" * 32},
    "another endpoint": {"ask": ask("messages")},
    "a test key": {"environment": "test"},
    "another model upstream": {"routes": [ROUTE._replace(model="n")]},
    "another upstream": {"routes": [ROUTE._replace(upstream=UPSTREAM._replace(id="two"))]},
    "another address": {"routes": [ROUTE._replace(upstream=UPSTREAM._replace(base_url="https://two.example"))]},
    "a fallback": {"routes": [ROUTE, ROUTE._replace(model="n")]},
    "a charge in the stream": {"headers": {"x-tollgate-usage": "true"}},
}


def test_what_serves_a_request_is_part_of_its_key() -> None:
    plain = {
        "pepper": "p" * 32, "request": b"1", "ask": ask(), "environment": "live", "routes": [ROUTE], "headers": {},
    }  # fmt: skip
    keys = [rules.key(**{**plain, **changed}) for changed in ({}, *KEYS.values())]
    assert len(set(keys)) == len(keys)
    assert rules.key(
        **plain,
    ) == rules.key(**{**plain, "headers": {"user-agent": "x"}})
    assert all(len(key) == 64 for key in keys)


CALLS = st.fixed_dictionaries(
    {
        "request": DOCUMENTS.map(rules.digest),
        "ask": st.sampled_from([ask(), ask("messages")]),
        "environment": st.sampled_from(["live", "test"]),
        "routes": st.lists(
            st.sampled_from([ROUTE, ROUTE._replace(model="n"), ROUTE._replace(model="m, n")]), max_size=2
        ),
        "headers": st.sampled_from([{}, {"x-tollgate-usage": "true"}, {"x-tollgate-usage": "None"}]),
    }
)


@given(CALLS, CALLS)
def test_two_calls_have_the_same_key_only_if_all_that_decides_the_answer_is_the_same(one: Any, other: Any) -> None:
    assert (rules.key("p" * 32, **one) == rules.key("p" * 32, **other)) == (one == other)


@pytest.mark.parametrize(
    ("header", "wish"),
    [
        ("on", Wish(True, True, 3600, True)), ("read", Wish(True, False, 3600, True)),
        ("WRITE", Wish(False, True, 3600, True)), ("read, write", Wish(True, True, 3600, True)),
        ("ttl=5", Wish(True, True, 5, True)), ("write,ttl=7200", Wish(False, True, 7200, True)),
        ("off", Wish(False, False, 3600, True)),
    ],
)  # fmt: skip
def test_the_header_is_read(header: str, wish: Wish) -> None:
    assert rules.in_header({"x-tollgate-cache": header}, BOUNDS) == wish


WISHED = [
    ({}, "chat", None, False, None),
    ({"cache": None}, "chat", None, None, None),
    ({"cache": True}, "chat", None, False, (True, True, True)),
    ({"cache": False}, "chat", None, True, (False, False, True)),
    ({"cache": True}, "chat", Wish(False, False, 1, True), True, (False, False, True)),
    ({"temperature": 0}, "chat", None, True, (True, True, False)),
    ({"temperature": Decimal("0.0")}, "chat", None, None, (True, True, False)),
    ({"temperature": 0}, "chat", None, False, None),
    ({"temperature": Decimal("0.1")}, "chat", None, True, None),
    ({"temperature": False}, "chat", None, True, None),
    ({"temperature": "0"}, "chat", None, True, None),
    ({}, "chat", None, True, None),
    ({}, "embeddings", None, True, (True, True, False)),
]


@pytest.mark.parametrize(("document", "endpoint", "header", "setting", "wish"), WISHED)
def test_the_header_counts_before_the_body_and_the_body_before_the_setting(
    document: Any, endpoint: Any, header: Any, setting: Any, wish: Any
) -> None:
    found = rules.wished(document, endpoint, header, setting, BOUNDS)
    assert (found and (found.reads, found.writes, found.asked)) == wish


ANSWERS = {
    b'{"choices":[{"message":{"content":"hi","tool_calls":null}}]}': True,
    b'{"choices":[{"message":{"content":"hi","tool_calls":[]}}]}': True,
    b'{"choices":[{"message":{"content":"\\"tool_calls\\":[{}] \\"type\\":\\"tool_use\\""}}]}': True,
    b'{"choices":[{"message":{"tool_calls": [ {"id":"x"}]}}]}': False,
    b'{"choices":[{"message":{"function_call":{"name":"x"}}}]}': False,
    b'{"content":[{"type":"tool_use","name":"x"}]}': False,
    b'{"content":[{"type": "server_tool_use","name":"x"}]}': False,
    b'{"output":[{"type":"function_call","name":"x"}]}': False,
    b'{"output":[{"type":"web_search_call"}]}': False,
    b"x" * 100: True,
    b"x" * 101: False,
}


@pytest.mark.parametrize(("body", "may"), ANSWERS.items())
def test_an_answer_that_calls_a_tool_or_is_too_large_is_not_stored(body: bytes, may: bool) -> None:
    assert rules.may_store(body, ["stop"], BOUNDS, is_our_bound=True) is may


def test_an_answer_that_was_cut_is_stored_where_the_client_chose_the_bound() -> None:
    assert [
        rules.may_store(b"{}", [reason], BOUNDS, is_our_bound=ours)
        for reason in ("length", "stop")
        for ours in (True, False)
    ] == [False, True, True, True]
