"""Models, generations, keys, credits and the ledger."""

from decimal import Decimal
from typing import Any

import httpx
import pytest

from sandbox.serving import Clock, a_chat, a_sandbox, entry, exact, get, in_process, post
from tollgate.sandbox.faults import DEFAULTS

REQUIRED_OF_MODELS = {
    *("id", "canonical_slug", "name", "created", "description", "pricing", "context_length", "architecture"),
    *("top_provider", "per_request_limits", "supported_parameters", "default_parameters", "supported_voices"),
    *("links", "expiration_date", "hugging_face_id", "knowledge_cutoff"),
}
REQUIRED_OF_ENDPOINTS = {
    *("name", "model_id", "model_name", "context_length", "pricing", "provider_name", "tag", "quantization"),
    *("max_completion_tokens", "max_prompt_tokens", "supported_parameters", "uptime_last_30m", "uptime_last_5m"),
    *("uptime_last_1d", "supports_implicit_caching", "latency_last_30m", "throughput_last_30m", "status"),
    *("supports_tool_choice", "supports_diarization", "native_tools", "service_tier"),
}
REQUIRED_OF_GENERATIONS = {
    *("id", "upstream_id", "total_cost", "cache_discount", "upstream_inference_cost", "created_at", "model", "app_id"),
    *("streamed", "cancelled", "provider_name", "latency", "moderation_latency", "generation_time", "finish_reason"),
    *("service_tier", "tokens_prompt", "tokens_completion", "native_tokens_prompt", "native_tokens_completion"),
    *("native_tokens_completion_images", "native_tokens_reasoning", "native_tokens_cached", "num_media_prompt"),
    *("num_input_audio_prompt", "num_media_completion", "num_search_results", "num_fetches", "web_search_engine"),
    *("origin", "usage", "is_byok", "native_finish_reason", "external_user", "api_type", "preset_id", "router"),
    *("provider_responses", "user_agent", "http_referer", "data_region", "workspace_id"),
}
EVERY_LOOKUP = ["models", "embeddings/models", "model/sandbox/echo", "models/sandbox/echo/endpoints", "key", "credits"]


async def models(sandbox: Any = None, **query: Any) -> dict[str, Any]:
    page = (await get(sandbox or a_sandbox(), "/api/v1/models", **query)).json()
    return {model["id"]: model for model in page["data"]}


async def test_every_model_has_all_that_openrouter_promises() -> None:
    listed = await models(output_modalities="all")
    assert len(listed) == 18
    for model in listed.values():
        assert set(model) >= REQUIRED_OF_MODELS
        assert {"modality", "input_modalities", "output_modalities", "tokenizer", "instruct_type"} == set(
            model["architecture"]
        )
        assert {"context_length", "max_completion_tokens", "is_moderated"} == set(model["top_provider"])
        assert all(isinstance(price, str) for name, price in model["pricing"].items() if name != "overrides")


async def test_the_catalogue_has_its_traps() -> None:
    listed = await models(output_modalities="all")
    assert listed["sandbox/router"]["pricing"] == {"prompt": "-1", "completion": "-1"}
    assert listed["sandbox/free:free"]["pricing"]["prompt"] == "0"
    assert listed["sandbox/old"]["expiration_date"] < "2026"
    assert listed["sandbox/long-context"]["pricing"]["overrides"][0]["min_prompt_tokens"] == 1000
    assert listed["~sandbox/echo-latest"]["alias_target"] == {"slug": "sandbox/echo", "name": "Sandbox: Echo"}
    assert listed["sandbox/reasoner"]["reasoning"]["mandatory"] is False


async def test_embedding_models_are_listed_only_when_asked_for() -> None:
    assert "sandbox/embed" not in await models()
    assert set(await models(output_modalities="embeddings")) == {"sandbox/embed"}
    page = (await get(a_sandbox(), "/api/v1/embeddings/models")).json()
    assert [model["id"] for model in page["data"]] == ["sandbox/embed"]


async def test_pages_follow_each_other() -> None:
    sandbox = a_sandbox()
    seen: list[str] = []
    path: str | None = "/api/v1/models?limit=5"
    while path:
        page = (await get(sandbox, path)).json()
        assert page["total_count"] == 11
        seen += [model["id"] for model in page["data"]]
        path = page["links"]["next"]
    assert seen == list(await models(sandbox))
    assert (await get(sandbox, "/api/v1/models?limit=-1")).status_code == 400


async def test_one_model_is_found_by_any_of_its_names() -> None:
    sandbox = a_sandbox()
    for name in ("sandbox/echo", "sandbox/echo:nitro", "~sandbox/echo-latest", "sandbox/fault-cut"):
        assert (await get(sandbox, f"/api/v1/model/{name}")).json()["data"]["id"] == "sandbox/echo"
    assert (await get(sandbox, "/api/v1/model/sandbox/router")).json()["data"]["id"] == "sandbox/router"
    assert (await get(sandbox, "/api/v1/model/sandbox/nothing")).status_code == 404


async def test_endpoints_have_prices_of_their_own() -> None:
    sandbox = a_sandbox()
    shown = (await get(sandbox, "/api/v1/models/sandbox/cached/endpoints")).json()["data"]
    (endpoint,) = shown["endpoints"]
    assert set(endpoint) >= REQUIRED_OF_ENDPOINTS
    assert endpoint["pricing"]["input_cache_read"] == "0.0000000375"
    assert endpoint["supports_implicit_caching"] is True
    assert (await get(sandbox, "/api/v1/models/sandbox/router/endpoints")).json()["data"]["endpoints"] == []


async def test_faults_can_be_listed_as_models() -> None:
    sandbox = a_sandbox(list_faults=True)
    listed = await models(sandbox)
    assert {f"sandbox/fault-{name}" for name in DEFAULTS} <= set(listed)
    assert listed["sandbox/fault-cut"]["pricing"] == listed["sandbox/echo"]["pricing"]
    shown = await get(sandbox, "/api/v1/model/sandbox/fault-cut")
    assert shown.json()["data"]["id"] == "sandbox/fault-cut"


async def test_a_generation_is_known_only_after_a_while() -> None:
    clock = Clock()
    sandbox = a_sandbox(clock, generation_delay_seconds=5)
    answered = exact((await post(sandbox, a_chat("hello", user="user-7"))).text)
    query = {"id": answered["id"]}
    assert (await get(sandbox, "/api/v1/generation", **query)).status_code == 404
    clock.now += 4.9
    assert (await get(sandbox, "/api/v1/generation", **query)).status_code == 404
    clock.now += 0.2
    found = exact((await get(sandbox, "/api/v1/generation", **query)).text)["data"]
    assert set(found) >= REQUIRED_OF_GENERATIONS
    assert found["total_cost"] == found["usage"] == answered["usage"]["cost"]
    assert (found["tokens_prompt"], found["tokens_completion"]) == (6, 2)
    assert (found["model"], found["external_user"], found["finish_reason"]) == ("sandbox/echo", "user-7", "stop")
    assert found["created_at"] == "2025-06-15T15:06:40+00:00"
    assert (found["cancelled"], found["streamed"], found["router"]) == (False, False, None)


async def test_a_routers_generation_names_both_models() -> None:
    sandbox = a_sandbox(generation_delay_seconds=0)
    answered = (await post(sandbox, a_chat(model="sandbox/router"))).json()
    found = (await get(sandbox, "/api/v1/generation", id=answered["id"])).json()["data"]
    assert (found["router"], found["model"]) == ("sandbox/router", "sandbox/echo")


async def test_an_unknown_generation_is_not_found() -> None:
    assert (await get(a_sandbox(), "/api/v1/generation", id="gen-1")).status_code == 404
    assert (await get(a_sandbox(), "/api/v1/generation")).status_code == 404


async def test_the_ledger_keeps_who_asked_for_what_and_what_it_cost() -> None:
    sandbox = a_sandbox()
    async with in_process(sandbox) as http:
        body = a_chat("hello", user="u", max_tokens=9, metadata={"a": "b"})
        answered = await http.post("/api/v1/chat/completions", json=body, headers={"x-title": "Tollgate"})
    kept = await entry(sandbox)
    assert kept["id"] == answered.json()["id"]
    assert (kept["cost"], kept["cost_nanos"], kept["owed_nanos"]) == ("0.000004", 4000, 4000)
    assert (kept["prompt_tokens"], kept["completion_tokens"]) == (6, 2)
    assert (kept["external_user"], kept["cancelled"], kept["streamed"]) == ("u", False, False)
    assert kept["parameters"] == {key: value for key, value in body.items() if key != "messages"}
    assert kept["headers"]["x-title"] == "Tollgate"
    assert "authorization" not in kept["headers"]
    assert kept["key"] == "test"


async def test_the_sums_are_of_all_generations_also_of_those_no_longer_kept() -> None:
    sandbox = a_sandbox(kept_generations=2)
    for _ in range(5):
        await post(sandbox, a_chat("hello"))
    shown = (await get(sandbox, "/sandbox/ledger")).json()
    assert (shown["owed_nanos"], shown["cost"], len(shown["generations"])) == (20_000, "0.00002", 2)
    assert sandbox.ledger.owed_nanos == 20_000


async def test_a_fraction_of_a_nano_is_owed_as_a_whole_one() -> None:
    sandbox = a_sandbox()
    for _ in range(2):
        await post(sandbox, a_chat("x" * 4 * 253, "sandbox/cached", max_tokens=1))
    kept = (await get(sandbox, "/sandbox/ledger")).json()["generations"][1]
    assert kept["cached_tokens"] == 257
    assert (kept["cost"], kept["cost_nanos"]) == ("0.0000111375", 11_138)


async def test_reset_forgets_everything() -> None:
    sandbox = a_sandbox()
    answered = (await post(sandbox, a_chat("x" * 2000, "sandbox/cached"))).json()
    async with in_process(sandbox) as http:
        assert (await http.post("/sandbox/reset")).status_code == 204
    assert (await get(sandbox, "/sandbox/ledger")).json() == {
        "held": 0,
        "owed_nanos": 0,
        "cost": "0",
        "generations": [],
    }
    assert (await get(sandbox, "/api/v1/generation", id=answered["id"])).status_code == 404
    again = (await post(sandbox, a_chat("x" * 2000, "sandbox/cached"))).json()
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


async def test_key_and_credits_show_what_was_used() -> None:
    sandbox = a_sandbox()
    await post(sandbox, a_chat("hello"))
    key = exact((await get(sandbox, "/api/v1/key")).text)["data"]
    bought = exact((await get(sandbox, "/api/v1/credits")).text)["data"]
    assert key["usage"] == key["usage_monthly"] == bought["total_usage"] == Decimal("0.000004")
    assert key["limit"] is None
    assert bought["total_credits"] == 1000


@pytest.mark.parametrize("path", [*EVERY_LOOKUP, "generation?id=x"])
async def test_every_lookup_wants_a_key(path: str) -> None:
    for headers in ({}, {"authorization": "Basic x"}, {"authorization": "Bearer "}):
        answered = await bare("GET", path, headers)
        error = answered.json()["error"]
        assert (answered.status_code, error["code"]) == (401, 401)
        assert error["message"] == "Missing Authentication header"
    refused = await bare("GET", path, {"authorization": "bearer sandbox-refuses-me"})
    assert (refused.status_code, refused.json()["error"]["message"]) == (401, "User not found.")


@pytest.mark.parametrize("path", ["chat/completions", "completions", "embeddings"])
async def test_every_paid_endpoint_wants_a_key(path: str) -> None:
    assert (await bare("POST", path, {})).status_code == 401
    assert (await bare("POST", path, {"authorization": "Bearer sandbox-refuses-me"})).status_code == 401


@pytest.mark.parametrize("path", EVERY_LOOKUP)
async def test_every_lookup_answers_a_key(path: str) -> None:
    answered = await get(a_sandbox(), f"/api/v1/{path}")
    assert answered.status_code == 200
    assert "data" in answered.json()


async def test_an_unknown_path_is_refused_in_the_same_shape() -> None:
    answered = await get(a_sandbox(), "/api/v1/nothing")
    assert (answered.status_code, answered.json()["error"]["code"]) == (404, 404)


async def bare(method: str, path: str, headers: dict[str, str]) -> httpx.Response:
    transport = httpx.ASGITransport(a_sandbox())
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox.test", headers=headers) as http:
        return await http.request(method, f"/api/v1/{path}")


async def test_activity_states_the_days_that_are_over_by_key_and_model() -> None:
    clock = Clock()
    sandbox = a_sandbox(clock)
    await post(sandbox, a_chat())
    await post(sandbox, a_chat(), fault="corrected=3")
    await post(sandbox, a_chat(model="sandbox/words"), fault="byok")
    assert (await get(sandbox, "/api/v1/activity")).json() == {"data": []}
    clock.now += 86_400
    (echo, words) = exact((await get(sandbox, "/api/v1/activity")).text)["data"]
    generations = (await get(sandbox, "/sandbox/ledger")).json()["generations"]
    one, _, of_vendor = (Decimal(each["cost"]) for each in generations)
    assert (echo["date"], echo["model"], echo["requests"], echo["usage"]) == ("2025-06-15", "sandbox/echo", 2, 4 * one)
    assert words["usage"] == of_vendor
    assert words["byok_usage_inference"] == Decimal(generations[2]["upstream_inference_cost"])
    for query, rows in [({"date": "2025-06-14"}, 0), ({"api_key_hash": "0" * 64}, 0), ({"date": "2025-06-15"}, 2)]:
        assert len((await get(sandbox, "/api/v1/activity", **query)).json()["data"]) == rows
