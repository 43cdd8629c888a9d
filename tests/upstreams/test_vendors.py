"""Vendors: how each is asked, and whom its errors are about. The servers are look-alikes; no vendor was asked."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tollgate.core.endpoints import ENDPOINTS, Endpoint
from tollgate.core.errors import UpstreamBusy, UpstreamCut, UpstreamUnavailable
from tollgate.upstreams.attempts.outcome import Refused
from tollgate.upstreams.dialects import DIALECTS
from tollgate.upstreams.presets import PRESETS, PresetName
from upstreams.scripted import COMPLETION, SECRET, Scripted, Side, a_call, a_route, answer, cut

BEARER = {"authorization": f"Bearer {SECRET}"}
AUTH: list[tuple[PresetName, Endpoint, dict[str, str]]] = [
    ("openai", "chat", BEARER),
    ("azure-openai", "responses", {"api-key": SECRET}),
    ("anthropic", "messages", {"x-api-key": SECRET, "anthropic-version": "2023-06-01"}),
    ("anthropic", "chat", BEARER),
    ("groq", "chat", BEARER),
    ("mistral", "embeddings", BEARER),
    ("together", "completions", BEARER),
]
KNOWN = "interleaved-thinking-2025-05-14,structured-outputs-2025-11-13"
BETAS = KNOWN.replace(",", ", fast-mode-2026-02-01,files-api-2025-04-14 , ")
OF_OPENROUTER = {"provider": {"sort": "price"}, "session_id": "s", "usage": {"include": True}}


def prepared(preset: PresetName, endpoint: Endpoint = "chat", **call: Any) -> Any:
    dialect = PRESETS[preset].dialect
    made = a_call(endpoint=endpoint, **call)
    return json.loads(DIALECTS[dialect].prepare(made, a_route("http://x", "ups_1", dialect=dialect)))


@pytest.mark.parametrize(("preset", "endpoint", "expected"), AUTH)
async def test_the_key_goes_where_the_vendor_reads_it(
    a_side: Callable[..., Side], preset: PresetName, endpoint: Endpoint, expected: dict[str, str]
) -> None:
    side = a_side()
    async with Scripted(answer()).listening() as there:
        route = a_route(there, "ups_1", dialect=PRESETS[preset].dialect)
        await side.plain([route], endpoint=endpoint, headers={"api-key": "a client's", "anthropic-beta": BETAS})
        (line,) = there.seen
    sent = {name: line.headers.get(name) for name in ("authorization", "api-key", "x-api-key", "anthropic-version")}
    assert {name: value for name, value in sent.items() if value} == expected
    assert line.headers.get("anthropic-beta") == (KNOWN if preset == "anthropic" else None)
    assert line.target == "/api/v1" + ENDPOINTS[endpoint].path


@pytest.mark.parametrize("preset", PRESETS)
def test_what_only_openrouter_knows_is_not_sent(preset: PresetName) -> None:
    assert not OF_OPENROUTER.keys() & prepared(preset, **OF_OPENROUTER).keys()


@pytest.mark.parametrize(
    ("preset", "endpoint", "clients", "expected"),
    [
        ("openai", "chat", {}, {"max_completion_tokens": 9}),
        ("openai", "chat", {"max_tokens": 20}, {"max_completion_tokens": 9}),
        ("azure-openai", "completions", {}, {"max_tokens": 9}),
        ("openai", "responses", {}, {"max_output_tokens": 9}),
        ("groq", "chat", {"max_completion_tokens": 20}, {"max_completion_tokens": 9}),
        ("mistral", "chat", {"max_completion_tokens": 20}, {"max_tokens": 9}),
        ("together", "chat", {"max_completion_tokens": 20}, {"max_tokens": 9}),
        ("anthropic", "messages", {"max_tokens": 20}, {"max_tokens": 9}),
    ],
)
def test_the_bound_has_the_name_that_the_vendor_obeys(
    preset: PresetName, endpoint: Endpoint, clients: dict[str, int], expected: dict[str, int]
) -> None:
    body = prepared(preset, endpoint, bound=9, **clients)
    assert {name: value for name, value in body.items() if "tokens" in name} == expected


@pytest.mark.parametrize("preset", PRESETS)
def test_a_stream_is_asked_for_its_usage_where_the_vendor_knows_the_question(preset: PresetName) -> None:
    options = prepared(preset, stream=True, stream_options={"include_usage": False}).get("stream_options")
    assert options == (None if preset == "mistral" else {"include_usage": True})


def error(message: str = "No.", **more: Any) -> bytes:
    return json.dumps({"error": {"message": message, **more}}).encode()


OURS: list[tuple[PresetName, int, bytes]] = [
    ("openai", 401, error()),
    ("openai", 403, error()),
    ("openai", 404, error("The model gpt-9 does not exist.")),
    ("openai", 429, error(type="insufficient_quota", code="credit_balance_exhausted")),
    ("azure-openai", 429, error(code="insufficient_quota")),
    ("anthropic", 400, error("Your credit balance is too low to access the API.", type="invalid_request_error")),
    ("anthropic", 402, error(type="billing_error")),
    ("together", 402, error()),
    ("mistral", 401, b'{"message":"Unauthorized"}'),
]


@pytest.mark.parametrize(("preset", "status", "body"), OURS)
async def test_an_error_about_our_account_goes_to_the_next_route_and_never_to_the_client(
    side: Side, preset: PresetName, status: int, body: bytes
) -> None:
    async with Scripted(answer(body, status=status)).listening() as there, Scripted(answer()).listening() as other:
        route = a_route(there, "ups_1", dialect=PRESETS[preset].dialect)
        with pytest.raises(UpstreamUnavailable):
            await side.plain([route])
        assert await side.plain([route, a_route(other, "ups_2", priority=200)]) == COMPLETION


@pytest.mark.parametrize(
    ("preset", "status", "told"), [("groq", 400, 400), ("together", 403, 400), ("openai", 400, 400), ("groq", 429, 429)]
)
async def test_an_error_about_the_request_goes_to_the_client_without_our_account(
    side: Side, preset: PresetName, status: int, told: int
) -> None:
    body = error("Too much for org-AbC123456789 in proj_0123456789.", type="tokens", code="rate_limit_exceeded")
    async with Scripted(answer(body, "retry-after: 60", status=status)).listening() as there:
        reply = await side.upstreams.open(a_call(a_route(there, "ups_1", dialect=PRESETS[preset].dialect)))
    assert isinstance(reply, Refused)
    assert reply.status == told
    assert json.loads(reply.body)["error"]["message"] == "Too much for [account] in [account]."


async def test_a_vendor_without_capacity_is_busy(side: Side) -> None:
    plays = Scripted(answer(b"", "retry-after: 60", status=498))
    async with plays.listening() as there, Scripted(answer()).listening() as other:
        groq = a_route(there, "ups_1", dialect="groq")
        with pytest.raises(UpstreamBusy):
            await side.plain([groq])
        assert await side.plain([groq, a_route(other, "ups_2", priority=200)]) == COMPLETION


async def test_a_vendor_is_not_asked_again_for_what_it_may_have_billed(side: Side) -> None:
    async with Scripted(cut).listening() as there, Scripted(answer()).listening() as other:
        with pytest.raises(UpstreamCut):
            await side.plain([a_route(there, "ups_1", dialect="groq"), a_route(other, "ups_2", priority=200)])
        assert (len(there.seen), len(other.seen)) == (1, 0)


async def test_a_second_model_of_a_vendor_is_tried_after_the_first(side: Side) -> None:
    async with Scripted(answer(error(), status=500), answer()).listening() as there:
        routes = [a_route(there, "ups_1", model, dialect="groq", priority=place) for place, model in enumerate("ab")]
        assert await side.plain(routes) == COMPLETION
        assert [line.document["model"] for line in there.seen] == ["a", "b"]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_complete(preset: PresetName) -> None:
    made = PRESETS[preset]
    assert made.dialect in DIALECTS
    assert made.secret_name.startswith("UPSTREAM_")
    assert (made.base_url or made.example_url or "").startswith("https://")
    assert made.documentation.startswith("https://")
