"""What holds for every translation."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import chat_answers
from core.chat_answers import HEAD, USAGE, answered, answers, calling, chunk, chunks, said
from tollgate.core import strict_json
from tollgate.core.dialects import (
    BY_ENDPOINT,
    Translated,
    Translation,
    chat,
    generate,
    in_event,
    messages,
    responses,
    written,
)
from tollgate.core.dialects.chat import Object
from tollgate.core.dialects.messages import tables as messages_tables
from tollgate.core.dialects.responses import tables as responses_tables
from tollgate.core.errors import BadRequest

NOW = 1_755_842_009
ASKED: dict[Translated, Object] = {
    "messages": {"model": "asked/model", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]},
    "responses": {"model": "asked/model", "input": "Hi"},
    "generate": {"model": "asked/model", "prompt": "Hi"},
}
EVERY = pytest.mark.parametrize("endpoint", BY_ENDPOINT)


def streamed(endpoint: Translated, stream: list[Object], **more: Any) -> list[Object]:
    events = BY_ENDPOINT[endpoint].Events(ASKED[endpoint] | more)
    return [event for one in stream for event in events.feed(one)] + events.finish(NOW)


def plain(endpoint: Translated, answer: Object, **more: Any) -> Object:
    return BY_ENDPOINT[endpoint].answer(ASKED[endpoint] | more, answer, NOW)


def assembled(endpoint: Translated, events: list[Object]) -> Object:
    """The answer that a stream amounts to."""
    if endpoint == "generate":
        return {**events[-1], "output": "".join(event["output"] for event in events)}
    return assembled_message(events) if endpoint == "messages" else dict(events[-1]["response"])


def assembled_message(events: list[Object]) -> Object:
    message: Object = {**events[0]["message"], "content": []}
    for event in events:
        if event["type"] == "content_block_start":
            message["content"].append({**event["content_block"], "parts": []})
        if event["type"] == "content_block_delta":
            block, delta = message["content"][event["index"]], event["delta"]
            name = {"thinking_delta": "thinking", "text_delta": "text", "signature_delta": "signature"}.get(
                delta["type"]
            )
            block |= {name: block[name] + delta[name]} if name else {}
            block["parts"] += [delta["partial_json"]] if delta["type"] == "input_json_delta" else []
        if event["type"] == "content_block_stop":
            block = message["content"][event["index"]]
            arguments = "".join(block.pop("parts"))
            block |= {"input": read_input(arguments)} if block["type"] == "tool_use" else {}
        if event["type"] == "message_delta":
            message |= {**event["delta"], "usage": event["usage"]}
    return message


def read_input(arguments: str) -> Object:
    found = chat.parsed(arguments)
    return {"INVALID_JSON": arguments} if found is None else found


@EVERY
@given(data=st.data())
def test_a_stream_amounts_to_the_plain_answer_however_it_is_cut(endpoint: Translated, data: st.DataObject) -> None:
    answer = data.draw(answers())
    events = streamed(endpoint, data.draw(chunks(answer)))
    assert assembled(endpoint, events) == plain(endpoint, answer)


@EVERY
@given(data=st.data())
def test_what_is_made_is_json_that_reads_as_it_was(endpoint: Translated, data: st.DataObject) -> None:
    for event in streamed(endpoint, data.draw(chunks(data.draw(answers())))):
        *name, line, blank, end = in_event(event).split(b"\n")
        assert name == ([b"event: " + event["type"].encode()] if "type" in event else [])
        assert (blank, end) == (b"", b"")
        assert json.loads(line.removeprefix(b"data: ")) == event


@given(usage=chat_answers.usages)
def test_the_buckets_of_a_usage_keep_their_sums(usage: Object) -> None:
    answer = answered(usage=usage)
    disjoint, nested = plain("messages", answer)["usage"], plain("responses", answer)["usage"]
    parts = [disjoint[name] for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")]
    assert min(parts) >= 0
    assert sum(parts) == nested["input_tokens"] == usage["prompt_tokens"]
    assert disjoint["output_tokens"] == nested["output_tokens"] == usage["completion_tokens"]
    assert nested["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    details = nested["input_tokens_details"]
    assert details["cached_tokens"] == disjoint["cache_read_input_tokens"]
    assert details["cache_write_tokens"] == disjoint["cache_creation_input_tokens"]
    assert disjoint.get("cost") == nested.get("cost") == usage.get("cost")


def test_a_usage_is_read_bucket_by_bucket() -> None:
    assert plain("messages", answered())["usage"] == {
        "input_tokens": 20,
        "cache_read_input_tokens": 64,
        "cache_creation_input_tokens": 16,
        "output_tokens": 40,
        "output_tokens_details": {"thinking_tokens": 25},
        "cost": 0.25,
    }
    assert plain("responses", answered())["usage"] == {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 16},
        "output_tokens": 40,
        "output_tokens_details": {"reasoning_tokens": 25},
        "total_tokens": 140,
        "cost": 0.25,
    }


@EVERY
@pytest.mark.parametrize("last", ["nothing", "error", "failed choice", "cut"])
def test_a_stream_that_breaks_off_ends_with_a_failure_and_nothing_after(endpoint: Translated, last: str) -> None:
    events = BY_ENDPOINT[endpoint].Events(ASKED[endpoint])
    seen = events.feed(chunk(content="Hel")) if last != "nothing" else []
    if last == "error":
        seen += events.feed({**HEAD, "error": {"message": "It broke.", "code": "overloaded"}, "choices": []})
    elif last == "cut":
        seen += events.fail({"message": "It was cut.", "code": "upstream_cut"})
    else:
        seen += events.feed(chunk("error")) if last == "failed choice" else []
        seen += events.finish(NOW)
    kinds = [event.get("type") for event in seen]
    assert ["error" in event for event in seen].count(True) == 1
    assert kinds[-1] == {"messages": "error", "responses": "response.failed", "generate": None}[endpoint]
    assert "message_delta" not in kinds
    assert "response.completed" not in kinds
    assert not any("finish_reason" in event for event in seen)
    assert [*events.feed(chunk(content="lo")), *events.finish(NOW), *events.fail({"message": "Again."})] == []


@EVERY
@pytest.mark.parametrize(
    "deltas",
    [
        [said(0, calling(0), "{}", first=True), said(0, calling(1), "{}", first=True)],
        [{"tool_calls": [{**calling(0, arguments="{}")}]}, {"tool_calls": [{**calling(1, arguments="{}")}]}],
        [
            said(0, calling(0), "{}", first=True),
            said(1, calling(1), "", first=True),
            said(0, calling(0), "{}", first=False),
        ],
        [
            said(0, calling(0), "", first=True),
            said(0, calling(0), "{}", first=True),
            said(1, calling(1), "{}", first=True),
        ],
    ],
    ids=["every call has the index 0", "no call has an index", "arguments are repeated", "ids and names are repeated"],
)
def test_servers_that_number_their_calls_badly_are_understood(endpoint: Translated, deltas: list[Object]) -> None:
    events = streamed(endpoint, [*(chunk(**delta) for delta in deltas), chunk("tool_calls")])
    whole = answered("tool_calls", None, tool_calls=[calling(0, arguments="{}"), calling(1, arguments="{}")])
    assert assembled(endpoint, events) == plain(endpoint, whole)


@EVERY
def test_reasoning_under_both_names_is_shown_once(endpoint: Translated) -> None:
    twice = streamed(endpoint, [chunk(reasoning="Hm", reasoning_content="Hm"), chunk("stop")])
    assert assembled(endpoint, twice) == plain(endpoint, answered(usage=None, reasoning="Hm"))


@EVERY
def test_lists_of_parts_are_read_as_what_they_say(endpoint: Translated) -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}
    listed = answered(content=[thought, {"type": "text", "text": "Yes"}])
    assert plain(endpoint, listed) == plain(endpoint, answered(reasoning="Hm", content="Yes"))


@EVERY
def test_chunks_before_the_first_choice_do_not_begin_an_answer(endpoint: Translated) -> None:
    preface = {"id": "", "model": "", "choices": [], "prompt_filter_results": []}
    stream = [preface, chunk(content="Hi"), chunk("stop")]
    assert assembled(endpoint, streamed(endpoint, stream)) == plain(endpoint, answered(usage=None, content="Hi"))


TABLES = {"messages": messages_tables.FIELDS, "responses": responses_tables.FIELDS, "generate": generate.FIELDS}
EXAMPLES: dict[Translated, dict[str, tuple[Any, Object]]] = {
    "messages": {
        "model": ("other", {"model": "other"}),
        "models": (["a", "b"], {"models": ["a", "b"]}),
        "provider": ({"order": ["x"]}, {"provider": {"order": ["x"]}}),
        "max_tokens": (7, {"max_tokens": 7}),
        "messages": ([{"role": "user", "content": "Yo"}], {"messages": [{"role": "user", "content": "Yo"}]}),
        "system": (
            "Be brief.",
            {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]},
        ),
        "stop_sequences": (["END"], {"stop": ["END"]}),
        "stream": (True, {"stream": True, "stream_options": {"include_usage": True}}),
        "temperature": (0.5, {"temperature": 0.5}),
        "top_p": (0.5, {"top_p": 0.5}),
        "top_k": (5, {"top_k": 5}),
        "metadata": ({"user_id": "u"}, {"user": "u"}),
        "thinking": ({"type": "disabled"}, {"reasoning_effort": "none"}),
        "output_config": ({"effort": "low"}, {"reasoning_effort": "low"}),
        "tools": (
            [{"name": "look", "description": "Looks.", "input_schema": {"type": "object"}, "strict": True}],
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {
                            "name": "look",
                            "description": "Looks.",
                            "parameters": {"type": "object"},
                            "strict": True,
                        },
                    }
                ]
            },
        ),
        "tool_choice": (
            {"type": "any", "disable_parallel_tool_use": True},
            {"tool_choice": "required", "parallel_tool_calls": False},
        ),
    },
    "responses": {
        "model": ("other", {"model": "other"}),
        "models": (["a", "b"], {"models": ["a", "b"]}),
        "provider": ({"order": ["x"]}, {"provider": {"order": ["x"]}}),
        "input": ("Yo", {"messages": [{"role": "user", "content": "Yo"}]}),
        "instructions": (
            "Be brief.",
            {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]},
        ),
        "max_output_tokens": (7, {"max_tokens": 7}),
        "stream": (True, {"stream": True, "stream_options": {"include_usage": True}}),
        "temperature": (0.5, {"temperature": 0.5}),
        "top_p": (0.5, {"top_p": 0.5}),
        "presence_penalty": (0.5, {"presence_penalty": 0.5}),
        "frequency_penalty": (0.5, {"frequency_penalty": 0.5}),
        "parallel_tool_calls": (False, {"parallel_tool_calls": False}),
        "service_tier": ("flex", {"service_tier": "flex"}),
        "user": ("u", {"user": "u"}),
        "reasoning": ({"effort": "low", "summary": "auto"}, {"reasoning_effort": "low"}),
        "text": (
            {"verbosity": "low", "format": {"type": "json_object"}},
            {"verbosity": "low", "response_format": {"type": "json_object"}},
        ),
        "tools": (
            [{"type": "function", "name": "look", "parameters": None, "strict": False}],
            {"tools": [{"type": "function", "function": {"name": "look", "strict": False}}]},
        ),
        "tool_choice": (
            {"type": "function", "name": "look"},
            {"tools": [], "tool_choice": {"type": "function", "function": {"name": "look"}}},
        ),
        "include": (["reasoning.encrypted_content"], {}),
    },
    "generate": {
        "prompt": ("Yo", {"messages": [{"role": "user", "content": "Yo"}]}),
        "model": ("other", {"model": "other"}),
        "max_new_tokens": (7, {"max_tokens": 7}),
        "temperature": (1, {"temperature": 1}),
        "top_p": (1, {"top_p": 1}),
        "top_k": (5, {"top_k": 5}),
        "stop": (["END"], {"stop": ["END"]}),
        "cache": (False, {}),
        "stream": (True, {"stream": True, "stream_options": {"include_usage": True}}),
    },
}


@EVERY
def test_every_member_is_treated_as_its_table_says(endpoint: Translated) -> None:
    to_chat, bare = BY_ENDPOINT[endpoint].to_chat, ASKED[endpoint]
    ways = TABLES[endpoint]
    assert EXAMPLES[endpoint].keys() == {name for name, treatment in ways.items() if treatment.way == "translated"}
    for name, (value, becomes) in EXAMPLES[endpoint].items():
        assert to_chat(bare | {name: value}) == to_chat(bare) | becomes, name
    for name, treatment in ways.items():
        assert name in bare or to_chat(bare | {name: None}) == to_chat(bare), name
        for value in ("other", *treatment.harmless) if treatment.way != "translated" else ():
            if treatment.way == "refused" and value == "other":
                with pytest.raises(BadRequest) as refused:
                    to_chat(bare | {name: value})
                assert refused.value.param == name
                assert treatment.how in refused.value.message
            else:
                assert to_chat(bare | {name: value}) == to_chat(bare), name


@EVERY
def test_a_member_without_a_treatment_is_refused(endpoint: Translated) -> None:
    with pytest.raises(BadRequest) as refused:
        BY_ENDPOINT[endpoint].to_chat(ASKED[endpoint] | {"surprise": 1})
    assert refused.value.param == "surprise"
    assert refused.value.code == "invalid_request"


WORDS = [
    "type",
    "role",
    "content",
    "text",
    "source",
    "input",
    "tools",
    "name",
    "tool_use",
    "tool_result",
    "image",
    "user",
]
WORDS += [
    "assistant",
    "function_call",
    "message",
    "reasoning",
    "summary",
    "format",
    "enabled",
    "tool",
    "function",
    "id",
]
leaves = st.none() | st.booleans() | st.integers(-1, 2) | st.sampled_from(WORDS)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)


@EVERY
@given(data=st.data())
def test_whatever_is_asked_is_translated_or_refused(endpoint: Translated, data: st.DataObject) -> None:
    translation: Translation = BY_ENDPOINT[endpoint]
    asked = ASKED[endpoint] | data.draw(st.dictionaries(st.sampled_from(list(TABLES[endpoint])), values, max_size=3))
    with contextlib.suppress(BadRequest):
        assert strict_json.from_client(written(translation.to_chat(asked))).get("model") == asked["model"]
        assert translation.answer(asked, answered(content="Hi"), NOW)


def test_errors_keep_our_code_in_the_shape_of_the_dialect() -> None:
    ours = {"message": "No.", "type": "invalid_request_error", "code": "insufficient_credits", "param": None}
    assert messages.error(ours, 402, "req_1") == {
        "type": "error",
        "error": ours | {"type": "billing_error"},
        "request_id": "req_1",
    }
    kinds = {400: "invalid_request_error", 422: "invalid_request_error", 429: "rate_limit_error", 500: "api_error"}
    assert {status: messages.error(ours, status)["error"]["type"] for status in kinds} == kinds
    assert responses.error(ours, 402, "req_1") == {"error": ours}


def test_a_stream_without_a_usage_of_its_own_has_none() -> None:
    assert plain("responses", answered(usage=None, content="Hi"))["usage"] is None
    assert USAGE["total_tokens"] == plain("responses", answered(content="Hi"))["usage"]["total_tokens"]
