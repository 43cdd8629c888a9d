"""Responses as chat completions, judged by OpenAI's own client and by the Open Responses specification."""

from collections.abc import AsyncIterator
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from core import open_responses
from core.chat_answers import TWO_CALLS, TWO_CALLS_CUT, answered, answers, calling, chunk, chunks, said
from core.test_dialects import ASKED, NOW, plain, streamed
from tollgate.core.dialects import in_event, responses, written
from tollgate.core.dialects.chat import Object
from tollgate.core.dialects.responses import tables
from tollgate.core.errors import BadRequest
from upstreams.scripted import Scripted, answer
from upstreams.scripted import streamed as events_of

CALL = {"type": "function_call", "call_id": "call_0", "name": "look", "arguments": '{"at":"sky"}'}
OUTPUT = {"type": "function_call_output", "call_id": "call_0", "output": "Blue."}
LOOK = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": True}
LISTEN = {"type": "function", "name": "listen", "description": "Listens.", "parameters": None, "strict": None}


SAID = answered("tool_calls", reasoning="Hm", content="I look.", tool_calls=TWO_CALLS)
CHUNKS = [*TWO_CALLS_CUT, chunk("tool_calls") | {"usage": SAID["usage"]}]


def sent(*items: Object) -> list[Object]:
    chat: list[Object] = responses.to_chat(ASKED["responses"] | {"input": list(items)})["messages"]
    return chat


def text(words: str) -> Object:
    return {"type": "text", "text": words}


@pytest.mark.parametrize(
    ("item", "becomes"),
    [
        ({"role": "user", "content": "Hi"}, {"role": "user", "content": "Hi"}),
        ({"type": "message", "role": "developer", "content": "Be brief."}, {"role": "system", "content": "Be brief."}),
        (
            {"role": "user", "content": [{"type": "input_text", "text": "A"}, {"type": "input_text", "text": "B"}]},
            {"role": "user", "content": [text("A"), text("B")]},
        ),
        (
            {
                "role": "user",
                "content": [{"type": "input_image", "image_url": "https://a.test/b", "detail": "low"}],
            },
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "https://a.test/b", "detail": "low"}}],
            },
        ),
        (
            {"role": "user", "content": [{"type": "input_file", "filename": "a.pdf", "file_data": "data:x"}]},
            {"role": "user", "content": [{"type": "file", "file": {"filename": "a.pdf", "file_data": "data:x"}}]},
        ),
        (
            {
                "role": "assistant",
                "content": [{"type": "output_text", "text": "Yes", "annotations": []}],
                "id": "msg_1",
            },
            {"role": "assistant", "content": "Yes"},
        ),
        (
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}], "status": "completed"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        ),
        (CALL | {"id": "fc_1"}, {"role": "assistant", "content": None, "tool_calls": [calling(0)]}),
        (OUTPUT, {"role": "tool", "tool_call_id": "call_0", "content": "Blue."}),
        (
            OUTPUT | {"output": [{"type": "input_text", "text": "Blue."}]},
            {"role": "tool", "tool_call_id": "call_0", "content": "Blue."},
        ),
    ],
)
def test_items_become_messages(item: Object, becomes: Object) -> None:
    assert sent(item) == [becomes]


def test_calls_that_were_made_together_stay_together() -> None:
    spoken = {"role": "assistant", "content": "I look."}
    again, after = CALL | {"call_id": "call_1"}, OUTPUT | {"call_id": "call_1"}
    together = sent(spoken, CALL, again, OUTPUT, after)
    assert together[0] == spoken | {"tool_calls": [calling(0), calling(1)]}
    assert [message["role"] for message in together] == ["assistant", "tool", "tool"]
    in_turn = sent(spoken, CALL, OUTPUT, again, after)
    assert [message["role"] for message in in_turn] == ["assistant", "tool", "assistant", "tool"]


def test_instructions_and_system_messages_become_one_message() -> None:
    asked = {"instructions": "Be brief.", "input": [{"role": "system", "content": "Be kind."}]}
    assert responses.to_chat(ASKED["responses"] | asked)["messages"] == [
        {"role": "system", "content": [text("Be brief."), text("Be kind.")]}
    ]


@pytest.mark.parametrize("source", ["reasoning", "reasoning_content"])
def test_an_answer_that_is_sent_back_is_what_the_server_said(source: str) -> None:
    said = {source: "Hm", "content": "I look.", "tool_calls": [calling(0)]}
    included = plain("responses", answered("tool_calls", **said), include=["reasoning.encrypted_content"])
    assert sent(*included["output"], OUTPUT)[0] == {"role": "assistant", **said}
    without = plain("responses", answered("tool_calls", **said))
    assert sent(*without["output"], OUTPUT)[0] == {
        "role": "assistant",
        "content": said["content"],
        "tool_calls": [calling(0)],
    }


@pytest.mark.parametrize(
    ("asked", "becomes"),
    [
        ({"tool_choice": "required"}, {"tool_choice": "required"}),
        (
            {
                "tools": [LOOK, LISTEN],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "required",
                    "tools": [{"type": "function", "name": "look"}],
                },
            },
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {"name": "look", "parameters": {"type": "object"}, "strict": True},
                    }
                ],
                "tool_choice": "required",
            },
        ),
        ({"tools": [LOOK], "tool_choice": {"type": "allowed_tools", "tools": []}}, {}),
        ({"text": {"format": {"type": "text"}}}, {}),
        (
            {
                "text": {
                    "format": {"type": "json_schema", "name": "place", "schema": {"type": "object"}, "strict": True}
                }
            },
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "place", "strict": True, "schema": {"type": "object"}},
                }
            },
        ),
    ],
)
def test_choices_keep_their_meaning(asked: Object, becomes: Object) -> None:
    bare = ASKED["responses"]
    assert responses.to_chat(bare | asked) == responses.to_chat(bare) | becomes


@pytest.mark.parametrize(
    ("param", "asked"),
    [
        ("input", {"input": []}),
        ("input.0.type", {"input": [{"type": "item_reference", "id": "msg_1"}]}),
        ("input.0.type", {"input": [{"content": "Hi"}]}),
        ("input.0.role", {"input": [{"role": "critic", "content": "Hi"}]}),
        ("input.0.content", {"input": [{"role": "user", "content": 1}]}),
        ("input.0.content.0.type", {"input": [{"role": "user", "content": [{"type": "input_video"}]}]}),
        ("input.0.content.0.type", {"input": [{"role": "user", "content": [{"type": "refusal", "refusal": "No."}]}]}),
        (
            "input.0.content.0.file_id",
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
        ),
        ("input.0.arguments", {"input": [CALL | {"arguments": {"at": "sky"}}]}),
        ("input.0.caller", {"input": [CALL | {"caller": {"type": "program", "caller_id": "x"}}]}),
        ("tools.0.type", {"tools": [{"type": "web_search"}]}),
        ("tools.1.defer_loading", {"tools": [LOOK, LISTEN | {"defer_loading": True}]}),
        ("tool_choice.type", {"tool_choice": {"type": "mcp"}}),
        ("text.format.type", {"text": {"format": {"type": "grammar"}}}),
        ("include", {"include": ["message.output_text.logprobs"]}),
        ("reasoning.mode", {"reasoning": {"mode": "pro"}}),
        ("max_output_tokens", {"max_output_tokens": 0}),
    ],
)
def test_what_would_change_its_meaning_is_refused_where_it_stands(param: str, asked: Object) -> None:
    with pytest.raises(BadRequest) as refused:
        responses.to_chat(ASKED["responses"] | asked)
    assert refused.value.param == param
    assert refused.value.message.startswith(f"{param}: ")


@pytest.mark.parametrize(
    ("finish_reason", "status", "details", "item_status"),
    [
        ("stop", "completed", None, "completed"),
        ("tool_calls", "completed", None, "completed"),
        ("length", "incomplete", {"reason": "max_output_tokens"}, "incomplete"),
        ("content_filter", "incomplete", {"reason": "content_filter"}, "incomplete"),
    ],
)
def test_the_status_says_how_it_ended(finish_reason: str, status: str, details: Object, item_status: str) -> None:
    response = plain("responses", answered(finish_reason, reasoning="Hm", content="Hi"))
    assert (response["status"], response["incomplete_details"]) == (status, details)
    assert response["completed_at"] == (NOW if status == "completed" else None)
    assert [item["status"] for item in response["output"]] == ["completed", item_status]


def test_an_answer_repeats_what_was_asked() -> None:
    schema = {"type": "json_schema", "name": "place", "schema": {"type": "object"}}
    asked: Object = {
        "instructions": "Be brief.",
        "metadata": {"a": "b"},
        "temperature": 0.5,
        "max_output_tokens": 9,
        "reasoning": {"effort": "low"},
        "text": {"format": schema, "verbosity": "low"},
        "tools": [LOOK, LISTEN],
        "tool_choice": {"type": "function", "name": "look"},
    }
    response = plain("responses", answered(content="Hi"), **asked)
    shown = {name: response[name] for name in asked}
    assert shown == asked | {
        "reasoning": {"effort": "low", "summary": None},
        "text": {"format": schema | {"description": None, "strict": False}, "verbosity": "low"},
        "tools": [LOOK | {"description": None}, LISTEN],
    }


@given(data=st.data())
def test_every_stream_is_as_the_specification_says(data: st.DataObject) -> None:
    open_responses.is_stream(streamed("responses", data.draw(chunks(data.draw(answers())))))


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"tools": [LOOK, {"type": "function", "name": "listen"}], "parallel_tool_calls": False, "max_tool_calls": 3},
        {"tools": [LOOK], "tool_choice": "required"},
        {"tools": [LOOK], "tool_choice": {"type": "function", "name": "look"}},
        {"tools": [LOOK], "tool_choice": {"type": "allowed_tools", "tools": [{"type": "function", "name": "look"}]}},
        {"text": {"format": {"type": "json_object"}, "verbosity": "low"}},
        {"text": {"format": {"type": "json_schema", "name": "place", "schema": {"type": "object"}}}},
        {"reasoning": {"effort": "high"}, "max_output_tokens": 9, "temperature": 0, "top_p": 0.5},
        {"instructions": "Be brief.", "metadata": {"a": "b"}, "user": "u", "safety_identifier": "s"},
        {"truncation": "auto", "prompt_cache_key": "k", "store": False, "background": False, "service_tier": "flex"},
    ],
)
def test_an_answer_has_all_that_the_specification_requires_whatever_was_asked(asked: Object) -> None:
    open_responses.is_response(plain("responses", SAID, **asked))
    open_responses.is_stream(streamed("responses", CHUNKS, **asked))


def test_all_that_is_required_is_checked() -> None:
    """A member less, or of another type, is noticed in each event."""
    events = {event["type"]: event for event in streamed("responses", [chunk(refusal="No"), *CHUNKS])}
    failed = responses.Events(ASKED["responses"]).fail({"message": "It was cut."})
    cut = streamed("responses", [chunk("length", content="Hel")])
    events |= {event["type"]: event for event in (*failed, *cut)}
    assert events.keys() == open_responses.EVENTS.keys()
    for event in events.values():
        for name in ("sequence_number", *open_responses.EVENTS[event["type"]]):
            for broken in ({one: event[one] for one in event if one != name}, event | {name: ()}):
                with pytest.raises(ValidationError):
                    open_responses.is_event(broken)


def test_a_stream_that_fails_shows_what_had_come() -> None:
    events = responses.Events(ASKED["responses"])
    begun = [*events.feed(chunk(reasoning="Hm")), *events.feed(chunk(content="Hel"))]
    error, failed = events.fail({"message": "It was cut.", "type": "upstream_error", "code": "upstream_cut"})
    open_responses.is_stream([*begun, error, failed])
    assert error["error"]["code"] == error["code"] == "upstream_cut"
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {"code": "server_error", "message": "It was cut."}
    assert [item["status"] for item in failed["response"]["output"]] == ["completed", "incomplete"]


@pytest.fixture(scope="module")
def openai() -> Any:
    """Imported where it is used: in processes that test something else it would cost a second."""
    import openai  # noqa: PLC0415

    return openai


@pytest.fixture(scope="module")
def clients_types(openai: Any) -> list[tuple[TypeAdapter[Any], TypeAdapter[Any]]]:
    """Of an answer and of an event, at OpenAI and at OpenRouter. They take seconds to make."""
    from openrouter import components  # noqa: PLC0415

    types = openai.types.responses
    return [
        (TypeAdapter(types.Response), TypeAdapter(types.ResponseStreamEvent)),
        (TypeAdapter(components.OpenResponsesResult), TypeAdapter(components.StreamEvents)),
    ]


@given(data=st.data())
def test_every_event_and_answer_is_one_of_openais_and_openrouters(clients_types: Any, data: st.DataObject) -> None:
    answer = data.draw(answers())
    events = streamed("responses", data.draw(chunks(answer)))
    for of_answer, of_event in clients_types:
        of_answer.validate_python(plain("responses", answer))
        for event in events:
            assert not type(of_event.validate_python(event)).__name__.startswith("Unknown"), event["type"]


CUTS: dict[str, list[Object]] = {
    "before anything": [],
    "within a thought": [chunk(reasoning="Hm")],
    "within a text": [chunk(reasoning="Hm"), chunk(content="Hel")],
    "within a refusal": [chunk(refusal="No")],
    "within a call": [chunk(content="I look."), chunk(**said(0, calling(0), '{"at"', first=True))],
    "between two calls": [chunk(**said(number, calling(number), "{}", first=True)) for number in range(2)],
}
FAILURES: dict[str, Object] = {
    "ours": {"message": "It was cut.", "type": "upstream_error", "code": "upstream_cut", "param": None},
    "a limit": {"message": "Too many.", "type": "rate_limit_error", "code": "rate_limit_exceeded"},
    "the server's": {"message": "Out of memory", "code": 500},
    "nothing known": {},
}


@pytest.mark.parametrize(("cut", "failure"), list(product(CUTS, FAILURES)))
def test_a_stream_fails_in_events_of_openais_and_openrouters(clients_types: Any, cut: str, failure: str) -> None:
    """What had come stays, and the last two events tell of the failure."""
    translator = responses.Events(ASKED["responses"])
    events = [event for one in CUTS[cut] for event in translator.feed(one)] + translator.fail(FAILURES[failure])
    open_responses.is_stream(events)
    assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
    opened = [event["item"]["id"] for event in events if event["type"] == "response.output_item.added"]
    assert [item["id"] for item in events[-1]["response"]["output"]] == opened
    for _, of_event in clients_types:
        for event in events:
            assert not type(of_event.validate_python(event)).__name__.startswith("Unknown"), event["type"]


def test_the_tables_know_every_member_that_openais_client_can_send(openai: Any) -> None:
    types = openai.types.responses
    known = {
        types.response_create_params.ResponseCreateParamsBase: tables.FIELDS,
        openai.types.shared_params.Reasoning: tables.REASONING,
        types.ResponseTextConfigParam: tables.TEXT,
        types.ResponseFormatTextJSONSchemaConfigParam: tables.FORMATS["json_schema"],
        types.FunctionToolParam: tables.TOOL,
        types.ToolChoiceFunctionParam: tables.CHOICES["function"],
        types.ToolChoiceAllowedParam: tables.CHOICES["allowed_tools"],
        types.EasyInputMessageParam: tables.ITEMS["message"],
        types.ResponseOutputMessageParam: tables.ITEMS["message"],
        types.ResponseFunctionToolCallParam: tables.ITEMS["function_call"],
        types.response_input_item_param.FunctionCallOutput: tables.ITEMS["function_call_output"],
        types.ResponseReasoningItemParam: tables.ITEMS["reasoning"],
        types.ResponseInputTextParam: tables.PARTS["input_text"],
        types.ResponseInputImageParam: tables.PARTS["input_image"],
        types.ResponseInputFileParam: tables.PARTS["input_file"],
        types.ResponseOutputTextParam: tables.PARTS["output_text"],
        types.ResponseOutputRefusalParam: tables.PARTS["refusal"],
    }
    for params, table in known.items():
        assert set(params.__annotations__) <= table.keys(), params.__name__


@pytest.fixture
async def upstream() -> AsyncIterator[Scripted]:
    async with Scripted().listening() as listening:
        yield listening


@pytest.fixture
async def client(openai: Any, upstream: Scripted) -> AsyncIterator[Any]:
    async with openai.AsyncOpenAI(base_url=upstream.url, api_key="x", max_retries=0) as made:
        yield made


async def test_openais_client_reads_the_same_from_a_stream(client: Any, upstream: Scripted) -> None:
    events = [*map(in_event, streamed("responses", CHUNKS)), responses.END]
    upstream.plays = [answer(written(plain("responses", SAID))), events_of(*events)]
    whole = await client.responses.create(**ASKED["responses"])
    async with client.responses.stream(**ASKED["responses"]) as stream:
        seen = [event async for event in stream]
        accumulated = await stream.get_final_response()
    assert whole.to_dict() == plain("responses", SAID)
    assert accumulated.output_text == whole.output_text == "I look."
    assert [item.type for item in accumulated.output] == ["reasoning", "message", "function_call", "function_call"]
    snapshots = {event.output_index: event.snapshot for event in seen if hasattr(event, "snapshot")}
    assert snapshots == {1: "I look.", 2: '{"at":"sky"}', 3: '{"at":"sea"}'}


async def test_openais_client_raises_what_a_stream_failed_with(openai: Any, client: Any, upstream: Scripted) -> None:
    events = responses.Events(ASKED["responses"])
    cut = [*events.feed(CHUNKS[2]), *events.finish(NOW)]
    upstream.plays = [events_of(*map(in_event, cut), responses.END)]
    with pytest.raises(openai.APIError, match="The upstream broke off") as failed:
        async with client.responses.stream(**ASKED["responses"]) as stream:
            await stream.until_done()
    assert failed.value.code == "upstream_cut"
