"""What is kept of what was said: its beginning and no secret, whatever is sent, and never in anybody's way."""

import json
import secrets
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollgate.completions.content import MOST_EVENT_BYTES, MOST_KEPT, MOST_READ, OVERHANG, Content, asked
from tollgate.core import request_body, strict_json
from tollgate.core.endpoints import Endpoint
from tollgate.core.errors import BadRequest
from tollgate.core.redaction import Redactor
from tollgate.keys import rules

OWN_KEY = "chosen-by-its-owner-without-a-form"
FIELDS: dict[Endpoint, str] = {"chat": "messages", "completions": "prompt", "embeddings": "input"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.decimals(-9, 9, places=2).map(float) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "content",
                        "text",
                        "type",
                        "role",
                        "choices",
                        "index",
                        "delta",
                        "message",
                        "tool_calls",
                        "function",
                    ),
                    *("name", "images", "refusal"),
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=25,
)

redact = Redactor([])


def content(given: Any = "x", endpoint: Endpoint = "chat") -> Content:
    if endpoint == "chat" and isinstance(given, str):
        given = [{"role": "user", "content": given}]
    return content_of(json.dumps({"model": "m", FIELDS[endpoint]: given}).encode(), endpoint, OWN_KEY)


def content_of(body: bytes, endpoint: Endpoint, own_key: str) -> Content:
    document = request_body.parse(body)
    request_body.read_parsed(document, body, endpoint)
    return Content(asked(endpoint, document), redact, own_key)


def prompt(asked: Any, endpoint: Endpoint = "chat") -> str | None:
    return content(asked, endpoint).kept().get("prompt")


def answer(*choices: Any) -> str | None:
    made = content()
    made.take({"choices": list(choices)})
    return made.kept().get("answer")


def events(*said: str) -> bytes:
    chunks = [{"id": "gen-1", "choices": [{"index": 0, "delta": {"content": text}}]} for text in said]
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


def streamed(*pieces: bytes) -> str | None:
    made = content()
    for piece in pieces:
        made.feed(piece)
    return made.kept().get("answer")


def user(said: Any) -> dict[str, Any]:
    return {"role": "user", "content": said}


@pytest.mark.parametrize(
    ("asked", "endpoint", "kept"),
    [
        (
            [{"role": "system", "content": "Be kind"}, user("first"), user("last"), {"role": "assistant"}],
            "chat",
            "last",
        ),
        ([{"role": "system", "content": "Be kind"}], "chat", "Be kind"),
        ([user([{"type": "text", "text": "What is"}, {"type": "text", "text": "this?"}])], "chat", "What is\nthis?"),
        ([user([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}])], "chat", "[image_url]"),
        ([user([{"type": "input_audio", "input_audio": {"data": "AAAA"}}, "and"])], "chat", "[input_audio]\nand"),
        ([user(None)], "chat", None),
        ([user([1, {"type": 5}, {}])], "chat", "[3 tokens]"),
        ("one", "completions", "one"),
        (["one", "two"], "completions", "one\ntwo"),
        ([1, 2, 3], "completions", "[3 tokens]"),
        ([[1, 2], [3]], "embeddings", "[2 tokens]\n[1 tokens]"),
        ([{"content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}], "embeddings", "a\n[image_url]"),
    ],
)
def test_what_was_asked_last_is_kept_and_what_is_no_text_is_named(
    asked: Any, endpoint: Endpoint, kept: str | None
) -> None:
    assert prompt(asked, endpoint) == kept


@pytest.mark.parametrize(
    ("choices", "kept"),
    [
        ([{"index": 0, "message": {"content": "Yes"}}, {"index": 1, "message": {"content": "No"}}], "Yes"),
        ([{"text": "said", "index": 0}], "said"),
        ([{"message": {"content": None, "refusal": "I will not"}}], "I will not"),
        ([{"message": {"content": "a", "images": [{"type": "image_url", "image_url": {}}]}}], "a[image_url]"),
        ([{"message": {"tool_calls": [{"function": {"name": "look", "arguments": "{1}"}}]}}], "[calls look]"),
        ([{"message": {"content": "", "reasoning": "hm"}}], None),
        ([], None),
    ],
)
def test_the_first_answer_is_kept(choices: list[Any], kept: str | None) -> None:
    assert answer(*choices) == kept


@given(st.lists(st.text(max_size=20), max_size=20), st.data())
@settings(max_examples=60)
def test_a_stream_says_the_same_wherever_it_is_cut(said: list[str], data: st.DataObject) -> None:
    whole = events(*said)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert streamed(*pieces) == answer({"message": {"content": "".join(said)}})


def test_a_stream_that_broke_off_keeps_what_was_said() -> None:
    assert streamed(events("so ", "far", "and")[:-40]) == "so far"
    assert streamed(b": ping\n\n", b"data: {broken\n\n", events("on")) == "on"


def test_a_long_stream_is_read_to_where_enough_is_there() -> None:
    made = content()
    for _ in range(10_000):
        made.feed(events("word " * 10))
    assert len(made.kept()["answer"]) == MOST_KEPT + 1
    assert len(made._answer) < 2 * MOST_READ
    assert made._events is None


def test_an_event_that_does_not_end_is_let_go() -> None:
    made = content()
    made.feed(events("before"))
    for _ in range(3):
        made.feed(b"data: " + b"x" * MOST_EVENT_BYTES)
    assert made._events is None
    made.feed(events("after"))
    assert made.kept()["answer"] == "before"


def test_long_texts_are_cut_and_say_so() -> None:
    text = "0123456789 " * 1000
    assert prompt(text) == text[:MOST_KEPT] + "…"
    assert prompt(["a" * 900] * 900, "embeddings") == "\n".join(["a" * 900] * 3)[:MOST_KEPT] + "…"
    exact = "word " * (MOST_KEPT // 5)
    assert prompt(exact) == exact


@given(st.integers(-700, 50), st.sampled_from(["", " ", "=", "\n"]), st.binary(min_size=32, max_size=32))
@settings(max_examples=80)
def test_no_secret_survives_where_a_text_is_cut(place: int, glue: str, chance: bytes) -> None:
    key = rules.mint("live", chance)
    for cut in (MOST_KEPT, MOST_READ):
        start = cut + place
        kept = prompt(("word " * 600)[:start] + glue + key + " word" * 600)
        assert kept
        assert key[:16] not in kept
        assert "tg_live_" not in kept


def test_no_secret_survives_behind_others_that_were_hidden() -> None:
    """What is hidden is shorter than what it was, so what is behind moves up."""
    keys = [rules.mint("live", secrets.token_bytes(32)) for _ in range(200)]
    for length in range(300):
        kept = prompt("." * length + " ".join(keys))
        assert kept
        assert not any(key[:12] in kept for key in keys)
        assert "tg_" not in kept


def test_the_overhang_is_longer_than_a_key_may_be() -> None:
    assert OVERHANG >= rules.LONGEST
    own = "k-" * 256
    made = Content("a" * (MOST_KEPT - 1) + own + "b" * 999, redact, own)
    assert "k-" not in made.kept()["prompt"]


def test_the_callers_own_key_is_hidden_though_it_has_no_form() -> None:
    made = content(f"my key is {OWN_KEY}")
    made.take({"choices": [{"message": {"content": f"so it is {OWN_KEY}"}}]})
    assert made.kept() == {"prompt": "my key is [hidden: known]", "answer": "so it is [hidden: known]"}


def test_a_key_that_comes_in_pieces_is_hidden() -> None:
    key = rules.mint("test", b"\x07" * 32)
    assert streamed(events(*key)) == "[hidden: api_key]"


def test_what_postgres_cannot_keep_is_replaced() -> None:
    assert prompt("a\x00b\x1b[31m\n\tc") == "a\ufffdb\ufffd[31m\n\tc"
    assert streamed(rb'data: {"choices":[{"delta":{"content":"\ud83d"}}]}' + b"\n\n") == "\ufffd"


def test_what_stands_for_a_prompt_is_kept_if_it_is_text() -> None:
    assert content_of(b'{"model": "m", "prompt_embeds": "QUJD"}', "completions", OWN_KEY).kept() == {}
    said = b'{"model": "m", "messages": [{"role": "user", "content": "Hello"}]}'
    assert content_of(said, "embeddings", OWN_KEY).kept() == {"prompt": "Hello"}


@given(JSON)
@settings(max_examples=150)
def test_no_reply_is_in_the_way(reply: Any) -> None:
    made = content()
    made.take({"choices": reply})
    made.take(strict_json.from_upstream(json.dumps({"choices": [{"delta": reply}, reply]}).encode()))
    made.feed(b"data: " + json.dumps({"choices": [reply]}).encode() + b"\n\n")
    for text in made.kept().values():
        assert text
        text.encode()


@given(JSON, st.sampled_from([*FIELDS]))
@settings(max_examples=150)
def test_no_prompt_that_is_admitted_is_in_the_way(asked: Any, endpoint: Endpoint) -> None:
    for given_ in (asked, [asked], [{"role": "user", "content": asked}]):
        body = json.dumps({"model": "m", FIELDS[endpoint]: given_}).encode()
        try:
            made = content_of(body, endpoint, OWN_KEY)
        except BadRequest:
            continue
        for text in made.kept().values():
            text.encode()
