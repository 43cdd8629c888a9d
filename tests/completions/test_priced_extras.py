"""What a vendor bills beside tokens, through the whole server: held for, charged in full, or refused."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from completions.asks import MESSAGES, RESPONSES, asking
from completions.stage import Stage, before, erring, staged
from sandbox.serving import a_chat, until
from tollgate.core.money import NANOS_PER_CREDIT

FREE = "sandbox/free:free"
SEARCH = {"type": "openrouter:web_search", "parameters": {"engine": "exa"}}
EAGER = {"x-sandbox-fault": "tool-steps=30"}
PDF = b"%PDF-1.4 <</Type /Pages /Kids [" + b"1 0 R " * 12 + b"]>>" + b"<</Type /Page /Parent 2 0 R>>" * 12
FILE = {"file_data": "data:application/pdf;base64," + base64.b64encode(PDF).decode(), "filename": "a.pdf"}
READ = [{"role": "user", "content": [{"type": "text", "text": "Read"}, {"type": "file", "file": FILE}]}]

EXTRAS: dict[str, dict[str, Any]] = {
    "web plugin": {"plugins": [{"id": "web"}]},
    "web plugin, deep": {"plugins": [{"id": "web", "engine": "exa", "mode": "deep-reasoning", "max_results": 25}]},
    "web plugin, parallel": {"plugins": [{"id": "web", "engine": "parallel"}]},
    ":online": {"model": f"{FREE}:online"},
    "web_search_options": {"web_search_options": {"search_context_size": "high"}},
    "search tool": {"tools": [{"type": "openrouter:web_search"}]},
    "search tool, short": {"tools": [{"type": "web_search_preview", "engine": "exa", "max_results": 20}]},
    "search tool, many steps": {"tools": [SEARCH], "max_tool_calls": 30},
    "fetch tool": {"tools": [{"type": "openrouter:web_fetch"}]},
    "two tools": {"tools": [SEARCH, {"type": "openrouter:web_fetch"}, {"type": "openrouter:datetime"}]},
    "ocr": {"messages": READ, "plugins": [{"id": "file-parser", "pdf": {"engine": "mistral-ocr"}}]},
    "image tool": {"tools": [{"type": "openrouter:image_generation", "parameters": {"model": "sandbox/image"}}]},
}
NATIVE = {"type": "web_search_20250305", "name": "web_search"}
TYPED_EXTRAS: list[tuple[str, dict[str, Any]]] = [
    *(
        (path, EXTRAS[what])
        for path in (RESPONSES, MESSAGES)
        for what in ("web plugin", ":online", "search tool", "fetch tool", "two tools", "image tool")
    ),
    (RESPONSES, {"tools": [{"type": "web_search"}], "max_tool_calls": 30}),
    (MESSAGES, {"tools": [NATIVE]}),
    (MESSAGES, {"tools": [{**NATIVE, "type": "web_search_20260209", "max_uses": 12}]}),
    (MESSAGES, {"tools": [{**NATIVE, "max_uses": 1}, {"name": "look", "input_schema": {"type": "object"}}]}),
    (MESSAGES, {"tools": [SEARCH], "stop_server_tools_when": [{"type": "step_count_is", "step_count": 9}]}),
]
TYPED_UNPRICED: list[tuple[str, dict[str, Any]]] = [
    *(
        (RESPONSES, {"tools": [{"type": kind}]})
        for kind in ("code_interpreter", "file_search", "computer_use_preview", "mcp", "image_generation", "shell", "x")
    ),
    (RESPONSES, {"tools": [{"type": "namespace", "tools": [{"type": "web_search"}]}]}),
    (RESPONSES, {"context_management": [{"type": "compaction", "compact_threshold": 1000}]}),
    (RESPONSES, {"service_tier": "priority"}),
    *(
        (MESSAGES, {"tools": [{"type": kind, "name": "x"}]})
        for kind in ("code_execution_20250825", "computer_20250124", "web_fetch_20250910", "advisor_20260301", "x")
    ),
    (MESSAGES, {"context_management": {"edits": [{"type": "compact_20260112"}]}}),
    (MESSAGES, {"mcp_servers": [{"type": "url", "url": "https://x.test", "name": "x"}]}),
    (MESSAGES, {"container": {"skills": []}}),
    (MESSAGES, {"speed": "fast"}),
    (MESSAGES, {"inference_geo": "us"}),
]
UNPRICED: dict[str, dict[str, Any]] = {
    "a tool of next year": {"tools": [{"type": "openrouter:next_year"}]},
    "another's tool": {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
    "a plugin": {"plugins": [{"id": "fusion"}]},
    "an engine": {"plugins": [{"id": "web", "engine": "firecrawl"}]},
    "a linked file": {
        "messages": [{"role": "user", "content": [{"type": "file", "file": {"file_data": "https://x.test/a.pdf"}}]}],
        "plugins": [{"id": "file-parser", "pdf": {"engine": "mistral-ocr"}}],
    },
    "a preset": {"model": "@preset/support"},
    "a tier": {"service_tier": "priority"},
}
MODES = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture(scope="module")
async def stage(shared_database: str) -> AsyncIterator[Stage]:
    with erring([]) as sandbox, before(sandbox, shared_database) as gateway:
        async with staged(gateway, shared_database) as made:
            yield made


@MODES
@pytest.mark.parametrize("model", [FREE, "sandbox/echo"])
@pytest.mark.parametrize("extra", EXTRAS.values(), ids=EXTRAS)
async def test_an_extra_is_held_for_and_charged_in_full(
    stage: Stage, extra: dict[str, Any], model: str, stream: bool
) -> None:
    """However eager the model is to call its tools."""
    someone = await stage.customer(nanos=50 * NANOS_PER_CREDIT)
    owed_before = stage.gateway.upstream.owed_nanos
    named = {"model": extra["model"].replace(FREE, model)} if "model" in extra else {}
    answer = await stage.post(someone, {**a_chat("Hello", model, stream=stream), **extra, **named}, **EAGER)
    assert answer.status_code == 200, answer.text
    await until(stage.all_ended)
    owed, row = stage.gateway.upstream.owed_nanos - owed_before, await stage.row(someone)
    assert owed > 0
    assert (row["charge_nanos"], row["quarantined"]) == (owed, False)
    assert row["hold_nanos"] >= owed
    assert await stage.money(someone) == (50 * NANOS_PER_CREDIT - owed, 0)


@MODES
@pytest.mark.parametrize("model", [FREE, "sandbox/echo"])
@pytest.mark.parametrize(("path", "extra"), TYPED_EXTRAS)
async def test_an_extra_of_a_response_or_message_is_held_for_and_charged_in_full(
    stage: Stage, path: str, extra: dict[str, Any], model: str, stream: bool
) -> None:
    someone = await stage.customer(nanos=50 * NANOS_PER_CREDIT)
    owed_before = stage.gateway.upstream.owed_nanos
    named = {"model": extra["model"].replace(FREE, model)} if "model" in extra else {}
    body = {**asking(path, "Hello", model, stream=stream), **extra, **named}
    answer = await stage.post(someone, body, f"/v1{path}", **EAGER)
    assert answer.status_code == 200, answer.text
    await until(stage.all_ended)
    owed, row = stage.gateway.upstream.owed_nanos - owed_before, await stage.row(someone)
    assert owed > 0
    assert (row["charge_nanos"], row["quarantined"]) == (owed, False)
    assert row["hold_nanos"] >= owed


@pytest.mark.parametrize(("path", "extra"), TYPED_UNPRICED)
async def test_what_has_no_price_in_a_response_or_message_is_refused(
    stage: Stage, path: str, extra: dict[str, Any]
) -> None:
    someone = await stage.customer()
    generations = len(stage.gateway.upstream.generations())
    answer = await stage.post(someone, {**asking(path, "Hello", FREE), **extra}, f"/v1{path}")
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("extra_unpriced", next(iter(extra)))
    assert len(stage.gateway.upstream.generations()) == generations
    assert await stage.rows(someone) == []


@pytest.mark.parametrize(("path", "extra"), TYPED_EXTRAS)
async def test_who_has_nothing_gets_no_extra_in_a_response_or_message(
    stage: Stage, path: str, extra: dict[str, Any]
) -> None:
    someone = await stage.customer(nanos=0)
    answer = await stage.post(someone, {**asking(path, "Hello", FREE), **extra}, f"/v1{path}", **EAGER)
    assert (answer.status_code, answer.json()["error"]["code"]) == (402, "insufficient_credits")


@pytest.mark.parametrize("extra", EXTRAS.values(), ids=EXTRAS)
async def test_who_has_nothing_gets_no_extra_even_of_a_free_model(stage: Stage, extra: dict[str, Any]) -> None:
    someone = await stage.customer(nanos=0)
    generations = len(stage.gateway.upstream.generations())
    answer = await stage.post(someone, {**a_chat("Hello", FREE), **extra}, **EAGER)
    assert answer.status_code == 402
    assert answer.json()["error"]["code"] == "insufficient_credits"
    assert len(stage.gateway.upstream.generations()) == generations
    assert await stage.rows(someone) == []


async def test_who_has_nothing_may_run_what_is_free_and_asks_for_no_search(stage: Stage) -> None:
    someone = await stage.customer(nanos=0)
    answer = await stage.post(someone, a_chat("Hello", FREE))
    assert answer.status_code == 200
    assert stage.gateway.upstream.generations()[-1]["parameters"]["plugins"] == [{"id": "web", "enabled": False}]
    assert await stage.money(someone) == (0, 0)


async def test_a_loop_that_the_client_leaves_open_is_bounded_upstream(stage: Stage) -> None:
    someone = await stage.customer()
    await stage.post(someone, {**a_chat("Hello", FREE), "tools": [SEARCH]}, **EAGER)
    assert stage.gateway.upstream.generations()[-1]["parameters"]["max_tool_calls"] == 5
    assert (await stage.row(someone))["usage"]["server_tool_use_details"]["web_search_requests"] == 5


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"])
@pytest.mark.parametrize("extra", UNPRICED.values(), ids=UNPRICED)
async def test_what_has_no_price_is_refused_before_anything_is_held(
    stage: Stage, extra: dict[str, Any], path: str
) -> None:
    someone = await stage.customer()
    asked = {**a_chat("Hello", FREE), "prompt": "Hello", "input": "Hello", **extra}
    generations = len(stage.gateway.upstream.generations())
    answer = await stage.post(someone, asked, path)
    if "messages" in extra and "chat" not in path:
        return  # only a chat has files
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "extra_unpriced")
    assert error["extra"]
    assert error["param"] in asked
    assert len(stage.gateway.upstream.generations()) == generations
    assert await stage.rows(someone) == []


async def test_the_image_model_of_a_tool_must_be_allowed_too(stage: Stage) -> None:
    someone = await stage.customer()
    await stage.sql("update tollgate.api_keys set allowed_models = $1 where id = $2", [FREE], someone.key_id)
    answer = await stage.post(someone, {**a_chat("Hello", FREE), **EXTRAS["image tool"]})
    assert answer.status_code == 403
    assert answer.json()["error"]["model"] == "sandbox/image"


async def test_an_operator_prices_what_the_register_does_not(shared_database: str) -> None:
    prices = json.dumps({"tool:openrouter:shell": "0.05"})
    with erring([]) as sandbox, before(sandbox, shared_database, EXTRA_PRICES=prices) as gateway:
        async with staged(gateway, shared_database) as stage:
            poor, rich = await stage.customer(nanos=NANOS_PER_CREDIT // 5), await stage.customer()
            asked = {**a_chat("Hello", FREE), "tools": [{"type": "openrouter:shell"}]}
            assert (await stage.post(poor, asked)).json()["error"]["required_nanos"] == NANOS_PER_CREDIT // 4
            assert (await stage.post(rich, asked)).json()["error"]["message"].startswith("The sandbox has no")


@MODES
async def test_a_cost_far_beyond_the_hold_is_charged_in_full_once_the_record_confirms_it(
    stage: Stage, stream: bool
) -> None:
    """As when an account's defaults switch an extra on that nobody here could see."""
    someone = await stage.customer()
    owed_before = stage.gateway.upstream.owed_nanos
    fault = {"x-sandbox-fault": "cost-differs=5000"}
    await stage.post(someone, a_chat("Hello", stream=stream, max_tokens=1), **fault)
    await until(stage.all_ended)
    assert (await stage.row(someone))["state"] == "unsettled"
    await stage.sweep(someone)
    owed, row = stage.gateway.upstream.owed_nanos - owed_before, await stage.row(someone)
    assert owed > 10 * row["hold_nanos"]
    assert (row["state"], row["charge_nanos"], row["quarantined"]) == ("settled", owed, False)
