"""Self-hosted servers are paid for what they did, whenever their client leaves, and never more than the hold."""

import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import pytest

from completions.asks import COUNT, GENERATE, MESSAGES, RESPONSES, asking
from completions.paid import Line, eventually
from completions.stage import Row, Stage, before, staged
from gateway import CHAT, Upstream
from people import PEPPER, Person
from sandbox.serving import a_chat, chunks, serving
from tollgate import settings
from tollgate.app import create_app
from tollgate.catalog import store as catalog
from tollgate.completions import settlements, stream
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.keys.authentication import console
from tollgate.sandbox.app import create_sandbox
from tollgate.upstreams import store as upstreams
from upstreams.scripted import Line as Asked
from upstreams.scripted import Play, Scripted, answer, cut, hang, streamed

PRICE = 1000
"""Nanos for a token, in or out."""
PRICING = {"prompt": "0.000001", "completion": "0.000001"}
PROMPT_TOKENS = 20
CONTEXT_TOKENS = 4096
SILENT = ("openai", "llamacpp", "tgi")
"""The dialects that say their usage at the end only."""
EVERY = pytest.mark.parametrize("dialect", [*SILENT, "vllm", "sglang"])
EVERY_SILENT = pytest.mark.parametrize("dialect", SILENT)
WORDS = ["Nine", " crates", " of", " limes", ",", " 12", ".", " 東", "京", "\n"]


def event(**chunk: Any) -> bytes:
    return b"data: " + json.dumps({"id": "chatcmpl-1", "model": "ours", **chunk}).encode() + b"\n\n"


def usage(completion_tokens: int) -> dict[str, int]:
    return {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": completion_tokens}


def word(text: str, counted: int | None = None, **delta: Any) -> bytes:
    choices = [{"index": 0, "delta": {"content": text, **delta}, "finish_reason": None}]
    return event(choices=choices, **({} if counted is None else {"usage": usage(counted)}))


def words(dialect: str) -> list[bytes]:
    """A token each, but for the server that packs all into one event. The counts stand in each where the server does
    so."""
    if dialect == "openai":
        return [word("".join(WORDS))]
    counts = dialect in ("vllm", "sglang")
    return [word(text, place + 1 if counts else None) for place, text in enumerate(WORDS)]


STOP = event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
USAGE = event(choices=[], usage=usage(len(WORDS) + 1))
DONE = b"data: [DONE]\n\n"
WHOLE = (PROMPT_TOKENS + len(WORDS) + 1) * PRICE


@contextlib.asynccontextmanager
async def own_server(
    database: str, dialect: str, *plays: Play, **more: str
) -> AsyncIterator[tuple[Stage, Scripted, Person, dict[str, Any]]]:
    """Tollgate before a server of this dialect that plays these, and a customer with the body to ask it with."""
    async with Scripted(*plays).listening() as server:
        with serving(create_sandbox()) as address:
            upstream = Upstream(create_sandbox(), address)
            with before(upstream, database, PRIVATE_UPSTREAMS="true", **more) as gateway:
                async with staged(gateway, database) as stage:
                    operator = console(stage.door, "tests")
                    name = f"{dialect}-{server.port}"
                    made = await upstreams.make(
                        operator, {"name": name, "base_url": f"http://127.0.0.1:{server.port}/v1", "dialect": dialect}
                    )
                    route = {"model": f"ours/{name}", "upstream_id": made["id"], "pricing": PRICING}
                    await catalog.put_route(operator, {**route, "context_tokens": CONTEXT_TOKENS})
                    body = a_chat("Count what is there.", f"ours/{name}", stream=True, max_tokens=200)
                    yield stage, server, await stage.customer(), body


async def left(stage: Stage, someone: Person, body: Any, when: Callable[[Line], Any]) -> Row:
    """The row of a call whose client leaves then."""
    line = await Line.opened(stage.gateway.address)
    await line.ask(someone, body)
    await when(line)
    line.hang_up()
    return await ended(stage, someone)


async def ended(stage: Stage, someone: Person) -> Row:
    async def has_ended() -> bool:
        return [row["state"] for row in await stage.rows(someone)] not in ([], ["held"])

    await eventually(has_ended)
    row = await stage.row(someone)
    assert await stage.money(someone) == (NANOS_PER_CREDIT - row["charge_nanos"], 0)
    assert row["charge_nanos"] <= row["hold_nanos"]
    return row


@EVERY
async def test_who_reads_words_and_leaves_pays_no_less_than_the_server_counted(
    shared_database: str, dialect: str
) -> None:
    async with own_server(shared_database, dialect, streamed(*words(dialect), then=hang)) as (stage, server, one, body):
        row = await left(stage, one, body, lambda line: line.until("京".encode("unicode_escape")))
        assert (row["state"], row["error_code"]) == ("settled", "client_gone")
        assert row["completion_tokens"] >= len(WORDS)
        assert row["prompt_tokens"] >= PROMPT_TOKENS
        assert row["charge_nanos"] == (row["prompt_tokens"] + row["completion_tokens"]) * PRICE
        assert row["estimated"] == (dialect in SILENT)
        await eventually(lambda: server.seen[0].left.is_set())


@EVERY_SILENT
async def test_who_leaves_right_before_the_usage_pays_the_whole(
    shared_database: str, monkeypatch: pytest.MonkeyPatch, dialect: str
) -> None:
    monkeypatch.setattr(stream, "READ_ON_SECONDS", 60.0)  # the rest may come late on a busy machine

    async def and_then_the_rest(asked: Asked) -> None:
        while not has_left:
            await asked.chunk(b": still there\n\n")
            await eventually(lambda: bool(has_left))
        await asked.chunk(STOP + USAGE + DONE)
        await asked.end()

    has_left: list[bool] = []
    async with own_server(shared_database, dialect, streamed(*words(dialect), then=and_then_the_rest)) as given:
        stage, _, one, body = given
        line = await Line.opened(stage.gateway.address)
        await line.ask(one, body)
        await line.until("京".encode("unicode_escape"))
        line.hang_up()
        await stage.http.get(f"{stage.gateway.address}/healthz")  # by its answer the gateway has noticed
        has_left.append(True)
        row = await ended(stage, one)
    assert (row["charge_nanos"], row["estimated"], row["error_code"]) == (WHOLE, False, "client_gone")


async def test_a_server_that_does_not_end_is_not_read_on_without_bound(shared_database: str) -> None:
    async def for_ever(asked: Asked) -> None:
        while not asked.left.is_set():
            await asked.chunk(word("more " * 20))

    async with own_server(shared_database, "llamacpp", streamed(word("one"), then=for_ever)) as given:
        stage, server, one, body = given
        row = await left(stage, one, {**body, "max_tokens": 2000}, lambda line: line.events(1))
        await eventually(lambda: server.seen[0].left.is_set())
    assert (row["estimated"], row["error_code"]) == (True, "client_gone")


@pytest.mark.parametrize("head", [True, False], ids=["after its head", "before its head"])
@pytest.mark.parametrize("setting", ["charge", "free"])
@EVERY
async def test_an_abandoned_prefill_is_charged_as_configured(
    shared_database: str, dialect: str, setting: str, head: bool
) -> None:
    play = streamed(then=hang) if head else hang
    async with own_server(shared_database, dialect, play, ABANDONED_PREFILL=setting) as (stage, server, one, body):
        line = await Line.opened(stage.gateway.address)
        await line.ask(one, body)
        await eventually(lambda: bool(server.seen))
        line.hang_up()
        row = await ended(stage, one)
    if setting == "free":
        assert (row["state"], row["charge_nanos"]) == ("released", 0)
    else:
        assert (row["state"], row["estimated"], row["completion_tokens"]) == ("settled", True, 0)
        assert row["charge_nanos"] >= PROMPT_TOKENS * PRICE


@pytest.mark.parametrize(
    "play",
    [answer(b'{"error":{"message":"no","type":"x","code":400}}', status=400), cut, streamed(then=cut)],
    ids=["refused", "cut", "cut after its head"],
)
async def test_a_server_that_fails_before_it_says_anything_is_not_paid(shared_database: str, play: Play) -> None:
    async with own_server(shared_database, "llamacpp", play) as (stage, _, one, body):
        await stage.post(one, body)
        row = await ended(stage, one)
    assert (row["state"], row["charge_nanos"]) == ("released", 0)


async def test_a_connection_that_fails_is_not_paid(shared_database: str) -> None:
    async with own_server(shared_database, "llamacpp", hang) as (stage, server, one, body):
        operator = console(stage.door, "tests")
        made = await upstreams.make(
            operator, {"name": f"nobody-{server.port}", "base_url": "http://127.0.0.1:9/v1", "dialect": "llamacpp"}
        )
        route = {"model": f"nobody/{server.port}", "upstream_id": made["id"], "pricing": PRICING}
        await catalog.put_route(operator, {**route, "context_tokens": 4096})
        await stage.post(one, {**body, "model": f"nobody/{server.port}"})
        row = await ended(stage, one)
    assert (row["state"], row["charge_nanos"]) == ("released", 0)


@EVERY_SILENT
async def test_a_server_that_dies_in_mid_answer_is_paid_what_it_said(shared_database: str, dialect: str) -> None:
    async with own_server(shared_database, dialect, streamed(*words(dialect), then=cut)) as (stage, _, one, body):
        await stage.post(one, body)
        row = await ended(stage, one)
    assert (row["state"], row["estimated"], row["error_code"]) == ("settled", True, "upstream_cut")
    assert row["completion_tokens"] >= len(WORDS)
    assert row["prompt_tokens"] >= PROMPT_TOKENS
    assert row["charge_nanos"] == (row["prompt_tokens"] + row["completion_tokens"]) * PRICE


async def test_a_whole_answer_without_usage_is_paid_for_all_its_text(shared_database: str) -> None:
    said = {"index": 0, "message": {"role": "assistant", "content": "".join(WORDS)}, "finish_reason": "stop"}
    document = json.dumps({"id": "chatcmpl-1", "choices": [said]}).encode()
    async with own_server(shared_database, "tgi", answer(document)) as (stage, _, one, body):
        await stage.post(one, {**body, "stream": False})
        row = await ended(stage, one)
    assert row["estimated"]
    assert row["completion_tokens"] >= len(WORDS)
    assert row["prompt_tokens"] >= PROMPT_TOKENS
    assert row["charge_nanos"] == (row["prompt_tokens"] + row["completion_tokens"]) * PRICE


LLAMACPPS = [
    event(choices=[{"index": index, "delta": {"content": text}, "finish_reason": "stop"}], usage=usage(tokens))
    for index, text, tokens in ((1, "One.", 2), (0, "One and two.", 4))
]


async def test_each_choice_of_llamacpp_is_charged(shared_database: str) -> None:
    """In a stream by its own usage, and in a plain answer by the first one's."""
    texts = ["".join(WORDS)] * 3
    choices = [
        {"index": place, "message": {"content": text}, "finish_reason": "stop"} for place, text in enumerate(texts)
    ]
    whole = json.dumps({"id": "chatcmpl-1", "choices": choices, "usage": usage(len(WORDS) + 1)}).encode()
    async with own_server(shared_database, "llamacpp", streamed(*LLAMACPPS, DONE), answer(whole)) as given:
        stage, _, one, body = given
        await stage.post(one, {**body, "n": 2})
        row = await ended(stage, one)
        assert (row["charge_nanos"], row["estimated"]) == ((PROMPT_TOKENS + 6) * PRICE, False)
        other = await stage.customer()
        await stage.post(other, {**body, "n": 3, "stream": False})
        row = await ended(stage, other)
        assert (row["charge_nanos"], row["estimated"]) == ((PROMPT_TOKENS + 3 * (len(WORDS) + 1)) * PRICE, True)


def typed(path: str, *, ends: bool) -> list[bytes]:
    """What servers of ours stream on this path: no id that could be looked up, and the usage in the last event."""
    counted = {"input_tokens": PROMPT_TOKENS, "output_tokens": len(WORDS) + 1}
    if path == RESPONSES:
        begun = {"id": "resp_1", "object": "response", "model": "ours", "status": "in_progress", "usage": None}
        told = [("response.created", {"response": begun})]
        told += [("response.output_text.delta", {"delta": text}) for text in WORDS]
        last = [("response.completed", {"response": begun | {"status": "completed", "usage": counted}})]
    else:
        begun = {"id": "msg_1", "type": "message", "model": "ours", "usage": {"input_tokens": PROMPT_TOKENS}}
        told = [("message_start", {"message": begun})]
        told += [("content_block_delta", {"delta": {"type": "text_delta", "text": text}}) for text in WORDS]
        last = [("message_delta", {"delta": {"stop_reason": "end_turn"}, "usage": counted}), ("message_stop", {})]
    return [
        f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()
        for kind, members in told + (last if ends else [])
    ]


@pytest.mark.parametrize(("dialect", "path"), [("vllm", RESPONSES), ("vllm", MESSAGES), ("llamacpp", MESSAGES)])
async def test_a_response_or_message_of_ours_passes_unchanged_at_its_routes_price(
    shared_database: str, dialect: str, path: str
) -> None:
    events = typed(path, ends=True)
    async with own_server(shared_database, dialect, streamed(*events)) as (stage, server, one, body):
        given = asking(path, "Count what is there.", body["model"], stream=True)
        got = await stage.post(one, given, f"/v1{path}")
        row = await ended(stage, one)
    assert got.content == b"".join(events)
    assert server.seen[0].target == f"/v1{path}"
    assert server.seen[0].document == given
    assert (row["charge_nanos"], row["estimated"]) == (WHOLE, False)


@pytest.mark.parametrize("path", [RESPONSES, MESSAGES])
@pytest.mark.parametrize("then", [hang, cut], ids=["client leaves", "server dies"])
async def test_a_response_or_message_of_ours_that_breaks_off_is_paid_for_what_was_said(
    shared_database: str, path: str, then: Play
) -> None:
    play = streamed(*typed(path, ends=False), then=then)
    async with own_server(shared_database, "vllm", play) as (stage, _, one, body):
        given = asking(path, "Count what is there.", body["model"], stream=True, max_tokens=200)
        if then is hang:
            line = await Line.opened(stage.gateway.address)
            await line.ask(one, given, f"/v1{path}")
            await line.until("京".encode("unicode_escape"))
            line.hang_up()
        else:
            await stage.post(one, given, f"/v1{path}")
        row = await ended(stage, one)
    assert (row["state"], row["estimated"]) == ("settled", True)
    assert row["completion_tokens"] >= len(WORDS)
    assert row["prompt_tokens"] >= PROMPT_TOKENS
    assert row["charge_nanos"] == (row["prompt_tokens"] + row["completion_tokens"]) * PRICE


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    ("dialect", "path"),
    [*itertools.product(("openai", "sglang", "tgi"), (RESPONSES, MESSAGES)), ("vllm", GENERATE)],
)
async def test_a_server_with_chat_completions_alone_answers_a_response_or_message(
    shared_database: str, dialect: str, path: str, stream: bool
) -> None:
    said = {"index": 0, "message": {"role": "assistant", "content": "".join(WORDS)}, "finish_reason": "stop"}
    whole = {"id": "chatcmpl-1", "model": "ours", "choices": [said], "usage": usage(len(WORDS) + 1) | {"cost": 7}}
    play = streamed(*words(dialect), STOP, USAGE, DONE) if stream else answer(json.dumps(whole).encode())
    async with own_server(shared_database, dialect, play) as (stage, server, one, body):
        given = asking(path, "Count what is there.", body["model"], stream=stream, max_tokens=200)
        got = await stage.post(one, given, f"/v1{path}", **{"x-tollgate-usage": "true"})
        row = await ended(stage, one)
    sent = server.seen[0]
    assert (sent.target, sent.document["max_tokens"]) == ("/v1/chat/completions", 200)
    assert sent.document["messages"] == [{"role": "user", "content": "Count what is there."}]
    assert (row["charge_nanos"], row["estimated"], row["endpoint"]) == (WHOLE, False, path[1:])
    told = chunks(got.text) if stream else [got.json()]
    if path == GENERATE:
        assert "".join(one["output"] for one in told) == "".join(WORDS)
        assert (told[-1]["prompt_tokens"], told[-1]["completion_tokens"]) == (PROMPT_TOKENS, len(WORDS) + 1)
        assert (told[-1]["charge_nanos"], told[-1]["request_id"]) == (WHOLE, row["id"])
        return
    text = "".join(str(event["delta"].get("text", "")) for event in told if path == MESSAGES and "delta" in event)
    text += "".join(event["delta"] for event in told if event["type"] == "response.output_text.delta") if stream else ""
    if not stream:
        text = (told[0]["content"] if path == MESSAGES else told[0]["output"][0]["content"])[0]["text"]
        counted = told[0]["usage"]
        assert Decimal(str(counted["cost"])) * NANOS_PER_CREDIT == WHOLE
    else:
        counted = (
            next(event for event in told if event["type"] == "message_delta")["usage"]
            if path == MESSAGES
            else (told[-1]["response"]["usage"])
        )
        assert counted["tollgate"]["charge_nanos"] == WHOLE
    assert text == "".join(WORDS)
    assert (counted["input_tokens"], counted["output_tokens"]) == (PROMPT_TOKENS, len(WORDS) + 1)


@pytest.mark.parametrize("path", [RESPONSES, MESSAGES, GENERATE])
@pytest.mark.parametrize("then", [hang, cut], ids=["client leaves", "server dies"])
async def test_a_translated_answer_that_breaks_off_is_paid_for_what_was_said(
    shared_database: str, path: str, then: Play
) -> None:
    async with own_server(shared_database, "tgi", streamed(*words("tgi"), then=then)) as (stage, _, one, body):
        given = asking(path, "Count what is there.", body["model"], stream=True, max_tokens=200)
        if then is hang:
            line = await Line.opened(stage.gateway.address)
            await line.ask(one, given, f"/v1{path}")
            await line.until("京".encode())
            line.hang_up()
        else:
            last = chunks((await stage.post(one, given, f"/v1{path}")).text)[-1]
            kinds = {MESSAGES: "error", RESPONSES: "response.failed", GENERATE: None}
            assert last.get("type") == kinds[path]
            assert "broke off" in json.dumps(last)
            assert path != MESSAGES or last["request_id"].startswith("req_")
        row = await ended(stage, one)
    assert (row["state"], row["estimated"]) == ("settled", True)
    assert row["completion_tokens"] >= len(WORDS)
    assert row["charge_nanos"] == (row["prompt_tokens"] + row["completion_tokens"]) * PRICE


@pytest.mark.parametrize(
    ("path", "more", "param"),
    [
        (RESPONSES, {"top_logprobs": 3}, "top_logprobs"),
        (MESSAGES, {"tools": [{"name": "x", "input_schema": {}}], "top_k": 3, "thinking": {"type": "unheard"}}, None),
    ],
)
async def test_what_cannot_be_translated_is_refused_before_anything_is_held(
    shared_database: str, path: str, more: dict[str, Any], param: str | None
) -> None:
    async with own_server(shared_database, "tgi", hang) as (stage, server, one, body):
        got = await stage.post(one, asking(path, "Hello", body["model"], **more), f"/v1{path}")
        assert await stage.rows(one) == []
        assert server.seen == []
    error = got.json()["error"]
    assert (got.status_code, error["code"]) == (400, "invalid_request")
    assert error["message"]
    assert param is None or error["param"] == param


async def test_an_error_of_a_server_with_chat_completions_alone_has_the_shape_of_the_path(shared_database: str) -> None:
    refusal = answer(b'{"error":{"message":"too long","type":"x","code":400}}', status=400)
    async with own_server(shared_database, "tgi", *[refusal] * 3) as (stage, _, one, body):
        for path in (RESPONSES, MESSAGES, GENERATE):
            got = await stage.post(one, asking(path, "Hello", body["model"]), f"/v1{path}")
            told = got.json()
            assert (got.status_code, told["error"]["message"]) == (400, "too long")
            assert ("request_id" in told) == (path == MESSAGES)


async def test_a_server_that_counts_tokens_is_asked_and_nothing_is_charged(shared_database: str) -> None:
    count = answer(b'{"input_tokens":12}')
    async with own_server(shared_database, "vllm", count) as (stage, server, one, body):
        given = asking(COUNT, "Count what is there.", body["model"])
        got = await stage.post(one, given, f"/v1{COUNT}")
        row = await ended(stage, one)
    assert (got.content, server.seen[0].target) == (b'{"input_tokens":12}', f"/v1{COUNT}")
    assert (row["state"], row["endpoint"], row["hold_nanos"], row["charge_nanos"]) == ("settled", "count_tokens", 0, 0)


def scored(completion_tokens: int) -> Play:
    told = {"id": "cmpl-1", "model": "ours", "choices": [{"index": 0, "text": "Lime", "finish_reason": "length"}]}
    return answer(json.dumps({**told, "usage": usage(completion_tokens)}).encode())


async def test_what_only_vllm_reads_is_held_for_at_its_most(shared_database: str) -> None:
    async with own_server(shared_database, "vllm", scored(1), *[scored(3)] * 3) as (stage, server, one, body):
        scoring = {"model": body["model"], "prompt": "Lime", "max_tokens": 0, "echo": True, "logprobs": 1}
        embedded = {"model": body["model"], "prompt_embeds": "QUJD" * 100, "max_tokens": "5"}
        for given in (scoring, embedded):
            assert (await stage.post(one, given, "/v1/completions")).status_code == 200
        message = {"role": "user", "content": [{"type": "prompt_embeds", "data": "QUJD" * 100}]}
        chat = {"model": body["model"], "messages": [message], "max_tokens": 5}
        padded = {"model": body["model"], "input": ["a", "b"], "padding": "max_length"}
        for given, path in ((chat, CHAT), (padded, "/v1/embeddings")):
            assert (await stage.post(one, given, path)).status_code == 200
        first, second, third, fourth = await stage.rows(one)
    assert [seen.document for seen in server.seen] == [scoring, {**embedded, "max_tokens": 5}, chat, padded]
    assert (first["output_bound"], first["charge_nanos"]) == (1, (PROMPT_TOKENS + 1) * PRICE)
    assert first["charge_nanos"] <= first["hold_nanos"]
    assert second["hold_nanos"] == third["hold_nanos"] == (CONTEXT_TOKENS + 5) * PRICE
    assert fourth["hold_nanos"] > 2 * CONTEXT_TOKENS * PRICE
    assert second["charge_nanos"] == (PROMPT_TOKENS + 3) * PRICE


async def test_what_only_vllm_reads_goes_to_no_other_server(shared_database: str) -> None:
    async with own_server(shared_database, "llamacpp", hang) as (stage, server, one, body):
        for field, given in (
            ("max_tokens", {"prompt": "Lime", "max_tokens": 0, "echo": True}),
            ("prompt_embeds", {"prompt_embeds": "QUJD"}),
        ):
            got = await stage.post(one, {"model": body["model"], **given}, "/v1/completions")
            error = got.json()["error"]
            assert (got.status_code, error["code"], error["param"]) == (400, "invalid_request", field)
            assert "vLLM" in error["message"]
        assert await stage.rows(one) == []
    assert server.seen == []


@pytest.mark.parametrize("begun", [False, True], ids=["before it says anything", "in mid answer"])
async def test_a_tollgate_that_is_stopped_charges_what_the_server_did(
    shared_database: str, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    monkeypatch.setattr(settlements, "FINISH_SECONDS", 30.0)
    play = streamed(*words("llamacpp"), then=hang) if begun else hang
    async with own_server(shared_database, "llamacpp", play) as (stage, server, one, body):
        line = await Line.opened(stage.gateway.address)
        await line.ask(one, body)
        await eventually(lambda: bool(server.seen))
        if begun:
            await line.until("京".encode("unicode_escape"))
    line.hang_up()
    async with staged(stage.gateway, shared_database) as later:
        row = await ended(later, one)
    assert (row["state"], row["estimated"]) == ("settled", True)
    assert row["charge_nanos"] >= (PROMPT_TOKENS + len(WORDS) * begun) * PRICE


async def test_a_serverless_host_does_not_read_on(shared_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it would do so for longer than this test waits."""
    monkeypatch.setattr(stream, "READ_ON_SECONDS", 600.0)
    async with own_server(shared_database, "llamacpp", streamed(*words("llamacpp"), then=hang)) as given:
        stage, _, one, body = given
        environ = {
            "KEY_PEPPER": PEPPER, "DATABASE_URL": shared_database, "PRIVATE_UPSTREAMS": "true",
            "OPENROUTER_BASE_URL": stage.gateway.upstream.url, "OPENROUTER_API_KEY": "sk-or-v1-of-the-tests",
            "LOG_LEVEL": "error", "VERCEL": "1",
        }  # fmt: skip
        with serving(create_app(settings.read(environ), environ=environ), lifespan="on") as address:
            line = await Line.opened(address)
            await line.ask(one, body)
            await line.until("京".encode("unicode_escape"))
            line.hang_up()
            row = await ended(stage, one)
    assert (row["state"], row["estimated"]) == ("settled", True)
    assert row["completion_tokens"] >= len(WORDS)
    assert row["prompt_tokens"] >= PROMPT_TOKENS
    assert row["charge_nanos"] == (row["prompt_tokens"] + row["completion_tokens"]) * PRICE
