"""What the sandbox answers when nothing goes wrong, and what that costs."""

import base64
import struct
from decimal import Decimal
from typing import Any

import pytest

from sandbox.serving import a_chat, a_sandbox, chunks, entry, exact, get, in_process, payloads, post, told
from tollgate.sandbox.app import create_bounded_sandbox
from tollgate.sandbox.catalog import Model
from tollgate.sandbox.faults import FOLLOWED_BY_FALLBACKS
from tollgate.sandbox.models import MODELS
from tollgate.sandbox.prices import Used, dollars

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer"},
                "units": {"enum": ["metric", "imperial"]},
                "hours": {"type": "array", "items": {"type": "number"}},
                "sure": {"type": ["boolean", "null"]},
            },
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}


def model(name: str) -> Model:
    return next(one for one in MODELS if one.id == name)


async def answer_to(body: dict[str, Any], path: str = "chat/completions") -> dict[str, Any]:
    answered = await post(a_sandbox(), body, path)
    assert answered.status_code == 200, answered.text
    return dict(exact(answered.text))


async def text_of(body: dict[str, Any]) -> str:
    return str((await answer_to(body))["choices"][0]["message"]["content"])


async def refusal_of(body: Any, path: str = "chat/completions") -> dict[str, Any]:
    answered = await post(a_sandbox(), body, path)
    error: dict[str, Any] = answered.json()["error"]
    assert answered.status_code == error["code"]
    assert {"code", "message", "metadata"} <= set(error)
    return error


async def test_an_answer_has_openrouters_shape() -> None:
    answered = await post(a_sandbox(), a_chat("hello"))
    body = exact(answered.text)
    assert answered.headers["content-type"] == "application/json"
    assert body["id"] == answered.headers["x-generation-id"]
    assert body["id"].startswith("gen-1750000000-")
    assert (body["object"], body["created"], body["model"]) == ("chat.completion", 1_750_000_000, "sandbox/echo")
    assert body["choices"] == [
        {
            "index": 0,
            "finish_reason": "stop",
            "native_finish_reason": "stop",
            "message": {"role": "assistant", "content": "hello", "refusal": None, "reasoning": None},
            "logprobs": None,
        }
    ]
    assert body["usage"] == {
        "prompt_tokens": 6,
        "completion_tokens": 2,
        "total_tokens": 8,
        "cost": Decimal("0.000004"),
        "is_byok": False,
        "cost_details": {
            "upstream_inference_cost": Decimal("0.000004"),
            "upstream_inference_prompt_cost": Decimal("0.0000015"),
            "upstream_inference_completions_cost": Decimal("0.0000025"),
        },
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0, "video_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "image_tokens": 0, "audio_tokens": 0},
    }


async def test_the_same_chance_gives_the_same_ids() -> None:
    assert (await answer_to(a_chat()))["id"] == (await answer_to(a_chat()))["id"]


async def test_echo_repeats_the_last_user_message() -> None:
    parts = [
        {"type": "text", "text": "zwei "},
        {"type": "image_url", "image_url": {}},
        {"type": "text", "text": "drei"},
    ]
    messages = [
        {"role": "user", "content": "eins"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "vier"},
    ]
    assert await text_of({"model": "sandbox/echo", "messages": messages}) == "zwei drei"


async def test_an_echo_of_nothing_still_says_something() -> None:
    assert await text_of(a_chat("")) == "(silence)"


async def test_a_lone_surrogate_is_echoed_as_it_came() -> None:
    raw = '{"model":"sandbox/echo","messages":[{"role":"user","content":"\\ud83d!"}]}'
    async with in_process(a_sandbox()) as http:
        answered = await http.post("/api/v1/chat/completions", content=raw)
    assert answered.json()["choices"][0]["message"]["content"] == "\ud83d!"


@pytest.mark.parametrize("bound", ["max_tokens", "max_completion_tokens"])
async def test_a_bound_cuts_the_answer_and_says_so(bound: str) -> None:
    answered = await answer_to(a_chat("12345678 and more") | {bound: 2})
    assert answered["choices"][0]["message"]["content"] == "12345678"
    assert answered["choices"][0]["finish_reason"] == "length"
    assert answered["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize(("bound", "said", "finish"), [(None, 20, "stop"), (3, 3, "length"), (5000, 5000, "length")])
async def test_words_says_as_many_words_as_it_may(bound: int | None, said: int, finish: str) -> None:
    answered = await answer_to(a_chat(model="sandbox/words", max_tokens=bound))
    assert len(answered["choices"][0]["message"]["content"].split()) == said
    assert answered["usage"]["completion_tokens"] == said
    assert answered["choices"][0]["finish_reason"] == finish


@pytest.mark.parametrize("stop", ["c", ["x", "c"]])
async def test_a_stop_sequence_ends_the_answer(stop: Any) -> None:
    assert await text_of(a_chat("a b c d", stop=stop)) == "a b "


async def test_several_choices_are_all_paid_for() -> None:
    answered = await answer_to(a_chat("12345678", n=3))
    assert [choice["index"] for choice in answered["choices"]] == [0, 1, 2]
    assert answered["usage"]["completion_tokens"] == 6


async def test_logprobs_come_with_their_alternatives() -> None:
    answered = await answer_to(a_chat("hé", logprobs=True, top_logprobs=2))
    (token,) = answered["choices"][0]["logprobs"]["content"]
    assert token["token"] == "hé"
    assert bytes(token["bytes"]).decode() == "hé"
    assert len(token["top_logprobs"]) == 2


async def test_json_is_answered_where_json_is_wanted() -> None:
    assert await text_of(a_chat("hi", response_format={"type": "json_object"})) == '{"answer":"hi"}'
    schema = {"type": "object", "properties": {"word": {"type": "string"}, "count": {"type": "integer"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert await text_of(a_chat("hi", response_format=wanted)) == '{"word":"hi","count":1}'


async def test_tools_calls_the_first_tool_with_arguments_of_its_schema() -> None:
    answered = await answer_to(a_chat("Oslo", "sandbox/tools", tools=[WEATHER, CLOCK]))
    (choice,) = answered["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert call["function"]["name"] == "weather"
    assert exact(call["function"]["arguments"]) == {
        "city": "Oslo",
        "days": 1,
        "units": "metric",
        "hours": [1],
        "sure": True,
    }


async def test_tools_calls_the_tool_it_is_told_to() -> None:
    choice = {"type": "function", "function": {"name": "clock"}}
    answered = await answer_to(a_chat("now", "sandbox/tools", tools=[WEATHER, CLOCK], tool_choice=choice))
    assert answered["choices"][0]["message"]["tool_calls"][0]["function"] == {"name": "clock", "arguments": "{}"}


async def test_tools_answers_in_words_after_the_tool_did() -> None:
    messages = [{"role": "user", "content": "Oslo?"}, {"role": "tool", "tool_call_id": "x", "content": "rain"}]
    body = {"model": "sandbox/tools", "messages": messages, "tools": [WEATHER]}
    assert await text_of(body) == "rain"
    assert await text_of(a_chat("no", "sandbox/tools", tools=[WEATHER], tool_choice="none")) == "no"


async def test_reasoning_is_shown_counted_and_part_of_the_completion() -> None:
    answered = await answer_to(a_chat("12345678", "sandbox/reasoner"))
    message, usage = answered["choices"][0]["message"], answered["usage"]
    thought = usage["completion_tokens_details"]["reasoning_tokens"]
    assert message["reasoning_details"][0]["text"] == message["reasoning"]
    assert thought > 10
    assert usage["completion_tokens"] == thought + 2


@pytest.mark.parametrize("off", [{"reasoning": {"effort": "none"}}, {"reasoning": {"enabled": False}}])
async def test_reasoning_can_be_turned_off(off: dict[str, Any]) -> None:
    answered = await answer_to(a_chat("12345678", "sandbox/reasoner", **off))
    assert answered["usage"]["completion_tokens"] == 2


async def test_reasoning_can_use_up_the_bound() -> None:
    answered = await answer_to(a_chat("hello", "sandbox/reasoner", max_tokens=3))
    assert answered["choices"][0]["message"]["content"] == ""
    assert answered["usage"]["completion_tokens_details"]["reasoning_tokens"] == 3


async def test_free_is_free() -> None:
    sandbox = a_sandbox()
    answered = exact((await post(sandbox, a_chat(model="sandbox/free:free"))).text)
    assert (answered["model"], answered["usage"]["cost"]) == ("sandbox/free:free", 0)
    assert (await entry(sandbox))["owed_nanos"] == 0


@pytest.mark.parametrize(
    "name",
    ["sandbox/router", "~sandbox/echo-latest", "sandbox/echo:nitro", "sandbox/echo:floor", "sandbox/echo:exacto"],
)
async def test_another_name_is_answered_and_billed_as_the_model_behind_it(name: str) -> None:
    answered, plain = await answer_to(a_chat(model=name)), await answer_to(a_chat())
    assert answered["model"] == "sandbox/echo"
    assert answered["usage"] == plain["usage"]


async def test_images_and_requests_have_prices_of_their_own() -> None:
    content = [{"type": "text", "text": "look"}, *[{"type": "image_url", "image_url": {"url": "data:,"}}] * 2]
    body = {"model": "sandbox/image", "messages": [{"role": "user", "content": content}]}
    expected = model("sandbox/image").pricing.cost(Used(prompt=5, completion=1, images=2)).total
    assert (await answer_to(body))["usage"]["cost"] == dollars(expected) == Decimal("0.004899")


async def test_long_prompts_are_dearer() -> None:
    answered = await answer_to(a_chat("x" * 4000, "sandbox/long-context", max_tokens=1))
    assert answered["usage"]["prompt_tokens"] == 1004
    assert answered["usage"]["cost"] == 1004 * Decimal("0.000002") + Decimal("0.00001")


async def test_a_prompt_that_begins_as_an_earlier_one_did_is_partly_cached() -> None:
    sandbox = a_sandbox()
    long, more = {"role": "system", "content": "s" * 2000}, {"role": "user", "content": "q" * 400}
    usages = []
    for messages in ([long], [long, more], [long, more], [more, long]):
        answered = await post(sandbox, {"model": "sandbox/cached", "messages": messages, "max_tokens": 1})
        usages.append(exact(answered.text)["usage"])
    details = [usage["prompt_tokens_details"] for usage in usages]
    assert [(one["cached_tokens"], one["cache_write_tokens"]) for one in details] == [
        (0, 504),
        (504, 104),
        (608, 0),
        (0, 608),
    ]
    read, write, completion = Decimal("0.0000000375"), Decimal("0.00000046875"), Decimal("0.0000015")
    assert usages[1]["cost"] == 504 * read + 104 * write + completion


async def test_a_short_prompt_is_not_cached() -> None:
    sandbox = a_sandbox()
    await post(sandbox, a_chat(model="sandbox/cached"))
    again = exact((await post(sandbox, a_chat(model="sandbox/cached"))).text)
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


async def test_the_first_model_of_the_list_that_works_answers() -> None:
    names = ["sandbox/echo@status=503", "sandbox/words@moderation", "sandbox/old", "sandbox/words"]
    answered = await answer_to(a_chat(model=names[0], models=names[1:]))
    assert answered["model"] == "sandbox/old"
    body = a_chat()
    del body["model"]
    assert (await answer_to(body | {"models": ["sandbox/old"]}))["model"] == "sandbox/old"


async def test_strangers_may_name_models_that_fail_before_those_that_answer() -> None:
    sandbox = create_bounded_sandbox()
    for fault in FOLLOWED_BY_FALLBACKS:
        name = f"sandbox/fault-{fault}"
        assert name in (await get(sandbox, "/api/v1/models")).text
        answered = await post(sandbox, a_chat(model=None, models=[name, "sandbox/words"]))
        assert answered.json()["model"] == "sandbox/words"
        assert (await post(sandbox, a_chat(model=name))).status_code >= 400


async def test_when_all_models_of_the_list_fail_the_last_one_says_how() -> None:
    body = a_chat(model="sandbox/echo@status=503", models=["sandbox/words@status=529"])
    assert (await refusal_of(body))["code"] == 529


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ([], 400),
        ({"messages": [{"role": "user", "content": "x"}]}, 400),
        (a_chat(model=7), 400),
        ({"model": "sandbox/echo"}, 400),
        ({"model": "sandbox/echo", "messages": []}, 400),
        ({"model": "sandbox/echo", "messages": ["x"]}, 400),
        (a_chat(max_tokens=0), 400),
        (a_chat(max_tokens=-1), 400),
        (a_chat(max_tokens="9"), 400),
        (a_chat(max_tokens=True), 400),
        (a_chat(n=129), 400),
        (a_chat(max_tokens=16_385), 404),
        (a_chat(model="sandbox/nothing"), 400),
        (a_chat(model="sandbox/echo:batch"), 400),
        (a_chat(model="sandbox/embed"), 400),
    ],
)
async def test_what_cannot_be_served_is_refused_in_openrouters_shape(body: Any, code: int) -> None:
    assert (await refusal_of(body))["code"] == code


async def test_an_unknown_model_is_named_with_its_availability() -> None:
    error = await refusal_of(a_chat(model="sandbox/nothing"))
    assert error["message"] == "sandbox/nothing is not a valid model ID"
    assert error["availability"]["code"] == "model_not_found"
    assert error["availability"]["requested_models"] == ["sandbox/nothing"]


@pytest.mark.parametrize("bound", [None, 400])
async def test_more_than_the_context_holds_is_refused(bound: int | None) -> None:
    size = 131_072 * 4 - (0 if bound is None else 4 * 200)
    error = await refusal_of(a_chat("x" * size, max_tokens=bound))
    assert error["metadata"]["error_type"] == "context_length_exceeded"


async def test_legacy_completions_take_a_prompt() -> None:
    body = {"model": "sandbox/echo", "prompt": "once upon", "user": "u"}
    answered = await answer_to(body, "completions")
    assert (answered["object"], answered["choices"][0]["text"]) == ("text_completion", "once upon")
    streamed = await post(a_sandbox(), body | {"stream": True}, "completions")
    texts = [choice["text"] for chunk in chunks(streamed.text) for choice in chunk["choices"]]
    assert "".join(texts) == "once upon"
    assert (await refusal_of({"model": "sandbox/echo", "prompt": ["x"]}, "completions"))["code"] == 400


@pytest.mark.parametrize(
    ("given", "counts"), [("hello", [2]), (["a", "hello"], [1, 2]), ([1, 2, 3], [3]), ([[1, 2], [3]], [2, 1])]
)
async def test_embeddings_are_counted_and_depend_only_on_the_input(given: Any, counts: list[int]) -> None:
    body = {"model": "sandbox/embed", "input": given}
    answered, again = await answer_to(body, "embeddings"), await answer_to(body, "embeddings")
    assert answered["data"] == again["data"]
    assert [one["index"] for one in answered["data"]] == list(range(len(counts)))
    usage = answered["usage"]
    assert usage["prompt_tokens"] == usage["total_tokens"] == sum(counts)
    assert usage["cost"] == sum(counts) * Decimal("0.00000002")


async def test_embeddings_come_in_base64_as_the_same_numbers() -> None:
    body = {"model": "sandbox/embed", "input": "hello", "dimensions": 20}
    plain = (await post(a_sandbox(), body, "embeddings")).json()["data"][0]["embedding"]
    packed = (await answer_to(body | {"encoding_format": "base64"}, "embeddings"))["data"][0]["embedding"]
    assert len(plain) == 20
    assert list(struct.unpack("<20f", base64.b64decode(packed))) == plain


@pytest.mark.parametrize("odd", [{}, {"input": []}, {"input": 7}, {"input": "x", "dimensions": 0}])
async def test_odd_embedding_requests_are_refused(odd: dict[str, Any]) -> None:
    assert (await refusal_of({"model": "sandbox/embed"} | odd, "embeddings"))["code"] == 400
    assert (await refusal_of({"model": "sandbox/echo", "input": "x"}, "embeddings"))["code"] == 400


@pytest.mark.parametrize("path", ["chat/completions", "completions", "embeddings"])
async def test_a_body_that_is_not_json_is_refused(path: str) -> None:
    assert (await refusal_of(None, path))["code"] == 400


STREAMED = [
    a_chat("héllo wörld, 漢字 and 🎈"),
    a_chat("hello", n=2),
    a_chat(model="sandbox/words", max_tokens=300),
    a_chat(model="sandbox/reasoner"),
    a_chat("Oslo", "sandbox/tools", tools=[WEATHER]),
    a_chat("hello", logprobs=True, top_logprobs=1),
    a_chat("hello", max_tokens=1),
]


@pytest.mark.parametrize("body", STREAMED, ids=[str(number) for number in range(len(STREAMED))])
async def test_a_stream_says_and_costs_the_same_as_the_whole_answer(body: dict[str, Any]) -> None:
    whole = await answer_to(body)
    streamed = await post(a_sandbox(), body | {"stream": True})
    seen = chunks(streamed.text)
    choices = [choice for chunk in seen for choice in chunk["choices"]]
    for choice in whole["choices"]:
        of_this = [one for one in choices if one["index"] == choice["index"]]
        message = choice["message"]
        assert "".join(one["delta"]["content"] or "" for one in of_this) == (message["content"] or "")
        assert "".join(one["delta"].get("reasoning") or "" for one in of_this) == (message["reasoning"] or "")
        assert of_this[-1]["finish_reason"] == choice["finish_reason"]
    assert seen[-1]["usage"] == whole["usage"]


async def test_a_streamed_tool_call_puts_itself_together() -> None:
    streamed = await post(a_sandbox(), a_chat("Oslo", "sandbox/tools", tools=[WEATHER], stream=True))
    deltas = [choice["delta"] for chunk in chunks(streamed.text) for choice in chunk["choices"]]
    (opened, *rest) = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert (opened["function"], opened["type"]) == ({"name": "weather", "arguments": ""}, "function")
    assert exact("".join(one["function"]["arguments"] for one in rest))["city"] == "Oslo"
    assert not any("id" in one for one in rest)


async def test_a_stream_has_openrouters_shape() -> None:
    streamed = await post(a_sandbox(), a_chat("hello", stream=True))
    first, *middle, finish, usage = chunks(streamed.text)
    assert streamed.headers["content-type"] == "text/event-stream"
    assert streamed.text.startswith(": OPENROUTER PROCESSING\n\n")
    assert payloads(streamed.text)[-1] == "[DONE]"
    assert first["id"] == streamed.headers["x-generation-id"]
    assert first["object"] == "chat.completion.chunk"
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert told(streamed.text) == "hello"
    assert all("usage" not in chunk for chunk in (first, *middle, finish))
    assert finish["choices"][0]["finish_reason"] == finish["choices"][0]["native_finish_reason"] == "stop"
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] == 8
