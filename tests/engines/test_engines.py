"""Official clients before real inference servers: all that a server says comes through, charged by its counts."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from completions.paid import Line
from completions.stage import Stage
from engines.conftest import OURS, PRICING, TRANSLATED, Said, charged, serves
from engines.tiny_model import ARGUMENTS, ENDLESS, SAYS, THINKING, THINKS
from people import Person
from servers.engines import KEY, MODEL, Engine, llamacpp
from servers.process import free_port
from tollgate.core.money import NANOS_PER_CREDIT

pytestmark = pytest.mark.slow

PROOF = Path(__file__).parents[2] / "tools" / "prove_self_hosted.py"

TEXT = "Tell me about the sea"
SAID = [{"role": "user", "content": TEXT}]
PLACE = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": PLACE}}
FLAT_WEATHER = {"type": "function", "name": "weather", "description": "The weather.", "parameters": PLACE}
CUSTOM_WEATHER = {"name": "weather", "description": "The weather.", "input_schema": PLACE}
THINK = [{"role": "user", "content": f"{THINKING} of the sea"}]

Clients = Callable[[str, str], Any]
Ask = Callable[[Any, str], Said]


def of_chat(message: Any, usage: Any) -> Said:
    calls = [(one.function.name, json.loads(one.function.arguments)) for one in message.tool_calls or ()]
    thought = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None) or ""
    cached = usage.prompt_tokens_details.cached_tokens or 0 if usage.prompt_tokens_details else 0
    counts = (usage.prompt_tokens, usage.completion_tokens, cached)
    return Said(message.content or "", thought, calls[0] if calls else None, *counts)


def chat(client: Any, model: str, **more: Any) -> Said:
    answer = client.chat.completions.create(model=model, **{"messages": SAID, **more})
    return of_chat(answer.choices[0].message, answer.usage)


def streamed_chat(client: Any, model: str, **more: Any) -> Said:
    asked = {"messages": SAID, "stream_options": {"include_usage": True}, **more}
    with client.chat.completions.stream(model=model, **asked) as stream:
        answer = stream.get_final_completion()
    return of_chat(answer.choices[0].message, answer.usage)


def completion(client: Any, model: str) -> Said:
    answer = client.completions.create(model=model, prompt=TEXT, max_tokens=40)
    return Said(answer.choices[0].text, "", None, *of_tokens(answer.usage))


def streamed_completion(client: Any, model: str) -> Said:
    asked = {"prompt": TEXT, "max_tokens": 40, "stream_options": {"include_usage": True}}
    chunks = list(client.completions.create(model=model, stream=True, **asked))
    text = "".join(one.text for chunk in chunks for one in chunk.choices)
    return Said(text, "", None, *of_tokens(next(chunk.usage for chunk in chunks if chunk.usage)))


def of_tokens(usage: Any) -> tuple[int, int, int]:
    cached = usage.prompt_tokens_details.cached_tokens or 0 if usage.prompt_tokens_details else 0
    return usage.prompt_tokens, usage.completion_tokens, cached


def response(client: Any, model: str, **more: Any) -> Said:
    return of_response(client.responses.create(model=model, **{"input": TEXT, **more}))


def streamed_response(client: Any, model: str, **more: Any) -> Said:
    with client.responses.stream(model=model, **{"input": TEXT, **more}) as stream:
        stream.until_done()
        return of_response(stream.get_final_response())


def of_response(answer: Any) -> Said:
    calls = [(one.name, json.loads(one.arguments)) for one in answer.output if one.type == "function_call"]
    thoughts = [part.text for one in answer.output if one.type == "reasoning" for part in one.content or one.summary]
    usage = answer.usage
    counts = (usage.input_tokens, usage.output_tokens, usage.input_tokens_details.cached_tokens or 0)
    return Said(answer.output_text, "".join(thoughts), calls[0] if calls else None, *counts)


def message(client: Any, model: str, **more: Any) -> Said:
    return of_message(client.messages.create(model=model, max_tokens=200, **{"messages": SAID, **more}))


def streamed_message(client: Any, model: str, **more: Any) -> Said:
    with client.messages.stream(model=model, max_tokens=200, **{"messages": SAID, **more}) as stream:
        return of_message(stream.get_final_message())


def of_message(answer: Any) -> Said:
    blocks = {block.type: block for block in answer.content}
    call = blocks.get("tool_use")
    usage = answer.usage
    cached = usage.cache_read_input_tokens or 0
    return Said(
        blocks["text"].text if "text" in blocks else "",
        blocks["thinking"].thinking if "thinking" in blocks else "",
        (call.name, call.input) if call else None,
        usage.input_tokens + cached,
        usage.output_tokens,
        cached,
    )


SAYING = {"text": SAYS}
CALLING = {"call": ("weather", ARGUMENTS)}
REASONING = {"text": SAYS, "thought": THINKS}
ASKS: dict[str, tuple[str, Ask, dict[str, Any], dict[str, Any]]] = {
    "chat": ("openai", chat, {}, SAYING),
    "chat, streamed": ("openai", streamed_chat, {}, SAYING),
    "chat with a tool": ("openai", chat, {"tools": [WEATHER]}, CALLING),
    "chat with a tool, streamed": ("openai", streamed_chat, {"tools": [WEATHER]}, CALLING),
    "chat with a thought": ("openai", chat, {"messages": THINK}, REASONING),
    "chat with a thought, streamed": ("openai", streamed_chat, {"messages": THINK}, REASONING),
    "completion": ("openai", completion, {}, SAYING),
    "completion, streamed": ("openai", streamed_completion, {}, SAYING),
    "response": ("openai", response, {}, SAYING),
    "response, streamed": ("openai", streamed_response, {}, SAYING),
    "response with a tool": ("openai", response, {"tools": [FLAT_WEATHER]}, CALLING),
    "response with a tool, streamed": ("openai", streamed_response, {"tools": [FLAT_WEATHER]}, CALLING),
    "response with a thought": ("openai", response, {"input": THINK}, REASONING),
    "message": ("anthropic", message, {}, SAYING),
    "message, streamed": ("anthropic", streamed_message, {}, SAYING),
    "message with a tool": ("anthropic", message, {"tools": [CUSTOM_WEATHER]}, CALLING),
    "message with a tool, streamed": ("anthropic", streamed_message, {"tools": [CUSTOM_WEATHER]}, CALLING),
    "message with a thought": ("anthropic", message, {"messages": THINK}, REASONING),
}
"""By which client, how, with what, and what the model says to it."""
DIRECTLY: dict[Ask, Ask] = {streamed_response: response}
"""OpenAI's client cannot read the streamed responses of llama.cpp."""


@pytest.fixture(scope="module")
def clients() -> dict[str, Clients]:
    """Imported where they are used: in processes that test something else they would cost seconds."""
    import anthropic  # noqa: PLC0415
    import openai  # noqa: PLC0415

    return {
        "openai": lambda address, key: openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0),
        "anthropic": lambda address, key: anthropic.Anthropic(base_url=address, api_key=key, max_retries=0),
    }


@pytest.mark.parametrize(
    ("name", "model"),
    [
        *((name, OURS) for name in ASKS),
        *((name, TRANSLATED) for name in ASKS if not name.startswith(("chat", "compl"))),
    ],
)
async def test_nothing_is_lost_and_the_servers_own_counts_are_charged(
    name: str, model: str, engine: Engine, stage: Stage, someone: Person, clients: dict[str, Clients]
) -> None:
    client, ask, more, expected = ASKS[name]
    with clients[client](engine.address, KEY) as made:
        direct = DIRECTLY.get(ask, ask)(made, MODEL, **more)
    with clients[client](stage.gateway.address, someone.secret) as made:
        through = ask(made, model, **more)
    assert through == direct
    if engine.dialect == "vllm" and "thought" in expected:  # its parsers of thoughts are made for one model each
        expected = {"text": f"<think>{THINKS}</think>{SAYS}"}
    assert {said: getattr(through, said) for said in expected} == expected
    row = await charged(stage, someone)
    assert (row["charge_nanos"], row["estimated"]) == (through.cost_nanos, False)


async def test_what_is_embedded_comes_through(
    engine: Engine, stage: Stage, someone: Person, clients: dict[str, Clients]
) -> None:
    if engine.dialect == "vllm":
        pytest.skip("It embeds with other models than those it chats with.")
    made = []
    for address, key, model in ((engine.address, KEY, MODEL), (stage.gateway.address, someone.secret, OURS)):
        with clients["openai"](address, key) as client:
            made.append(client.embeddings.create(model=model, input=[TEXT, "the land"]))
    assert [one.embedding for one in made[1].data] == [one.embedding for one in made[0].data]
    assert made[1].usage == made[0].usage
    row = await charged(stage, someone)
    assert row["charge_nanos"] == Said(prompt_tokens=made[1].usage.prompt_tokens).cost_nanos


async def test_openrouters_client(stage: Stage, someone: Person) -> None:
    import openrouter  # noqa: PLC0415

    with openrouter.OpenRouter(api_key=someone.secret, server_url=f"{stage.gateway.address}/api/v1") as client:
        answer = client.chat.send(model=OURS, messages=SAID)
        assert answer.choices[0].message.content == SAYS
        row = await charged(stage, someone)
        assert answer.usage.completion_tokens == row["completion_tokens"]
        with client.chat.send(model=OURS, messages=SAID, stream=True) as stream:
            said = "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices)
        assert said == SAYS


async def test_tokens_are_counted_as_the_server_counts_them(
    engine: Engine, stage: Stage, someone: Person, clients: dict[str, Clients]
) -> None:
    counted = []
    for address, key, model in ((engine.address, KEY, MODEL), (stage.gateway.address, someone.secret, OURS)):
        with clients["anthropic"](address, key) as client:
            counted.append(
                client.messages.count_tokens(model=model, messages=SAID, tools=[CUSTOM_WEATHER]).input_tokens
            )
    assert counted[0] == counted[1] > 0
    assert await stage.money(someone) == (NANOS_PER_CREDIT, 0)


@pytest.mark.parametrize(
    "more",
    [{"temperature": "hot"}, {"messages": [{"role": "user", "content": "sea " * 2000}]}],
    ids=["a wrong type", "too long"],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_mistake_is_told_in_the_servers_words_and_costs_nothing(
    more: dict[str, Any], stream: bool, engine: Engine, stage: Stage, someone: Person, clients: dict[str, Clients]
) -> None:
    """llama.cpp answers some with 500. Its clients get 400, so that they do not try again."""
    asked = {"messages": SAID, "max_tokens": 16, "stream": stream, **more}
    own_key = {"authorization": f"Bearer {KEY}"}
    direct = await stage.http.post(f"{engine.url}/chat/completions", json={"model": MODEL, **asked}, headers=own_key)
    through = await stage.post(someone, {"model": OURS, **asked})
    assert through.json()["error"]["message"] == direct.json()["error"]["message"]
    assert (through.status_code, direct.status_code >= 400) == (400, True)
    assert await stage.money(someone) == (NANOS_PER_CREDIT, 0)


async def test_a_server_that_dies_in_mid_stream_is_paid_for_what_it_said(
    stage: Stage, someone: Person, clients: dict[str, Clients], tmp_path: Path
) -> None:
    with llamacpp(tmp_path) as mortal:
        await serves(stage, mortal.url, "engines/mortal", "llamacpp", MODEL, PRICING)
        line = await Line.opened(stage.gateway.address)
        body = {"model": "engines/mortal", "messages": [{"role": "user", "content": ENDLESS}], "max_tokens": 3000}
        await line.ask(someone, {**body, "stream": True}, connection="close")
        said = await line.until(b'"content":" 20"')
        os.kill(mortal.pid, signal.SIGKILL)
        assert b'"upstream_cut"' in await line.reader.read()
        line.hang_up()
    row = await charged(stage, someone)
    assert row["estimated"]
    assert row["completion_tokens"] >= said.count(b'"content":" ')
    assert row["error_code"] == "upstream_cut"


async def test_the_tool_that_proves_a_server_proves_this_one(engine: Engine, own_database: str) -> None:
    """Cut streams and mistakes are among what it tries."""
    server = ("--dialect", engine.dialect, "--url", engine.url, "--model", MODEL, "--database", own_database)
    more = ("--embeddings",) if engine.dialect == "llamacpp" else ()
    environment = {**os.environ, "UPSTREAM_KEY": KEY, "PORT": str(free_port())}
    told = await anyio.run_process([sys.executable, PROOF, *server, *more], env=environment, check=False)
    assert told.returncode == 0, told.stdout.decode()
    assert b"WRONG" not in told.stdout
