"""Anthropic's own client for Python."""

from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any

import pytest

from clients.conftest import Customer, Tries
from clients.questions import ARGUMENTS, PLACE, SAID, TEXT, erring
from gateway import Gateway, Upstream
from tollgate.core.money import NANOS_PER_CREDIT

TOOL = {"name": "weather", "description": "The weather of a place.", "input_schema": PLACE}
ASKED: dict[str, Any] = {"model": "sandbox/echo", "max_tokens": 100, "messages": SAID}


@pytest.fixture(scope="module")
def anthropic() -> ModuleType:
    """Imported where it is used: in processes that test something else it would cost a second."""
    import anthropic  # noqa: PLC0415

    return anthropic


@pytest.fixture(params=["", "/api"])
def anthropic_url(request: pytest.FixtureRequest, gateway: Gateway) -> str:
    """The client adds /v1/messages."""
    return gateway.address + str(request.param)


@pytest.fixture
def client(anthropic: ModuleType, anthropic_url: str, key: str) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=anthropic_url, api_key=key, max_retries=0) as made:
        yield made


@pytest.fixture
async def awaited(anthropic: ModuleType, anthropic_url: str, key: str) -> AsyncIterator[Any]:
    async with anthropic.AsyncAnthropic(base_url=anthropic_url, auth_token=key, api_key=None, max_retries=0) as made:
        yield made


async def test_sends_a_message_and_is_told_what_it_cost(client: Any, upstream: Upstream) -> None:
    before = upstream.owed_nanos
    raw = client.messages.with_raw_response.create(**ASKED)
    message = raw.parse()
    assert [(block.type, block.text) for block in message.content] == [("text", TEXT)]
    assert message.stop_reason == "end_turn"
    assert round(message.usage.cost * NANOS_PER_CREDIT) == upstream.owed_nanos - before
    assert raw.headers["x-tollgate-charge-nanos"] == str(upstream.owed_nanos - before)


async def test_sends_a_message_without_blocking(awaited: Any) -> None:
    assert (await awaited.messages.create(**ASKED)).content[0].text == TEXT


@pytest.mark.parametrize("model", ["sandbox/echo", erring("comments"), erring("split-utf8"), erring("no-done")])
async def test_streams_events_in_their_order(client: Any, model: str) -> None:
    kinds = [event.type for event in client.messages.create(**ASKED | {"model": model}, stream=True)]
    assert [kind for kind in dict.fromkeys(kinds) if kind != "ping"] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


async def test_gathers_a_stream_by_its_own_means(client: Any, upstream: Upstream) -> None:
    with client.messages.stream(**ASKED) as stream:
        assert "".join(stream.text_stream) == TEXT
        message = stream.get_final_message()
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens == upstream.generations()[-1]["completion_tokens"]


async def test_gathers_a_stream_without_blocking(awaited: Any) -> None:
    async with awaited.messages.stream(**ASKED) as stream:
        assert await stream.get_final_text() == TEXT


@pytest.mark.parametrize("stream", [False, True])
async def test_calls_a_tool_and_takes_its_answer(client: Any, stream: bool) -> None:
    asked = ASKED | {"model": "sandbox/tools", "tools": [TOOL], "tool_choice": {"type": "any"}}
    if stream:
        with client.messages.stream(**asked) as made:
            message = made.get_final_message()
    else:
        message = client.messages.create(**asked)
    (call,) = message.content
    assert (call.type, call.name, call.input, message.stop_reason) == ("tool_use", "weather", ARGUMENTS, "tool_use")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "It rains."}
    told = [*SAID, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    assert client.messages.create(**asked | {"messages": told}).content[0].text == "It rains."


async def test_thinks(client: Any) -> None:
    asked = ASKED | {"model": "sandbox/reasoner", "thinking": {"type": "enabled", "budget_tokens": 1024}}
    with client.messages.stream(**asked | {"max_tokens": 2000}) as stream:
        thought, said = stream.get_final_message().content
    assert "think" in thought.thinking
    assert said.text == TEXT


async def test_counts_tokens_for_nothing(
    anthropic: ModuleType, gateway: Gateway, customer: Customer, tries: Tries
) -> None:
    poor, before = await customer(nanos=0), gateway.upstream.owed_nanos
    with anthropic.Anthropic(base_url=gateway.address, api_key=poor.secret) as client:
        counted = client.messages.count_tokens(model="sandbox/echo", messages=SAID, tools=[TOOL])
        longer = client.messages.count_tokens(model="sandbox/echo", messages=SAID * 9, tools=[TOOL])
    assert 0 < counted.input_tokens < longer.input_tokens
    assert await tries(poor) == 2
    assert gateway.upstream.owed_nanos == before


@pytest.mark.parametrize(
    ("model", "kind", "code"),
    [
        ("nobody/knows", "NotFoundError", "model_not_found"),
        (erring("status=400"), "BadRequestError", "invalid_request"),
        (erring("moderation"), "PermissionDeniedError", "content_policy_violation"),
        (erring("status=429,retry-after=0"), "RateLimitError", "rate_limit_exceeded"),
        (erring("status=401"), "InternalServerError", "upstream_unavailable"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_is_an_error_of_its_kind(
    anthropic: ModuleType, client: Any, model: str, kind: str, code: str, stream: bool
) -> None:
    with pytest.raises(getattr(anthropic, kind)) as caught:
        client.messages.create(**ASKED | {"model": model}, stream=stream)
    assert caught.value.body["type"] == "error"
    assert caught.value.body["error"]["code"] == code
    assert caught.value.body["error"]["message"]


async def test_a_wrong_key_and_an_empty_balance_are_told_in_its_shape(
    anthropic: ModuleType, gateway: Gateway, customer: Customer
) -> None:
    poor = await customer(nanos=0)
    for key, status, kind, code in (
        ("nobodys-key-0123456789", 401, "authentication_error", "invalid_api_key"),
        (poor.secret, 402, "billing_error", "insufficient_credits"),
    ):
        with (
            anthropic.Anthropic(base_url=gateway.address, api_key=key, max_retries=0) as client,
            pytest.raises(anthropic.APIStatusError) as caught,
        ):
            client.messages.create(**ASKED)
        error = caught.value.body["error"]
        assert (caught.value.status_code, error["type"], error["code"]) == (status, kind, code)
        assert caught.value.body["request_id"].startswith("req_")


@pytest.mark.parametrize("fault", ["mid-stream-error=2", "finish-error=2", "cut=2", "early-eof=2"])
async def test_an_error_in_mid_stream_is_raised_there(anthropic: ModuleType, client: Any, fault: str) -> None:
    events: list[Any] = []
    with pytest.raises(anthropic.APIStatusError) as caught:
        events.extend(client.messages.create(**ASKED | {"model": erring(fault)}, stream=True))
    said = "".join(event.delta.text for event in events if event.type == "content_block_delta")
    assert said
    assert TEXT.startswith(said)
    assert "disconnected" in str(caught.value) or "broke off" in str(caught.value)
