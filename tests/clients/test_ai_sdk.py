"""Vercel's AI SDK with OpenRouter's provider for it, on Node. One program makes all the calls."""

import json
import os
from typing import Any

import anyio
import pytest

from clients.conftest import Customer
from clients.questions import ARGUMENTS, PIXEL, PLACE, TEXT, WEATHER, erring
from gateway import Upstream, running
from servers.postgres import PACKAGES

pytestmark = pytest.mark.slow

PROGRAM = PACKAGES.parent / "ai_sdk.mjs"
PATIENCE_SECONDS = 300

SAY = {"prompt": TEXT}
CALL = {"prompt": TEXT, "tools": WEATHER["function"]}
PICTURE = {"type": "file", "data": PIXEL, "mediaType": "image/png"}
SHOW = {"messages": [{"role": "user", "content": [{"type": "text", "text": "What?"}, PICTURE]}]}
LIMITED = erring("status=429,retry-after=0")
CALLS: dict[str, dict[str, Any]] = {
    "completion": {"kind": "complete", "model": "sandbox/echo", "asked": SAY},
    "stream": {"kind": "stream", "model": "sandbox/echo", "asked": SAY},
    "comments": {"kind": "stream", "model": erring("comments"), "asked": SAY},
    "split-utf8": {"kind": "stream", "model": erring("split-utf8"), "asked": SAY},
    "no-done": {"kind": "stream", "model": erring("no-done"), "asked": SAY},
    "tool": {"kind": "complete", "model": "sandbox/tools", "asked": CALL},
    "streamed tool": {"kind": "stream", "model": "sandbox/tools", "asked": CALL},
    "image": {"kind": "complete", "model": "sandbox/image", "asked": SHOW},
    "reasoning": {"kind": "complete", "model": "sandbox/reasoner", "asked": SAY},
    "object": {"kind": "object", "model": "sandbox/echo", "asked": {**SAY, "schema": PLACE}},
    "embedding": {"kind": "embed", "model": "sandbox/embed", "asked": {"value": TEXT}},
    "wrong key": {"kind": "complete", "key": "wrong", "model": "sandbox/echo", "asked": SAY},
    "poor": {"kind": "complete", "key": "poor", "model": "sandbox/echo", "asked": {**SAY, "maxOutputTokens": 1_000}},
    "unknown model": {"kind": "complete", "model": "nobody/knows", "asked": SAY},
    "unknown model, streamed": {"kind": "stream", "model": "nobody/knows", "asked": SAY},
    "limited": {"kind": "complete", "model": LIMITED, "asked": SAY},
    "limited, tried again": {"kind": "complete", "model": LIMITED, "asked": {**SAY, "maxRetries": 1}},
    "unpaid upstream": {"kind": "complete", "model": erring("status=402"), "asked": SAY},
    "mid-stream error": {"kind": "stream", "model": erring("mid-stream-error=2"), "asked": SAY},
    "cut": {"kind": "stream", "model": erring("cut=2"), "asked": SAY},
    "early end": {"kind": "stream", "model": erring("early-eof=2"), "asked": SAY},
    "cut, tried again": {"kind": "complete", "model": erring("cut=2"), "asked": {**SAY, "maxRetries": 1}},
    "partial": {"kind": "complete", "model": erring("finish-error=2"), "asked": SAY},
}

Report = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
async def report(shared_database: str, upstream: Upstream, key: str, customer: Customer) -> Report:
    poor = await customer(nanos=500_000)
    keys = {"rich": key, "poor": poor.secret, "wrong": key[:-1] + ("a" if key[-1] != "a" else "b")}
    with running({"DATABASE_URL": shared_database}, upstream) as gateway, anyio.fail_after(PATIENCE_SECONDS):
        order = json.dumps({"address": gateway.address, "keys": keys, "calls": CALLS}).encode()
        told = await anyio.run_process(["node", str(PROGRAM)], input=order, env={"PATH": os.environ["PATH"]})
    made: Report = json.loads(told.stdout)
    return made


@pytest.mark.parametrize("call", ["completion", "stream", "comments", "split-utf8", "no-done", "reasoning"])
async def test_completes_and_shows_what_it_cost(report: Report, call: str) -> None:
    told = report[call]
    assert (told["text"], told["finishReason"]) == (TEXT, "stop")
    assert told["usage"]["cost"] > 0


async def test_thinks(report: Report) -> None:
    assert "think" in report["reasoning"]["reasoning"]
    assert report["reasoning"]["usage"]["completionTokensDetails"]["reasoningTokens"] > 0


@pytest.mark.parametrize("call", ["tool", "streamed tool"])
async def test_calls_a_tool(report: Report, call: str) -> None:
    assert report[call]["calls"] == [{"name": "weather", "input": ARGUMENTS}]
    assert report[call]["finishReason"] == "tool-calls"


async def test_shows_an_image(report: Report) -> None:
    assert report["image"]["text"] == "What?"
    assert report["image"]["usage"]["cost"] > 0.003445  # the request and the image, by themselves


async def test_makes_an_object_of_a_shape(report: Report) -> None:
    assert report["object"]["object"] == {"city": TEXT}


async def test_embeds(report: Report) -> None:
    assert report["embedding"] == {"dimensions": 8, "tokens": 7}


@pytest.mark.parametrize(
    ("call", "status", "message"),
    [
        ("wrong key", 401, "API key is invalid"),
        ("poor", 402, "This request may cost"),
        ("unknown model", 404, "does not exist"),
        ("unknown model, streamed", 404, "does not exist"),
        ("limited", 429, ""),
        ("unpaid upstream", 502, "Nothing was charged"),
    ],
)
async def test_a_refusal_has_its_status_and_our_words(report: Report, call: str, status: int, message: str) -> None:
    error = report[call]["error"]
    assert (error["name"], error["status"], error["code"]) == ("AI_APICallError", status, status)
    assert message in error["message"]


async def test_a_limit_is_tried_again_as_often_as_the_client_likes(report: Report) -> None:
    assert report["limited"]["error"]["tries"] == 1
    assert report["limited, tried again"]["error"]["tries"] == 2


async def test_what_may_have_been_paid_for_is_tried_again_all_the_same(report: Report) -> None:
    """It goes by the status alone, as docs/how-to/call-it.md says."""
    assert report["cut, tried again"]["error"]["tries"] == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [("mid-stream error", "disconnected"), ("cut", "broke off"), ("early end", "broke off")],
)
async def test_an_error_in_mid_stream_is_told_there(report: Report, call: str, message: str) -> None:
    told = report[call]
    assert told["finishReason"] == "error"
    assert message in told["error"]["message"]
    assert told["text"]
    assert TEXT.startswith(told["text"])


async def test_a_partial_answer_is_not_called_finished(report: Report) -> None:
    assert TEXT.startswith(report["partial"]["text"])
    assert report["partial"]["finishReason"] == "other"
