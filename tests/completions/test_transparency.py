"""What goes through Tollgate goes through as it is: the same request gives, byte for byte, what the upstream gives.

Two sandboxes are asked, one directly and one through Tollgate. They have the same clock, which stands still, and the
same chance, so that their ids and times agree. These are the differences there may be:

| what                                            | is                                                               |
|-------------------------------------------------|------------------------------------------------------------------|
| what cannot be read, priced or forwarded        | refused by us, and the upstream hears nothing of it              |
| a model that the catalogue does not know, or    | 404 model_not_found, of ours                                     |
| not any more: its expiration date is past       |                                                                  |
| the upstream's 401 and 402: our key, our credit | 502 upstream_unavailable                                         |
| no answer: a page, half of JSON, NaN, nothing,  | 502 upstream_garbled                                             |
| a redirect, what is packed                      |                                                                  |
| a plain answer that breaks off                  | 502 upstream_cut                                                 |
| a stream that breaks off                        | what came of it, then an error event, and no [DONE]              |
| a stream that is complete but for its [DONE]    | gets one                                                         |
| where the markup is not 0: the cost in a usage  | the charge, and no cost_details                                  |
| a stream of messages that is complete but for   | gets one                                                         |
| its message_stop                                |                                                                  |
| errors of messages                              | have our code, and our id of the request                         |
| headers                                         | content-type, retry-after and x-generation-id come through, and  |
|                                                 | no other                                                         |
"""

import json
import math
import re
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from completions.asks import (
    CHAT,
    CHATS,
    MADE,
    MESSAGES,
    OTHERS,
    REFUSED,
    RESPONSES,
    SAYING,
    SPEECH,
    SPOKEN,
    TYPED,
    WORDS,
    WRITTEN,
    asking,
)
from completions.twins import UPSTREAM_KEY, Twins, twins
from sandbox.serving import a_chat, chunks
from tollgate.core.errors import anthropic_type
from tollgate.core.money import NANOS_PER_CREDIT, credits_number

STATUSES = (400, 403, 404, 408, 413, 422, 500, 502, 504, 524, 529)
FAULTS = [
    *(f"status={status}" for status in STATUSES),
    "split-utf8",
    "crlf",
    "comments",
    "no-usage",
    "null-usage",
    "zero-usage",
    "negative-cost",
    "string-tokens",
    "absurd-usage",
    "cost-differs",
    "byok",
    "blank",
    "mid-stream-error",
    "finish-error",
    "vllm-error",
    "gigantic=1",
    "many=2000",
    "wrong-model",
    "no-id",
    "no-generation",
    "late-generation",
    "moderation",
    "status=429,retry-after=30",
    "status=503,retry-after=30",
    "retry-after-date=30,status=429",
]
MEETINGS = [
    (fault, path, stream)
    for fault in FAULTS
    for path in SAYING
    for stream in (False, True)
    if path == CHAT or "status=" not in fault or (path == MESSAGES and not stream)
]
"""A status is met before the form of an answer matters, and told in a form of its own by messages alone."""
ODD_STREAMS = ("nan-cost", "bad-json")
OURS = {
    "status=401": (502, "upstream_unavailable"),
    "status=402": (502, "upstream_unavailable"),
    "garbage": (502, "upstream_garbled"),
    "empty": (502, "upstream_garbled"),
    "redirect": (502, "upstream_garbled"),
    "gzip-bomb=1": (502, "upstream_garbled"),
}
OURS_IF_PLAIN = {
    "nan-cost": (502, "upstream_garbled"),
    "bad-json": (502, "upstream_garbled"),
    "cut": (502, "upstream_cut"),
}
BROKEN_STREAMS = ("cut", "cut=0", "early-eof", "early-eof=0")
WITH_A_USAGE = (
    "plain", "n", "max_tokens", "nulls", "tools", "json_schema", "usage wanted", "usage not wanted", "reasoning",
    "plugins", "image", "fallbacks", "free", "of tomorrow", "bad stop",
)  # fmt: skip
"""Chats whose answers state their usage in different ways."""
COST = re.compile(rb'"cost":([^,}]+)(.*?),"cost_details":{[^}]*}')
ALL = [*FAULTS, *ODD_STREAMS, "set-cookie", *OURS, *OURS_IF_PLAIN, *BROKEN_STREAMS, "no-done"]


@pytest.fixture(scope="module")
async def both(shared_database: str) -> AsyncIterator[Twins]:
    async with twins(shared_database, ALL) as made:
        yield made


@pytest.fixture(scope="module")
async def with_markup(shared_database: str) -> AsyncIterator[Twins]:
    async with twins(shared_database, ALL, MARKUP="0.1") as made:
        yield made


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("changed", CHATS.values(), ids=CHATS)
async def test_a_chat_is_as_if_asked_directly(both: Twins, changed: dict[str, Any], stream: bool) -> None:
    body = json.dumps({**a_chat(WORDS), "stream": stream, **changed}, ensure_ascii=False).encode()
    direct, through = await both.asked(CHAT, body)
    assert direct == through
    assert [heard.body for heard in both.heard] == [body]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("changed", [CHATS[name] for name in WITH_A_USAGE], ids=WITH_A_USAGE)
async def test_with_a_markup_a_chat_differs_in_its_cost_alone(
    with_markup: Twins, changed: dict[str, Any], stream: bool
) -> None:
    body = json.dumps({**a_chat(WORDS), "stream": stream, **changed}, ensure_ascii=False).encode()
    direct, through = await with_markup.asked(CHAT, body)
    assert through.body == COST.sub(_charge_for, direct.body)
    assert through.headers == direct.headers


@pytest.mark.parametrize("fault", ["byok", "crlf", "comments", "cost-differs", "negative-cost", "mid-stream-error"])
async def test_with_a_markup_no_fault_shows_our_cost(with_markup: Twins, fault: str) -> None:
    direct, through = await with_markup.asked(CHAT, failing(fault, True))
    found = COST.search(direct.body)
    assert found is None or (found[0] not in through.body and b"cost_details" not in through.body)


@pytest.mark.parametrize(("path", "asked"), [*OTHERS.values(), *MADE.values()], ids=[*OTHERS, *MADE])
async def test_a_text_an_embedding_or_what_is_made_is_as_if_asked_directly(
    both: Twins, path: str, asked: dict[str, Any]
) -> None:
    body = json.dumps(asked).encode()
    direct, through = await both.asked(path, body)
    assert direct == through
    assert [heard.body for heard in both.heard] == [body]


@pytest.mark.parametrize("fault", ["", "slow=0.001", "cut=5", "moderation", "no-id"])
async def test_speech_is_as_if_asked_directly_also_where_it_breaks_off(both: Twins, fault: str) -> None:
    body = json.dumps({**SPOKEN, "response_format": "wav"}).encode()
    direct, through = await both.asked(SPEECH, body, **{"x-sandbox-fault": fault})
    assert direct == through
    assert direct.broke_off == (fault == "cut=5")
    assert [heard.body for heard in both.heard] == [body]


@pytest.mark.parametrize(("path", "asked"), MADE.values(), ids=MADE)
async def test_with_a_markup_what_is_made_differs_in_its_cost_alone(
    with_markup: Twins, path: str, asked: dict[str, Any]
) -> None:
    direct, through = await with_markup.asked(path, json.dumps(asked).encode())
    assert COST.search(direct.body)
    assert through.body == COST.sub(_charge_for, direct.body)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(("path", "asked"), TYPED.values(), ids=TYPED)
async def test_a_response_or_message_is_as_if_asked_directly(
    both: Twins, path: str, asked: dict[str, Any], stream: bool
) -> None:
    body = json.dumps({"model": "sandbox/echo", "stream": stream, **asked}, ensure_ascii=False).encode()
    direct, through = await both.asked(path, body)
    assert direct == through
    assert [heard.body for heard in both.heard] == [body]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(("path", "asked"), TYPED.values(), ids=TYPED)
async def test_with_a_markup_a_response_or_message_differs_in_its_cost_alone(
    with_markup: Twins, path: str, asked: dict[str, Any], stream: bool
) -> None:
    body = json.dumps({"model": "sandbox/echo", "stream": stream, **asked}, ensure_ascii=False).encode()
    direct, through = await with_markup.asked(path, body)
    assert through.body == COST.sub(_charge_for, direct.body)
    assert through.headers == direct.headers


@pytest.mark.parametrize("body", WRITTEN.values(), ids=WRITTEN)
async def test_a_body_goes_up_as_it_is_written(both: Twins, body: bytes) -> None:
    direct, through = await both.asked(CHAT, body)
    assert direct.status == 200
    assert direct == through
    assert [heard.body for heard in both.heard] == [body]


@pytest.mark.parametrize(("fault", "path", "stream"), MEETINGS)
async def test_what_goes_wrong_upstream_is_told_in_its_own_words(
    both: Twins, fault: str, path: str, stream: bool
) -> None:
    direct, through = await both.asked(path, failing(fault, stream, path))
    if path == MESSAGES and direct.status != 200:
        error = json.loads(through.body)["error"]
        assert (through.status, through.headers) == (direct.status, direct.headers)
        assert error["message"] == json.loads(direct.body)["error"]["message"]
        assert error["type"] == anthropic_type(direct.status)
        assert error["code"]
    else:
        assert direct == through


@pytest.mark.parametrize("path", SAYING)
@pytest.mark.parametrize("fault", ODD_STREAMS)
async def test_what_is_odd_in_a_stream_comes_through(both: Twins, fault: str, path: str) -> None:
    direct, through = await both.asked(path, failing(fault, True, path))
    assert direct == through


@pytest.mark.parametrize("path", SAYING)
@pytest.mark.parametrize(
    ("fault", "stream", "status", "code"),
    [(fault, stream, *ours) for fault, ours in OURS.items() for stream in (False, True)]
    + [(fault, False, *ours) for fault, ours in OURS_IF_PLAIN.items()],
)
async def test_what_is_no_answer_is_an_error_of_ours(
    both: Twins, fault: str, path: str, stream: bool, status: int, code: str
) -> None:
    direct, through = await both.asked(path, failing(fault, stream, path))
    assert (through.status, through.code) == (status, code)
    assert set(through.headers) == {"content-type"}
    assert direct.body not in through.body or not direct.body


@pytest.mark.parametrize("fault", BROKEN_STREAMS)
async def test_a_stream_that_breaks_off_ends_with_an_error_event(both: Twins, fault: str) -> None:
    direct, through = await both.asked(CHAT, failing(fault, True))
    assert through.body.startswith(direct.body)
    (event,) = chunks(through.body.removeprefix(direct.body).decode())
    assert event["error"]["metadata"]["error_type"] == "upstream_cut"
    assert event["id"] == event["error"]["metadata"]["generation_id"] == direct.headers["x-generation-id"]
    assert through.headers == direct.headers
    assert not through.broke_off


@pytest.mark.parametrize("path", [RESPONSES, MESSAGES])
@pytest.mark.parametrize("fault", BROKEN_STREAMS)
async def test_typed_events_that_break_off_end_with_an_error_event(both: Twins, fault: str, path: str) -> None:
    direct, through = await both.asked(path, failing(fault, True, path))
    assert through.body.startswith(direct.body)
    (event,) = chunks(through.body.removeprefix(direct.body).decode())
    error = event["error"]
    assert event["type"] == "error"
    assert error["message"]
    if path == MESSAGES:
        assert (error["type"], error["code"]) == ("api_error", "upstream_cut")
        assert event["request_id"].startswith("req_")
    else:
        assert (event["code"], error["metadata"]["error_type"]) == ("upstream_cut", "upstream_cut")
        assert event["sequence_number"] == len(chunks(direct.body.decode()))
    assert not through.broke_off


@pytest.mark.parametrize(
    ("path", "end"),
    [
        (CHAT, b"data: [DONE]\n\n"),
        (RESPONSES, b""),
        (MESSAGES, b'event: message_stop\ndata: {"type":"message_stop"}\n\n'),
    ],
)
async def test_a_stream_without_its_end_gets_one(both: Twins, path: str, end: bytes) -> None:
    direct, through = await both.asked(path, failing("no-done", True, path))
    assert through.body == direct.body + end
    assert through.headers == direct.headers


async def test_blanks_before_a_plain_answer_stay(both: Twins) -> None:
    direct, through = await both.asked(CHAT, failing("comments", False))
    assert direct.body.startswith(b" ")
    assert direct == through


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_an_answer_keeps_its_headers_but_no_cookie(both: Twins, stream: bool) -> None:
    direct, through = await both.asked(CHAT, failing("set-cookie", stream))
    assert direct.body == through.body
    assert direct.headers.pop("set-cookie")
    assert direct.headers == through.headers


@pytest.mark.parametrize(("body", "status", "code"), REFUSED.values(), ids=REFUSED)
async def test_what_we_refuse_the_upstream_never_hears_of(both: Twins, body: bytes, status: int, code: str) -> None:
    _, through = await both.asked(CHAT, body)
    assert (through.status, through.code) == (status, code)
    assert both.heard == []


async def test_only_the_headers_that_are_meant_for_it_reach_the_upstream(both: Twins) -> None:
    meant = {
        "http-referer": "https://example.com/app",
        "x-title": "An app",
        "x-openrouter-title": "An app",
        "x-openrouter-categories": "chat",
        "x-openrouter-metadata": "enabled",
        "x-session-id": "s-1",
        "x-sandbox-fault": "slow=0",
    }
    kept = {
        "cookie": "session=1",
        "x-api-key": "sk-mine",
        "proxy-authorization": "Basic x",
        "connection": "keep-alive, x-hop",
        "x-hop": "1",
        "te": "trailers",
        "keep-alive": "timeout=5",
        "x-forwarded-for": "192.0.2.7",
        "forwarded": "for=192.0.2.7",
        "x-openrouter-cache": "true",
        "x-request-id": "of-the-client",
        "idempotency-key": "once",
        "openai-organization": "org-1",
        "user-agent": "client/1.0",
        "accept-encoding": "gzip",
        "accept-language": "de",
        "origin": "https://example.com",
    }
    await both.asked(CHAT, json.dumps(a_chat()).encode(), **meant, **kept)
    (heard,) = both.heard
    ours = {"host", "accept", "accept-encoding", "content-type", "content-length", "user-agent", "authorization"}
    assert set(heard.headers) == ours | set(meant)
    assert {name: heard.headers[name] for name in meant} == meant
    assert heard.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert heard.headers["accept-encoding"] == "identity"
    assert heard.headers["user-agent"].startswith("tollgate")
    assert heard.path == "/api/v1/chat/completions"


def _charge_for(cost: re.Match[bytes]) -> bytes:
    nanos = Decimal(cost[1].decode()) * NANOS_PER_CREDIT * Decimal("1.1")
    return b'"cost":' + credits_number(math.ceil(nanos)).encode() + cost[2]


def failing(fault: str, stream: bool, path: str = CHAT) -> bytes:
    return json.dumps(asking(path, model=f"sandbox/fault-{fault}", stream=stream)).encode()
