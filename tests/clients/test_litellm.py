"""litellm as a client library: its way of speaking to OpenAI's API, and its way of speaking to OpenRouter's."""

import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from clients.conftest import Customer, Tries
from clients.questions import ARGUMENTS, SAID, SHOWN, TEXT, WEATHER, erring
from gateway import Upstream
from tollgate.core.money import NANOS_PER_CREDIT

pytestmark = [  # with what pydantic says of litellm's types
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*`ReadOnly` qualifier:UserWarning"),
    pytest.mark.filterwarnings("ignore:Accessing the 'model_.*' attribute:DeprecationWarning"),
]

Connect = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def litellm() -> ModuleType:
    """Imported where it is used: it takes seven seconds."""
    import litellm  # noqa: PLC0415

    return litellm


@pytest.fixture(scope="module")
def openai() -> ModuleType:
    """Whose errors litellm's are."""
    import openai  # noqa: PLC0415

    return openai


@pytest.fixture(params=["openai", "openrouter"])
def connect(request: pytest.FixtureRequest, openai_url: str, openrouter_url: str) -> Connect:
    """What a call by one of its providers needs, each in turn."""
    base = openai_url if request.param == "openai" else openrouter_url

    def made(key: str, model: str = "sandbox/echo", **more: Any) -> dict[str, Any]:
        settings = {"model": f"{request.param}/{model}", "api_base": base, "api_key": key, "messages": SAID}
        return {**settings, "max_retries": 0, **more}

    return made


async def test_completes_and_shows_what_it_cost(
    litellm: ModuleType, connect: Connect, key: str, upstream: Upstream
) -> None:
    before = upstream.owed_nanos
    answer = litellm.completion(**connect(key))
    assert answer.choices[0].message.content == TEXT
    assert round(answer.usage.cost * NANOS_PER_CREDIT) == upstream.owed_nanos - before


async def test_completes_without_blocking(litellm: ModuleType, connect: Connect, key: str) -> None:
    answer = await litellm.acompletion(**connect(key))
    assert answer.choices[0].message.content == TEXT


@pytest.mark.parametrize("model", ["sandbox/echo", erring("comments"), erring("split-utf8"), erring("no-done")])
async def test_streams_with_the_usage_at_the_end(litellm: ModuleType, connect: Connect, key: str, model: str) -> None:
    chunks = list(litellm.completion(**connect(key, model, stream=True, stream_options={"include_usage": True})))
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == TEXT
    assert chunks[-1].usage.total_tokens > 0


async def test_calls_a_tool(litellm: ModuleType, connect: Connect, key: str) -> None:
    answer = litellm.completion(**connect(key, "sandbox/tools", tools=[WEATHER], tool_choice="required"))
    (call,) = answer.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", ARGUMENTS)


async def test_streams_the_call_of_a_tool(litellm: ModuleType, connect: Connect, key: str) -> None:
    chunks = list(litellm.completion(**connect(key, "sandbox/tools", tools=[WEATHER], stream=True)))
    (call,) = litellm.stream_chunk_builder(chunks).choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", ARGUMENTS)


async def test_shows_an_image(litellm: ModuleType, connect: Connect, key: str, upstream: Upstream) -> None:
    before = upstream.owed_nanos
    assert litellm.completion(**connect(key, "sandbox/image", messages=SHOWN)).choices[0].message.content
    assert upstream.owed_nanos - before > 3_445_000  # the request and the image, by themselves


async def test_embeds(litellm: ModuleType, connect: Connect, key: str) -> None:
    asked = connect(key, "sandbox/embed")
    del asked["messages"]
    answer = litellm.embedding(**asked, input=[TEXT, "more"], encoding_format="float")
    assert [len(one["embedding"]) for one in answer.data] == [8, 8]


async def test_a_wrong_key_is_an_authentication_error(litellm: ModuleType, connect: Connect, key: str) -> None:
    wrong = key[:-1] + ("a" if key[-1] != "a" else "b")
    with pytest.raises(litellm.AuthenticationError, match="API key is invalid"):
        litellm.completion(**connect(wrong))


async def test_an_empty_balance_is_told(litellm: ModuleType, connect: Connect, customer: Customer) -> None:
    poor = (await customer(nanos=500_000)).secret
    with pytest.raises(litellm.APIError, match="This request may cost") as caught:
        litellm.completion(**connect(poor, max_tokens=1_000))
    assert caught.value.status_code == 402


@pytest.mark.parametrize(
    ("model", "status"),
    [
        ("nobody/knows", 404),
        (erring("status=400"), 400),
        (erring("status=429,retry-after=0"), 429),
        (erring("status=401"), 502),
        (erring("status=402"), 502),
    ],
)
async def test_a_refusal_has_its_status(
    openai: ModuleType, litellm: ModuleType, connect: Connect, key: str, model: str, status: int
) -> None:
    with pytest.raises(openai.APIError) as caught:
        litellm.completion(**connect(key, model))
    assert caught.value.status_code == status


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("mid-stream-error=2", "disconnected"),
        ("finish-error=2", "disconnected"),
        ("cut=2", "broke off"),
        ("early-eof=2", "broke off"),
    ],
)
async def test_an_error_in_mid_stream_is_raised_there(
    openai: ModuleType, litellm: ModuleType, connect: Connect, key: str, fault: str, message: str
) -> None:
    chunks: list[Any] = []
    with pytest.raises(openai.APIError, match=message):
        chunks.extend(litellm.completion(**connect(key, erring(fault), stream=True)))
    assert TEXT.startswith("".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices))


async def test_what_may_have_been_paid_for_is_not_tried_again_unless_the_client_insists(
    openai: ModuleType, litellm: ModuleType, connect: Connect, customer: Customer, tries: Tries
) -> None:
    """`num_retries` goes by the status alone."""
    for more, again in (({"max_retries": 2}, False), ({"num_retries": 1}, True)):
        someone = await customer()
        with pytest.raises(openai.APIError):
            litellm.completion(**connect(someone.secret, erring("cut=2"), **more))
        assert (await tries(someone) > 1) == again


async def test_a_limit_upstream_is_tried_again_if_the_client_likes(
    litellm: ModuleType, connect: Connect, customer: Customer, tries: Tries
) -> None:
    patient, hasty = await customer(), await customer()
    model = erring("status=429,retry-after=0")
    for someone, retries in ((patient, 1), (hasty, 0)):
        with pytest.raises(litellm.RateLimitError):
            litellm.completion(**connect(someone.secret, model, num_retries=retries))
    assert await tries(patient) > 1
    assert await tries(hasty) == 1
