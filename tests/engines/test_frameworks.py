"""Frameworks and further clients before real inference servers and the sandbox. `make test-engines` installs them."""

import json
import os
from typing import Any

import anyio
import pytest

from completions.stage import Stage
from engines.conftest import OURS, TRANSLATED, charged
from engines.test_engines import CUSTOM_WEATHER, PLACE, SAID, TEXT, WEATHER
from engines.tiny_model import ARGUMENTS, SAYS
from people import Person
from servers.postgres import PACKAGES

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*:UserWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # they leave connections open
]

WEATHER_TOLD = "It rains."
SANDBOX = "sandbox/tools"
"""In OpenRouter's place."""
EVERY_MODEL = pytest.mark.parametrize("model", [OURS, TRANSLATED, SANDBOX])


def said_by(model: str) -> tuple[str, dict[str, str], str]:
    """What it says, how it calls a tool, and what it says of what the tool gave."""
    return (TEXT, {"city": TEXT}, WEATHER_TOLD) if model == SANDBOX else (SAYS, ARGUMENTS, SAYS)


@EVERY_MODEL
@pytest.mark.parametrize("kind", ["openai", "openai with responses", "anthropic"])
@pytest.mark.parametrize("way", ["text", "stream", "tool"])
async def test_langchain(stage: Stage, someone: Person, model: str, kind: str, way: str) -> None:
    from langchain_anthropic import ChatAnthropic  # noqa: PLC0415
    from langchain_openai import ChatOpenAI  # noqa: PLC0415

    key, address = someone.secret, stage.gateway.address
    made: Any = (
        ChatAnthropic(model=model, api_key=key, base_url=address, max_retries=0, max_tokens=100)
        if kind == "anthropic"
        else ChatOpenAI(
            model=model, api_key=key, base_url=f"{address}/v1", max_retries=0, stream_usage=True,
            use_responses_api=kind.endswith("responses"),
        )
    )  # fmt: skip
    says, arguments, _ = said_by(model)
    if way == "tool":
        answer = made.bind_tools([CUSTOM_WEATHER if kind == "anthropic" else WEATHER]).invoke(TEXT)
        assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("weather", arguments)]
    elif way == "stream":
        first, *rest = made.stream(TEXT)
        answer = sum(rest, first)
        assert answer.text == says
    else:
        answer = made.invoke(TEXT)
        assert answer.text == says
    row = await charged(stage, someone)
    usage = answer.usage_metadata
    assert usage["output_tokens"] == row["completion_tokens"]
    if (kind, way) != ("anthropic", "stream"):  # it takes them from the last event, where llama.cpp states none
        assert usage["input_tokens"] == row["prompt_tokens"]


@EVERY_MODEL
@pytest.mark.parametrize("kind", ["OpenAIChatModel", "OpenAIResponsesModel"])
async def test_pydantic_ai_runs_an_agent_with_a_tool(stage: Stage, someone: Person, model: str, kind: str) -> None:
    """Two calls: the model asks for the tool, and speaks of what it gave."""
    from pydantic_ai import Agent  # noqa: PLC0415
    from pydantic_ai.models import openai  # noqa: PLC0415
    from pydantic_ai.providers.openai import OpenAIProvider  # noqa: PLC0415

    provider = OpenAIProvider(api_key=someone.secret, base_url=f"{stage.gateway.address}/v1")
    agent: Any = Agent(getattr(openai, kind)(model, provider=provider))
    asked: list[str] = []

    @agent.tool_plain
    def weather(city: str) -> str:
        asked.append(city)
        return WEATHER_TOLD

    _, arguments, says = said_by(model)
    result = await agent.run(TEXT)
    assert (asked, result.output) == ([arguments["city"]], says)
    rows = await stage.rows(someone)
    assert [row["state"] for row in rows] == ["settled"] * 2
    usage = result.usage() if callable(result.usage) else result.usage
    assert usage.output_tokens == sum(row["completion_tokens"] for row in rows)


@EVERY_MODEL
@pytest.mark.parametrize("provider", ["openai", "openrouter", "anthropic"])
async def test_litellm(stage: Stage, someone: Person, model: str, provider: str) -> None:
    import litellm  # noqa: PLC0415

    base = stage.gateway.address + {"openai": "/v1", "openrouter": "/api/v1", "anthropic": ""}[provider]
    asked = {"model": f"{provider}/{model}", "api_base": base, "api_key": someone.secret, "max_retries": 0}
    answer = litellm.completion(**asked, messages=SAID, max_tokens=100)
    says = said_by(model)[0]
    assert answer.choices[0].message.content == says
    row = await charged(stage, someone)
    counts = (row["prompt_tokens"], row["completion_tokens"])
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == counts
    chunks = list(litellm.completion(**asked, messages=SAID, max_tokens=100, stream=True))
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == says


@EVERY_MODEL
async def test_vercels_sdk(stage: Stage, someone: Person, model: str) -> None:
    """By each provider, as text, as a stream and with a tool."""
    tools = {"tools": {"name": "weather", "description": "The weather.", "parameters": PLACE}}
    calls = {
        f"{provider} {kind} {'tool' if more else 'text'}": {
            "provider": provider, "kind": kind, "model": model, "asked": {"prompt": TEXT, **more}
        }
        for provider in ("openrouter", "openai", "openai.chat", "anthropic")
        for kind in ("complete", "stream")
        for more in ({}, tools)
    }  # fmt: skip
    order = {"address": stage.gateway.address, "keys": {"rich": someone.secret}, "calls": calls}
    program = str(PACKAGES.parent / "ai_sdk.mjs")
    told = await anyio.run_process(
        ["node", program], input=json.dumps(order).encode(), env={"PATH": os.environ["PATH"]}
    )
    report = json.loads(told.stdout)
    says, arguments, _ = said_by(model)
    for name, said in report.items():
        assert "error" not in said, (name, said)
        if name.endswith("tool"):
            assert said["calls"] == [{"name": "weather", "input": arguments}], name
        else:
            assert said["text"] == says, name
    rows = await stage.rows(someone)
    assert [row["state"] for row in rows] == ["settled"] * len(calls)
    assert await stage.charged(someone) == sum(row["charge_nanos"] for row in rows)
