"""Messages as chat completions, judged by Anthropic's own client."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from core.chat_answers import TWO_CALLS, TWO_CALLS_CUT, USAGE, answered, answers, calling, chunk, chunks, said
from core.test_dialects import ASKED, NOW, plain, streamed
from tollgate.core.dialects import in_event, messages, written
from tollgate.core.dialects.chat import Object
from tollgate.core.dialects.messages import tables
from tollgate.core.errors import BadRequest
from upstreams.scripted import Scripted, answer
from upstreams.scripted import streamed as events_of

PNG = {"type": "base64", "media_type": "image/png", "data": "aGk="}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
USE = {"type": "tool_use", "id": "call_0", "name": "look", "input": {"at": "sky"}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [calling(0)]}


def sent(*turns: tuple[str, Any]) -> list[Object]:
    said = [{"role": role, "content": content} for role, content in turns]
    chat: list[Object] = messages.to_chat(ASKED["messages"] | {"messages": said})["messages"]
    return chat


def asking(content: Any) -> Object:
    return {"messages": [{"role": "user", "content": content}]}


def text(words: str) -> Object:
    return {"type": "text", "text": words}


def result(content: Any = "Blue.", **more: Any) -> Object:
    return {"type": "tool_result", "tool_use_id": "call_0", "content": content, **more}


def told(content: Any) -> Object:
    return {"role": "tool", "tool_call_id": "call_0", "content": content}


@pytest.mark.parametrize(
    ("blocks", "becomes"),
    [
        ([text("Hi") | {"cache_control": {"type": "ephemeral"}}], "Hi"),
        ([text("What is"), text("this?")], [text("What is"), text("this?")]),
        ([text("See"), {"type": "image", "source": PNG}], [text("See"), PICTURE]),
        (
            [{"type": "image", "source": {"type": "url", "url": "https://a.test/b.png"}}],
            [{"type": "image_url", "image_url": {"url": "https://a.test/b.png"}}],
        ),
        (
            [{"type": "document", "title": "a.pdf", "source": PNG | {"media_type": "application/pdf"}}],
            [{"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,aGk="}}],
        ),
        ([{"type": "document", "title": "A", "source": {"type": "text", "data": "Words"}}], "A\n\nWords"),
    ],
)
def test_the_users_blocks_become_parts(blocks: list[Object], becomes: Any) -> None:
    assert sent(("user", blocks)) == [{"role": "user", "content": becomes}]


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        (result(), "Blue."),
        (result([text("Blue."), {"type": "image", "source": PNG}]), [text("Blue."), PICTURE]),
        (result("No sky.", is_error=True), "Error: No sky."),
        (result([{"type": "image", "source": PNG}], is_error=True), [text("Error: "), PICTURE]),
        (result(None), ""),
    ],
)
def test_results_of_tools_become_messages_of_their_own(given: Object, becomes: Any) -> None:
    turns = sent(("user", "Look!"), ("assistant", [USE]), ("user", [given, text("Well?")]))
    assert turns == [{"role": "user", "content": "Look!"}, CALLS, told(becomes), {"role": "user", "content": "Well?"}]


def test_neighbours_of_one_role_become_one_message() -> None:
    turns = sent(("user", "A"), ("user", "B"), ("assistant", "C"), ("assistant", [USE]), ("user", [result()]))
    assert turns[0] == {"role": "user", "content": [text("A"), text("B")]}
    assert turns[1] == CALLS | {"content": "C"}
    assert turns[2:] == [told("Blue.")]


@pytest.mark.parametrize("source", ["reasoning", "reasoning_content"])
def test_an_answer_that_is_sent_back_is_what_the_server_said(source: str) -> None:
    said = {source: "Hm", "content": "I look.", "tool_calls": [calling(0)]}
    content = plain("messages", answered("tool_calls", **said))["content"]
    assert sent(("user", "Hi"), ("assistant", content), ("user", [result()]))[1] == {"role": "assistant", **said}


def test_reasoning_of_other_models_is_left_out() -> None:
    foreign = [{"type": "thinking", "thinking": "Hm", "signature": "EqQB"}, {"type": "redacted_thinking", "data": "x"}]
    assert sent(("user", "A"), ("assistant", [*foreign, text("B")]), ("user", "C"))[1] == {
        "role": "assistant",
        "content": "B",
    }


@pytest.mark.parametrize(
    ("asked", "becomes"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, {"reasoning_effort": "low"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 2049}}, {"reasoning_effort": "medium"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 8193}}, {"reasoning_effort": "high"}),
        ({"thinking": {"type": "adaptive"}}, {}),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, {"reasoning_effort": "max"}),
        ({"tool_choice": {"type": "auto"}}, {"tool_choice": "auto"}),
        ({"tool_choice": {"type": "none"}}, {"tool_choice": "none"}),
        (
            {"tool_choice": {"type": "tool", "name": "look"}},
            {"tool_choice": {"type": "function", "function": {"name": "look"}}},
        ),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "strict": True, "schema": {"type": "object"}},
                }
            },
        ),
    ],
)
def test_choices_keep_their_meaning(asked: Object, becomes: Object) -> None:
    bare = ASKED["messages"]
    assert messages.to_chat(bare | asked) == messages.to_chat(bare) | becomes


@pytest.mark.parametrize(
    ("param", "asked"),
    [
        (
            "messages",
            {"messages": [{"role": "user", "content": "A"}, {"role": "assistant", "content": "The answer is"}]},
        ),
        ("messages.0.content.1", asking([text("A"), result()])),
        ("messages.0.content.0.type", asking([{"type": "search_result"}])),
        ("messages.0.content.0.type", asking([USE])),
        (
            "messages.0.content.0.source.type",
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}
                ]
            },
        ),
        (
            "messages.0.content.0.citations",
            {
                "messages": [
                    {"role": "user", "content": [{"type": "document", "source": PNG, "citations": {"enabled": True}}]}
                ]
            },
        ),
        ("messages.0.role", {"messages": [{"role": "tool", "content": "A"}]}),
        ("tools.0.type", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
        ("tools.0.input_examples", {"tools": [{"name": "look", "input_schema": {}, "input_examples": [{}]}]}),
        ("tool_choice.type", {"tool_choice": {"type": "most"}}),
        ("thinking.type", {"thinking": {"type": "between_tools"}}),
        ("thinking.display", {"thinking": {"type": "adaptive", "display": "omitted"}}),
        ("output_config.format.type", {"output_config": {"format": {"type": "grammar"}}}),
        ("metadata.team", {"metadata": {"team": "a"}}),
    ],
)
def test_what_would_change_its_meaning_is_refused_where_it_stands(param: str, asked: Object) -> None:
    with pytest.raises(BadRequest) as refused:
        messages.to_chat(ASKED["messages"] | asked)
    assert refused.value.param == param
    assert refused.value.message.startswith(f"{param}: ")


@pytest.mark.parametrize(
    ("finish_reason", "message", "stop_reason"),
    [
        ("stop", {"content": "Hi"}, "end_turn"),
        ("length", {"content": "Hi"}, "max_tokens"),
        ("content_filter", {"content": "Hi"}, "refusal"),
        ("stop", {"refusal": "No."}, "refusal"),
        ("tool_calls", {"tool_calls": [calling(0)]}, "tool_use"),
        ("stop", {"tool_calls": [calling(0)]}, "tool_use"),
        ("length", {"tool_calls": [calling(0)]}, "max_tokens"),
        ("eos_token", {"content": "Hi"}, "end_turn"),
    ],
)
def test_the_stop_reason_says_why_it_stopped(finish_reason: str, message: Object, stop_reason: str) -> None:
    assert plain("messages", answered(finish_reason, **message))["stop_reason"] == stop_reason


def test_a_stop_sequence_is_named_where_the_server_names_it() -> None:
    stopped = answered(content="Hi")
    stopped["choices"][0]["stop_reason"] = "END"
    named = plain("messages", stopped, stop_sequences=["END"])
    assert (named["stop_reason"], named["stop_sequence"]) == ("stop_sequence", "END")
    unasked = plain("messages", stopped)
    assert (unasked["stop_reason"], unasked["stop_sequence"]) == ("end_turn", None)


@pytest.mark.parametrize(
    ("written_arguments", "read"),
    [("", {}), ("{}", {}), ('{"at":', {"INVALID_JSON": '{"at":'}), ("[1]", {"INVALID_JSON": "[1]"})],
)
def test_arguments_that_are_no_object_are_not_taken_for_one(written_arguments: str, read: Object) -> None:
    called = answered("tool_calls", tool_calls=[calling(0, arguments=written_arguments)])
    assert plain("messages", called)["content"] == [USE | {"input": read}]


def test_a_call_that_the_bound_cut_is_not_made_whole() -> None:
    events = streamed("messages", [chunk(**said(0, calling(0), "", first=True)), chunk("length")])
    assert not [event for event in events if event["type"] == "content_block_delta"]


@given(data=st.data())
def test_events_come_in_order_with_one_block_open_at_a_time(data: st.DataObject) -> None:
    events = streamed("messages", data.draw(chunks(data.draw(answers()))))
    kinds = [event["type"] for event in events]
    assert [kinds[0], *kinds[-2:]] == ["message_start", "message_delta", "message_stop"]
    is_open, blocks = False, 0
    for event in events[1:-2]:
        assert event["index"] == blocks
        assert is_open is (event["type"] != "content_block_start")
        is_open = event["type"] != "content_block_stop"
        blocks += not is_open
    assert not is_open


@pytest.fixture(scope="module")
def anthropic() -> Any:
    """Imported where it is used: in processes that test something else it would cost a second."""
    import anthropic  # noqa: PLC0415

    return anthropic


@pytest.fixture(scope="module")
def types_of_anthropic(anthropic: Any) -> tuple[TypeAdapter[Any], TypeAdapter[Any]]:
    """Of an answer, and of an event. They take seconds to make."""
    return TypeAdapter(anthropic.types.Message), TypeAdapter(anthropic.types.RawMessageStreamEvent)


@given(data=st.data())
def test_every_event_and_answer_is_one_of_anthropics(types_of_anthropic: Any, data: st.DataObject) -> None:
    of_answer, of_event = types_of_anthropic
    answer = data.draw(answers())
    of_answer.validate_python(plain("messages", answer))
    for event in streamed("messages", data.draw(chunks(answer))):
        of_event.validate_python(event)


def test_the_tables_know_every_member_that_anthropics_client_can_send(anthropic: Any) -> None:
    types = anthropic.types
    known = {
        types.message_create_params.MessageCreateParamsStreaming: tables.FIELDS,
        types.TextBlockParam: tables.BLOCKS["text"],
        types.ImageBlockParam: tables.BLOCKS["image"],
        types.DocumentBlockParam: tables.BLOCKS["document"],
        types.ToolUseBlockParam: tables.BLOCKS["tool_use"],
        types.ToolResultBlockParam: tables.BLOCKS["tool_result"],
        types.ThinkingBlockParam: tables.BLOCKS["thinking"],
        types.RedactedThinkingBlockParam: tables.BLOCKS["redacted_thinking"],
        types.ToolParam: tables.TOOL,
        types.ThinkingConfigEnabledParam: tables.THINKING,
        types.OutputConfigParam: tables.OUTPUT,
        types.MetadataParam: tables.METADATA,
        types.ToolChoiceToolParam: tables.CHOICE,
        types.Base64ImageSourceParam: tables.SOURCES["base64"],
        types.URLImageSourceParam: tables.SOURCES["url"],
        types.PlainTextSourceParam: tables.SOURCES["text"],
    }
    for params, table in known.items():
        assert set(params.__annotations__) <= table.keys() | {"stream"}, params.__name__


@pytest.fixture
async def upstream() -> AsyncIterator[Scripted]:
    async with Scripted().listening() as listening:
        yield listening


@pytest.fixture
async def client(anthropic: Any, upstream: Scripted) -> AsyncIterator[Any]:
    async with anthropic.AsyncAnthropic(base_url=upstream.url, api_key="x", max_retries=0) as made:
        yield made


USED = {name: value for name, value in USAGE.items() if name != "cost"}
"""Anthropic's client keeps only what it knows of a stream's usage."""
SAID = answered("tool_calls", USED, reasoning="Hm", content="I look.", tool_calls=TWO_CALLS)
CHUNKS = [*TWO_CALLS_CUT, chunk("tool_calls") | {"usage": USED}]


async def test_anthropics_client_reads_the_same_from_a_stream(client: Any, upstream: Scripted) -> None:
    events = streamed("messages", CHUNKS)
    upstream.plays = [answer(written(plain("messages", SAID))), events_of(*map(in_event, events))]
    whole = await client.messages.create(**ASKED["messages"])
    async with client.messages.stream(**ASKED["messages"]) as stream:
        accumulated = await stream.get_final_message()
    assert accumulated.to_dict() == whole.to_dict() == plain("messages", SAID)
    assert [block.type for block in whole.content] == ["thinking", "text", "tool_use", "tool_use"]


async def test_anthropics_client_raises_what_a_stream_failed_with(
    anthropic: Any, client: Any, upstream: Scripted
) -> None:
    events = messages.Events(ASKED["messages"])
    cut = [*events.feed(CHUNKS[2]), *events.finish(NOW)]
    upstream.plays = [events_of(*map(in_event, cut))]
    with pytest.raises(anthropic.APIStatusError, match="The upstream broke off") as failed:
        async with client.messages.stream(**ASKED["messages"]) as stream:
            await stream.get_final_message()
    assert failed.value.body["error"]["code"] == "upstream_cut"
