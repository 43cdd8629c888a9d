"""OpenRouter's own client for Python."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import anyio
import pytest

from clients.conftest import Customer, Tries
from clients.questions import ARGUMENTS, SAID, SHOWN, TEXT, WEATHER, erring
from gateway import Upstream
from servers.postgres import PACKAGES
from tollgate.core.money import NANOS_PER_CREDIT

pytestmark = pytest.mark.filterwarnings("ignore:ast.* is deprecated:DeprecationWarning")  # its parser of JSONPath

Connect = Callable[..., Any]


class Waits:
    """The time of a client that tries again: it passes only while the client waits, so that a slow answer takes none of
    its patience."""

    def __init__(self) -> None:
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds


@pytest.fixture(scope="module")
def openrouter() -> ModuleType:
    """Imported where it is used: processes that test something else do without."""
    import openrouter  # noqa: PLC0415

    return openrouter


@pytest.fixture
def connect(openrouter: ModuleType, openrouter_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """A client for a key. Left alone it would try again for an hour after a 5xx."""
    monkeypatch.setattr("openrouter.utils.retries.time", Waits())
    with contextlib.ExitStack() as open_clients:

        def made(key: str, patience_ms: int = 0) -> Any:
            backoff = openrouter.utils.BackoffStrategy(100, 100, 1, patience_ms)
            retries = openrouter.utils.RetryConfig("backoff" if patience_ms else "none", backoff, False)
            client = openrouter.OpenRouter(server_url=openrouter_url, api_key=key, retry_config=retries)
            return open_clients.enter_context(client)

        yield made


@pytest.fixture
def client(connect: Connect, key: str) -> Any:
    return connect(key)


async def test_completes_and_shows_what_it_cost(client: Any, upstream: Upstream) -> None:
    before = upstream.owed_nanos
    answer = client.chat.send(model="sandbox/echo", messages=SAID)
    assert answer.choices[0].message.content == TEXT
    assert round(answer.usage.cost * NANOS_PER_CREDIT) == upstream.owed_nanos - before
    assert answer.usage.cost_details.upstream_inference_cost == answer.usage.cost


async def test_completes_without_blocking(client: Any) -> None:
    answer = await client.chat.send_async(model="sandbox/echo", messages=SAID)
    assert answer.choices[0].message.content == TEXT


@pytest.mark.parametrize("model", ["sandbox/echo", erring("comments"), erring("split-utf8"), erring("no-done")])
async def test_streams_with_the_usage_at_the_end(client: Any, model: str) -> None:
    with client.chat.send(model=model, messages=SAID, stream=True) as stream:
        chunks = list(stream)
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == TEXT
    assert chunks[-1].usage.cost > 0


async def test_streams_without_blocking(client: Any) -> None:
    async with await client.chat.send_async(model="sandbox/echo", messages=SAID, stream=True) as stream:
        chunks = [chunk async for chunk in stream]
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == TEXT


async def test_calls_a_tool_and_takes_its_answer(client: Any) -> None:
    asked = {"model": "sandbox/tools", "tools": [WEATHER], "tool_choice": "required"}
    message = client.chat.send(**asked, messages=SAID).choices[0].message
    (call,) = message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", ARGUMENTS)
    told = [*SAID, message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "It rains."}]
    assert client.chat.send(**asked, messages=told).choices[0].message.content == "It rains."


async def test_streams_the_call_of_a_tool(client: Any) -> None:
    with client.chat.send(model="sandbox/tools", messages=SAID, tools=[WEATHER], stream=True) as stream:
        deltas = [choice.delta for chunk in stream for choice in chunk.choices]
    calls = [call.function for delta in deltas for call in delta.tool_calls or ()]
    assert calls[0].name == "weather"
    assert json.loads("".join(call.arguments or "" for call in calls)) == ARGUMENTS


async def test_shows_an_image(client: Any, upstream: Upstream) -> None:
    before = upstream.owed_nanos
    assert client.chat.send(model="sandbox/image", messages=SHOWN).choices[0].message.content
    assert upstream.owed_nanos - before > 3_445_000  # the request and the image, by themselves


async def test_sends_what_only_openrouter_knows(client: Any, upstream: Upstream) -> None:
    answer = client.chat.send(
        models=[erring("moderation"), "sandbox/echo"],
        model=erring("status=502"),
        messages=SAID,
        provider={"sort": "price", "allow_fallbacks": True},
        plugins=[{"id": "response-healing"}],
        session_id="a-session",
        http_referer="https://example.com/app",
    )
    assert answer.model == "sandbox/echo"
    generation = upstream.generations()[-1]
    assert generation["parameters"]["provider"] == {"sort": "price", "allow_fallbacks": True}
    assert generation["parameters"]["plugins"] == [{"id": "response-healing"}]
    assert generation["parameters"]["session_id"] == "a-session"


async def test_thinks(client: Any) -> None:
    answer = client.chat.send(model="sandbox/reasoner", messages=SAID, reasoning={"effort": "low"})
    assert "think" in answer.choices[0].message.reasoning
    assert answer.usage.completion_tokens_details.reasoning_tokens > 0


async def test_embeds(client: Any) -> None:
    answer = client.embeddings.generate(model="sandbox/embed", input=[TEXT, "more"])
    assert [len(one.embedding) for one in answer.data] == [8, 8]
    assert answer.usage.cost > 0


async def test_lists_the_models(client: Any) -> None:
    listed = {model.id: model for model in client.models.list().result.data}
    assert listed["sandbox/echo"].pricing.prompt == "0.00000025"


@pytest.mark.filterwarnings("ignore:.*DEPRECATED:DeprecationWarning")  # it has rate_limit, which is
async def test_makes_every_account_call(client: Any) -> None:
    answer = client.chat.send(model="sandbox/echo", messages=SAID)
    funds, key = client.credits.get_credits().data, client.api_keys.get_current_key_metadata().data
    assert funds.total_usage >= key.usage >= answer.usage.cost
    assert (key.limit, key.is_management_key) == (None, False)
    generation = client.generations.get_generation(id=answer.id).data
    assert (generation.id, generation.total_cost) == (answer.id, answer.usage.cost)
    activity = client.analytics.get_user_activity().data
    assert _today() not in {one.date_ for one in activity}, "only days that are over are told"
    mine = client.models.list_for_user(security={"bearer": client.sdk_configuration.security.api_key}).result
    assert "sandbox/echo" in [model.id for model in mine.data]
    assert client.models.count().data.count == mine.total_count
    (endpoint,) = client.endpoints.list(author="sandbox", slug="echo").data.endpoints
    assert (endpoint.provider_name, endpoint.pricing.prompt) == ("openrouter", "0.00000025")
    assert "openrouter" in [one.name for one in client.providers.list().data]


@pytest.mark.slow
async def test_so_does_the_client_for_javascript(client: Any, openrouter_url: str, key: str) -> None:
    answer = client.chat.send(model="sandbox/echo", messages=SAID)
    order = {"serverURL": openrouter_url, "apiKey": key, "model": "sandbox/echo", "generation": answer.id}
    with anyio.fail_after(300):
        told = await anyio.run_process(
            ["node", str(PACKAGES.parent / "openrouter_sdk.mjs")],
            input=json.dumps(order).encode(),
            env={"PATH": os.environ["PATH"]},
        )
    report = json.loads(told.stdout)
    assert report["credits"]["totalUsage"] >= report["key"]["usage"] >= answer.usage.cost
    assert (report["generation"]["id"], report["generation"]["totalCost"]) == (answer.id, answer.usage.cost)
    assert _today() not in {one["date"] for one in report["activity"]}, "only days that are over are told"
    assert report["count"]["count"] == len(report["user"])
    assert report["endpoints"]["endpoints"][0]["providerName"] == "openrouter"
    assert "openrouter" in [one["slug"] for one in report["providers"]]


async def test_a_wrong_key_is_refused(openrouter: ModuleType, connect: Connect, key: str) -> None:
    wrong = connect(key[:-1] + ("a" if key[-1] != "a" else "b"))
    assert _refused(openrouter, wrong, "sandbox/echo") == (401, "invalid_api_key")


async def test_an_empty_balance_is_told(openrouter: ModuleType, connect: Connect, customer: Customer) -> None:
    poor = connect((await customer(nanos=500_000)).secret)
    refused = _refused(openrouter, poor, "sandbox/echo", max_completion_tokens=1_000)
    assert refused == (402, "insufficient_credits")


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("nobody/knows", 404, "model_not_found"),
        (erring("status=401"), 502, "upstream_unavailable"),
        (erring("status=402"), 502, "upstream_unavailable"),
        (erring("status=400"), 400, "invalid_request"),
        (erring("moderation"), 403, "content_policy_violation"),
        (erring("status=429,retry-after=0"), 429, "rate_limit_exceeded"),
    ],
)
async def test_a_refusal_has_its_status(
    openrouter: ModuleType, client: Any, model: str, status: int, code: object
) -> None:
    assert _refused(openrouter, client, model) == (status, code)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("who", "model", "kind"),
    [
        ("rich", erring("status=400"), "BadRequestResponseError"),
        ("rich", erring("moderation"), "ForbiddenResponseError"),
        ("rich", erring("status=429,retry-after=0"), "TooManyRequestsResponseError"),
        ("rich", erring("status=401"), "BadGatewayResponseError"),
        ("rich", "nobody/knows", "NotFoundResponseError"),
        ("poor", "sandbox/echo", "PaymentRequiredResponseError"),
        ("wrong", "sandbox/echo", "UnauthorizedResponseError"),
    ],
)
async def test_a_refusal_is_an_error_of_its_kind(
    openrouter: ModuleType,
    connect: Connect,
    key: str,
    customer: Customer,
    who: str,
    model: str,
    kind: str,
    stream: bool,
) -> None:
    """The upstream's and ours."""
    poor = (await customer(nanos=500_000)).secret
    keys = {"rich": key, "poor": poor, "wrong": key[:-1] + ("a" if key[-1] != "a" else "b")}
    with pytest.raises(getattr(openrouter.errors, kind)) as caught:
        connect(keys[who]).chat.send(model=model, messages=SAID, max_completion_tokens=1_000, stream=stream)
    assert caught.value.data.error.code == caught.value.status_code
    assert caught.value.data.error.message


@pytest.mark.parametrize("fault", ["mid-stream-error=2", "finish-error=2"])
async def test_an_error_of_the_upstream_in_mid_stream_is_its_last_chunk(client: Any, fault: str) -> None:
    with client.chat.send(model=erring(fault), messages=SAID, stream=True) as stream:
        *told, last = stream
    assert TEXT.startswith("".join(chunk.choices[0].delta.content for chunk in told))
    assert last.choices[0].finish_reason == "error"
    assert (last.error.code, last.error.message) == (502, "Provider disconnected unexpectedly")


@pytest.mark.parametrize("fault", ["cut=2", "early-eof=2"])
async def test_a_stream_that_is_cut_never_passes_for_whole(client: Any, fault: str) -> None:
    with client.chat.send(model=erring(fault), messages=SAID, stream=True) as stream:
        *told, last = stream
    said = "".join(chunk.choices[0].delta.content for chunk in told)
    assert said
    assert TEXT.startswith(said)
    assert (last.id, last.model) == (told[0].id, told[0].model)
    assert told[0].created <= last.created <= time.time()
    assert (last.choices[0].finish_reason, last.choices[0].delta.content) == ("error", "")
    assert (last.error.code, last.error.metadata.error_type) == (502, "upstream_cut")
    assert "broke off" in last.error.message


async def test_a_partial_answer_says_that_it_is_one(client: Any) -> None:
    choice = client.chat.send(model=erring("finish-error=2"), messages=SAID).choices[0]
    assert choice.finish_reason == "error"
    assert TEXT.startswith(choice.message.content)


async def test_a_server_error_is_tried_again_as_long_as_the_client_likes(
    openrouter: ModuleType, connect: Connect, customer: Customer, tries: Tries
) -> None:
    someone = await customer()
    with pytest.raises(openrouter.errors.BadGatewayResponseError):
        connect(someone.secret, patience_ms=300).chat.send(model=erring("status=502"), messages=SAID)
    assert await tries(someone) > 1


async def test_what_may_have_been_paid_for_is_paid_for_once_under_an_idempotency_key(
    openrouter: ModuleType, connect: Connect, customer: Customer, tries: Tries
) -> None:
    """As docs/how-to/call-it.md advises: this client tries again whatever x-should-retry says."""
    careless, careful = await customer(), await customer()
    for someone, headers in ((careless, {}), (careful, {"Idempotency-Key": "once"})):
        with pytest.raises(openrouter.errors.OpenRouterError):
            connect(someone.secret, patience_ms=300).chat.send(
                model=erring("cut=2"), messages=SAID, http_headers=headers
            )
    assert await tries(careless) > 1
    assert await tries(careful) == 1


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _refused(openrouter: ModuleType, client: Any, model: str, **more: Any) -> tuple[int, object]:
    """The status of a refusal, and its word as it came."""
    with pytest.raises(openrouter.errors.OpenRouterError) as caught:
        client.chat.send(model=model, messages=SAID, **more)
    return caught.value.status_code, json.loads(caught.value.body)["error"]["metadata"]["error_type"]
