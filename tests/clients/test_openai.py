"""OpenAI's own client for Python."""

import base64
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel

from clients.conftest import Customer, Tries
from clients.questions import ARGUMENTS, SAID, SHOWN, TEXT, WEATHER, erring
from gateway import Upstream
from people import Person
from tollgate.catalog import store as catalog
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.database.postgres import PostgresDoor
from tollgate.keys.authentication import console
from tollgate.upstreams import store as upstreams


class Place(BaseModel):
    city: str


@pytest.fixture(scope="module")
def openai() -> ModuleType:
    """Imported where it is used: in processes that test something else it would cost a second."""
    import openai  # noqa: PLC0415

    return openai


@pytest.fixture
def client(openai: ModuleType, openai_url: str, key: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=openai_url, api_key=key, max_retries=0) as made:
        yield made


@pytest.fixture
async def awaited(openai: ModuleType, openai_url: str, key: str) -> AsyncIterator[Any]:
    async with openai.AsyncOpenAI(base_url=openai_url, api_key=key, max_retries=0) as made:
        yield made


async def test_completes_and_shows_what_it_cost(client: Any, upstream: Upstream) -> None:
    before = upstream.owed_nanos
    answer = client.chat.completions.create(model="sandbox/echo", messages=SAID)
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    assert round(answer.usage.cost * NANOS_PER_CREDIT) == upstream.owed_nanos - before
    assert answer._request_id.startswith("req_")


async def test_tells_the_charge_in_a_header(client: Any, upstream: Upstream) -> None:
    before = upstream.owed_nanos
    raw = client.chat.completions.with_raw_response.create(model="sandbox/echo", messages=SAID)
    assert raw.headers["x-tollgate-charge-nanos"] == str(upstream.owed_nanos - before)
    assert raw.parse().choices[0].message.content == TEXT


async def test_completes_without_blocking(awaited: Any) -> None:
    answer = await awaited.chat.completions.create(model="sandbox/echo", messages=SAID)
    assert answer.choices[0].message.content == TEXT


@pytest.mark.parametrize("model", ["sandbox/echo", erring("comments"), erring("split-utf8"), erring("no-done")])
async def test_streams_with_the_usage_at_the_end(client: Any, model: str) -> None:
    chunks = list(client.chat.completions.create(model=model, messages=SAID, stream=True))
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == TEXT
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason] == ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.cost > 0


async def test_streams_without_blocking(awaited: Any) -> None:
    asked = {"model": "sandbox/echo", "messages": SAID, "stream_options": {"include_usage": True}}
    stream = await awaited.chat.completions.create(**asked, stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == TEXT
    assert chunks[-1].usage.total_tokens > 0


async def test_shows_the_charge_in_a_stream_when_asked(client: Any, upstream: Upstream) -> None:
    before = upstream.owed_nanos
    asked = {"model": "sandbox/echo", "messages": SAID, "extra_headers": {"X-Tollgate-Usage": "true"}}
    *_, last = client.chat.completions.create(**asked, stream=True)
    assert last.usage.tollgate["charge_nanos"] == upstream.owed_nanos - before


async def test_gathers_a_stream_by_its_own_means(client: Any) -> None:
    with client.chat.completions.stream(model="sandbox/echo", messages=SAID) as stream:
        gathered = stream.get_final_completion()
    assert gathered.choices[0].message.content == TEXT
    assert gathered.usage.total_tokens > 0


async def test_calls_a_tool_and_takes_its_answer(client: Any) -> None:
    asked = {"model": "sandbox/tools", "tools": [WEATHER], "tool_choice": "required"}
    message = client.chat.completions.create(**asked, messages=SAID).choices[0].message
    (call,) = message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", ARGUMENTS)
    told = [*SAID, message, {"role": "tool", "tool_call_id": call.id, "content": "It rains."}]
    assert client.chat.completions.create(**asked, messages=told).choices[0].message.content == "It rains."


async def test_streams_the_call_of_a_tool(client: Any) -> None:
    with client.chat.completions.stream(model="sandbox/tools", messages=SAID, tools=[WEATHER]) as stream:
        choice = stream.get_final_completion().choices[0]
    (call,) = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", ARGUMENTS)
    assert choice.finish_reason == "tool_calls"


async def test_shows_an_image(client: Any, upstream: Upstream) -> None:
    before = upstream.owed_nanos
    assert client.chat.completions.create(model="sandbox/image", messages=SHOWN).choices[0].message.content
    assert upstream.owed_nanos - before > 3_445_000  # the request and the image, by themselves


async def test_parses_what_it_asked_the_shape_of(client: Any) -> None:
    answer = client.chat.completions.parse(model="sandbox/echo", messages=SAID, response_format=Place)
    assert answer.choices[0].message.parsed == Place(city=TEXT)


async def test_asks_for_choices_and_probabilities(client: Any) -> None:
    asked = {"model": "sandbox/echo", "messages": SAID, "n": 2, "logprobs": True, "top_logprobs": 3, "stop": ["?"]}
    answer = client.chat.completions.create(**asked)
    assert [choice.message.content for choice in answer.choices] == [TEXT.removesuffix("?")] * 2
    assert len(answer.choices[1].logprobs.content[0].top_logprobs) == 3


async def test_sends_what_openai_does_not_know(client: Any, upstream: Upstream) -> None:
    extras = {"provider": {"sort": "price"}, "plugins": [{"id": "response-healing"}], "tomorrow": [1, 2]}
    client.chat.completions.create(model="sandbox/echo", messages=SAID, extra_body=extras)
    sent = upstream.generations()[-1]["parameters"]
    assert {name: sent[name] for name in extras} == extras


async def test_thinks(client: Any) -> None:
    answer = client.chat.completions.create(model="sandbox/reasoner", messages=SAID, reasoning_effort="low")
    assert "think" in answer.choices[0].message.reasoning
    assert answer.usage.completion_tokens_details.reasoning_tokens > 0


async def test_completes_texts_as_of_old(client: Any) -> None:
    assert client.completions.create(model="sandbox/echo", prompt=TEXT).choices[0].text == TEXT
    stream = client.completions.create(model="sandbox/echo", prompt=TEXT, stream=True)
    assert "".join(choice.text for chunk in stream for choice in chunk.choices) == TEXT


async def test_makes_a_response(client: Any, upstream: Upstream) -> None:
    before = upstream.owed_nanos
    answer = client.responses.create(model="sandbox/echo", input=TEXT, store=False)
    assert (answer.output_text, answer.status) == (TEXT, "completed")
    assert round(answer.usage.cost * NANOS_PER_CREDIT) == upstream.owed_nanos - before
    cut_short = client.responses.create(model="sandbox/echo", input=TEXT, max_output_tokens=2)
    assert cut_short.incomplete_details.reason == "max_output_tokens"


@pytest.mark.parametrize("model", ["sandbox/echo", erring("comments"), erring("split-utf8"), erring("no-done")])
async def test_streams_a_response(client: Any, model: str) -> None:
    events = list(client.responses.create(model=model, input=SAID, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == TEXT
    assert events[-1].type == "response.completed"
    assert events[-1].response.usage.total_tokens > 0


async def test_gathers_a_response_by_its_own_means(client: Any) -> None:
    with client.responses.stream(model="sandbox/reasoner", input=TEXT) as stream:
        gathered = stream.get_final_response()
    assert [item.type for item in gathered.output] == ["reasoning", "message"]
    assert gathered.output_text == TEXT


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_calls_a_tool_and_takes_its_answer(client: Any, stream: bool) -> None:
    asked = {"model": "sandbox/tools", "tools": [{"type": "function", **WEATHER["function"]}]}
    if stream:
        with client.responses.stream(**asked, input=SAID) as made:
            answer = made.get_final_response()
    else:
        answer = client.responses.create(**asked, input=SAID)
    (call,) = answer.output
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "weather", ARGUMENTS)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "It rains."}
    told = [*SAID, call.to_dict(), result]
    assert client.responses.create(**asked, input=told).output_text == "It rains."


async def test_a_response_is_parsed_into_what_it_asked_the_shape_of(client: Any) -> None:
    answer = client.responses.parse(model="sandbox/echo", input=SAID, text_format=Place)
    assert answer.output_parsed == Place(city=TEXT)


@pytest.mark.parametrize("fault", ["cut=2", "early-eof=2"])
async def test_a_response_that_breaks_off_is_an_error(openai: ModuleType, client: Any, fault: str) -> None:
    events: list[Any] = []
    with pytest.raises(openai.APIError) as caught:
        events.extend(client.responses.create(model=erring(fault), input=SAID, stream=True))
    assert events
    assert "broke off" in caught.value.message


async def test_a_response_that_fails_says_so(client: Any) -> None:
    *_, last = client.responses.create(model=erring("mid-stream-error=2"), input=SAID, stream=True)
    assert (last.type, last.response.error.code) == ("response.failed", "server_error")


async def test_state_is_refused_by_name(openai: ModuleType, client: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="sandbox/echo", input=TEXT, previous_response_id="resp_1")
    assert (caught.value.code, caught.value.param) == ("invalid_request", "previous_response_id")


async def test_embeds(client: Any) -> None:
    """In Base64 over the line, unless the client is asked for numbers."""
    packed = client.embeddings.create(model="sandbox/embed", input=[TEXT, "more"])
    plain = client.embeddings.create(model="sandbox/embed", input=[TEXT, "more"], encoding_format="float")
    assert [one.embedding for one in packed.data] == [one.embedding for one in plain.data]
    assert len(packed.data[0].embedding) == 8


async def test_lists_the_models(client: Any) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert listed["sandbox/echo"].owned_by == "sandbox"
    assert listed["sandbox/echo"].pricing["prompt"] == "0.00000025"
    assert client.models.retrieve("sandbox/echo") == listed["sandbox/echo"]


async def test_a_wrong_key_is_an_authentication_error(openai: ModuleType, openai_url: str, key: str) -> None:
    wrong = key[:-1] + ("a" if key[-1] != "a" else "b")
    with (
        openai.OpenAI(base_url=openai_url, api_key=wrong) as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.chat.completions.create(model="sandbox/echo", messages=SAID)
    assert (caught.value.status_code, caught.value.code) == (401, "invalid_api_key")
    assert caught.value.request_id


async def test_an_empty_balance_is_told_and_not_tried_again(
    openai: ModuleType, openai_url: str, customer: Customer
) -> None:
    poor = await customer(nanos=500_000)
    with (
        openai.OpenAI(base_url=openai_url, api_key=poor.secret) as client,
        pytest.raises(openai.APIStatusError) as caught,
    ):
        client.chat.completions.create(model="sandbox/echo", messages=SAID, max_tokens=1_000)
    assert (caught.value.status_code, caught.value.code) == (402, "insufficient_credits")
    assert caught.value.type == "insufficient_quota"
    assert caught.value.body["affordable_output_tokens"] > 0


@pytest.mark.parametrize(
    ("model", "kind", "code"),
    [
        ("nobody/knows", "NotFoundError", "model_not_found"),
        (erring("status=400"), "BadRequestError", "invalid_request"),
        (erring("moderation"), "PermissionDeniedError", "content_policy_violation"),
        (erring("status=429,retry-after=0"), "RateLimitError", "rate_limit_exceeded"),
        (erring("status=401"), "InternalServerError", "upstream_unavailable"),
        (erring("status=402"), "InternalServerError", "upstream_unavailable"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_is_an_error_of_its_kind(
    openai: ModuleType, client: Any, model: str, kind: str, code: str, stream: bool
) -> None:
    with pytest.raises(getattr(openai, kind)) as caught:
        client.chat.completions.create(model=model, messages=SAID, stream=stream)
    assert caught.value.code == code
    assert caught.value.message


@pytest.mark.parametrize("fault", ["mid-stream-error=2", "finish-error=2", "cut=2", "early-eof=2"])
async def test_an_error_in_mid_stream_is_raised_there(openai: ModuleType, client: Any, fault: str) -> None:
    chunks: list[Any] = []
    with pytest.raises(openai.APIError) as caught:
        chunks.extend(client.chat.completions.create(model=erring(fault), messages=SAID, stream=True))
    said = "".join(chunk.choices[0].delta.content for chunk in chunks)
    assert said
    assert TEXT.startswith(said)
    assert "disconnected" in caught.value.message or "broke off" in caught.value.message


async def test_a_partial_answer_says_that_it_is_one(client: Any) -> None:
    choice = client.chat.completions.create(model=erring("finish-error=2"), messages=SAID).choices[0]
    assert choice.finish_reason == "error"
    assert TEXT.startswith(choice.message.content)


@pytest.mark.parametrize(("retries", "expected"), [(0, 1), (1, 2)])
async def test_a_limit_upstream_is_tried_again_as_often_as_the_client_likes(
    openai: ModuleType, openai_url: str, customer: Customer, tries: Tries, retries: int, expected: int
) -> None:
    someone = await customer()
    with pytest.raises(openai.RateLimitError):
        await _asked(openai, openai_url, someone, erring("status=429,retry-after=0"), max_retries=retries)
    assert await tries(someone) == expected


async def test_what_may_have_been_paid_for_is_not_tried_again(
    openai: ModuleType, openai_url: str, customer: Customer, tries: Tries
) -> None:
    someone = await customer()
    with pytest.raises(openai.InternalServerError) as caught:
        await _asked(openai, openai_url, someone, erring("cut=2"), max_retries=2)
    assert caught.value.code == "upstream_cut"
    assert await tries(someone) == 1


async def test_our_own_limit_is_told_with_when_to_come_back(
    openai: ModuleType, openai_url: str, customer: Customer
) -> None:
    someone = await customer(plan="free")
    with openai.OpenAI(base_url=openai_url, api_key=someone.secret, max_retries=0) as client:

        def ask_for_ever() -> None:
            while True:
                client.embeddings.create(model="sandbox/embed", input="hello")

        with pytest.raises(openai.RateLimitError) as caught:
            ask_for_ever()
    assert caught.value.code == "rate_limit_exceeded"
    assert int(caught.value.response.headers["retry-after"]) > 0


async def _asked(openai: ModuleType, url: str, someone: Person, model: str, **settings: Any) -> Any:
    async with openai.AsyncOpenAI(base_url=url, api_key=someone.secret, **settings) as client:
        return await client.chat.completions.create(model=model, messages=SAID, max_tokens=16)


async def test_makes_images_and_shows_what_they_cost(client: Any, upstream: Upstream) -> None:
    before = upstream.owed_nanos
    made = client.images.generate(
        model="sandbox/painter", prompt=TEXT, n=2, size="1024x1024", response_format="b64_json"
    )
    assert [base64.b64decode(one.b64_json)[:8] for one in made.data] == [b"\x89PNG\r\n\x1a\n"] * 2
    assert round(made.usage.cost * NANOS_PER_CREDIT) == upstream.owed_nanos - before > 0


async def test_streams_an_image(client: Any) -> None:
    *previews, made = client.images.generate(model="sandbox/painter", prompt=TEXT, stream=True, partial_images=2)
    assert {one.type for one in previews} == {"image_generation.partial_image"}
    assert (made.type, made.b64_json) == ("image_generation.completed", previews[0].b64_json)


async def test_speaks_and_reads_the_sound_as_it_comes(client: Any) -> None:
    asked = {"model": "sandbox/voice", "voice": "alloy", "input": TEXT, "response_format": "wav"}
    whole = client.audio.speech.create(**asked).content
    with client.audio.speech.with_streaming_response.create(**asked) as answer:
        assert answer.headers["content-type"] == "audio/wav"
        assert b"".join(answer.iter_bytes()) == whole
    assert whole.startswith(b"RIFF")


async def a_model_of_our_own(database: str, upstream: Upstream, model: str, **pricing: str) -> str:
    """On a server which the gateway is told of before it starts."""
    door = PostgresDoor(database, pool_size=1, deadline_seconds=30)
    operator, token = console(door, "tests"), secrets.token_hex(4)
    named = {"name": f"own-{token}", "dialect": "openai", "secret_name": "UPSTREAM_SANDBOX_KEY"}
    server = await upstreams.make(operator, {**named, "base_url": upstream.url})
    route = {"model": f"ours/{token}", "upstream_id": server["id"], "upstream_model": model}
    await catalog.put_route(operator, {**route, "pricing": {"prompt": "0", "completion": "0", **pricing}})
    await door.close()
    return f"ours/{token}"


@pytest.fixture
async def moderator(shared_database: str, upstream: Upstream) -> str:
    return await a_model_of_our_own(shared_database, upstream, "sandbox/guard", request="0.0001")


@pytest.fixture
async def translator(shared_database: str, upstream: Upstream) -> str:
    return await a_model_of_our_own(shared_database, upstream, "sandbox/ear", second="0.00002")


async def test_moderates_texts_by_a_server_of_our_own(moderator: str, client: Any) -> None:
    raw = client.moderations.with_raw_response.create(model=moderator, input=["a bomb", "a bird"])
    bad, good = raw.parse().results
    assert (bad.flagged, bad.categories.violence, good.flagged) == (True, True, False)
    assert raw.headers["x-tollgate-charge-nanos"] == "100000"


RECORDING = ("a.mp3", b"\xff\xfb\x90\x00" + bytes(80_000))
HEARD = "The sandbox heard 6 seconds of sound."


async def test_transcribes_a_file(client: Any, awaited: Any, upstream: Upstream) -> None:
    before = upstream.owed_nanos
    asked = {"model": "sandbox/ear", "file": RECORDING}
    heard = client.audio.transcriptions.create(**asked, language="en")
    assert heard.text == HEARD
    assert round(heard.usage.cost * NANOS_PER_CREDIT) == upstream.owed_nanos - before == 600_000
    granularities = ["word", "segment"]
    verbose = await awaited.audio.transcriptions.create(
        **asked, response_format="verbose_json", timestamp_granularities=granularities
    )
    assert (verbose.text, verbose.duration, verbose.segments[0].text) == (HEARD, 6, HEARD)
    assert await awaited.audio.transcriptions.create(**asked, response_format="text") == HEARD + "\n"
    *deltas, done = client.audio.transcriptions.create(**asked, stream=True)
    assert "".join(one.delta for one in deltas) == done.text == HEARD
    assert done.usage.seconds == 6


async def test_translates_a_file_by_a_server_of_our_own(translator: str, client: Any) -> None:
    raw = client.audio.translations.with_raw_response.create(model=translator, file=RECORDING)
    assert raw.parse().text == HEARD
    assert raw.headers["x-tollgate-charge-nanos"] == str(6 * 20_000)


async def test_a_file_that_nothing_is_left_of_is_refused_in_our_words(client: Any, openai: ModuleType) -> None:
    with pytest.raises(openai.BadRequestError, match="file: send a file with sound"):
        client.audio.transcriptions.create(model="sandbox/ear", file=("a.mp3", b""))
