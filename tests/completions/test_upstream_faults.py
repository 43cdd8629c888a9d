"""Every fault of the sandbox through the whole of Tollgate: what the client sees, what the row says, and that what is
charged in the end is what the sandbox was owed, or one of the few exceptions that are named here."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from completions.asks import CHAT, MESSAGES, SAYING, asking
from completions.stage import Row, Stage, before, erring, staged
from people import Person
from sandbox.serving import NOON, Clock, chunks, payloads, told, until
from tollgate.completions.late_endings import MOST_LOOKS
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.sandbox.faults import DEFAULTS

TEXT = "one two three four five six"
WHOLE = 11_500
"""What the answer to that costs; less when it is broken off."""

SETTLED = {"state": "settled", "estimated": False, "quarantined": False, "status": 200}
GOOD = SETTLED | {"error_code": None}
UNSETTLED = {"state": "unsettled", "charge_nanos": None, "estimated": False, "quarantined": False, "status": 200}
OPEN = UNSETTLED | {"error_code": None}
RELEASED = {"state": "released", "charge_nanos": 0, "estimated": False, "quarantined": False}
FAILED = "failed_upstream"


def refused(status: int) -> Row:
    return RELEASED | {"status": status, "error_code": "refused_upstream"}


def ours(status: int, code: str) -> Row:
    return RELEASED | {"status": status, "error_code": code}


def lost(status: int, code: str) -> Row:
    return UNSETTLED | {"status": status, "error_code": code}


GARBLED = ours(502, "upstream_garbled")

EXPECTED: dict[str, tuple[Row, Row]] = {
    # fault: the row after a whole answer, and after a stream
    "comments": (GOOD, GOOD),
    "split-utf8": (GOOD, GOOD),
    "crlf": (GOOD, GOOD),
    "no-usage": (OPEN, OPEN),
    "null-usage": (OPEN, OPEN),
    "zero-usage": (GOOD, GOOD),
    "negative-cost": (OPEN, OPEN),
    "nan-cost": (lost(502, "upstream_garbled"), OPEN),
    "string-tokens": (OPEN, OPEN),
    "absurd-usage": (OPEN, OPEN),
    "cost-differs": (GOOD, GOOD),
    "cost-differs=0.01": (GOOD, GOOD),
    "cost-differs=1000000": (OPEN, OPEN),
    "corrected": (GOOD, GOOD),
    "byok": (GOOD, GOOD),
    "blank": (GOOD, GOOD),
    "mid-stream-error": (SETTLED | {"error_code": FAILED}, UNSETTLED | {"error_code": FAILED}),
    "mid-stream-error=0": (SETTLED | {"error_code": FAILED}, UNSETTLED | {"error_code": FAILED}),
    "finish-error": (SETTLED | {"error_code": FAILED}, UNSETTLED | {"error_code": FAILED}),
    "vllm-error": (refused(500), UNSETTLED | {"error_code": FAILED}),
    "no-done": (GOOD, GOOD),
    "no-done,no-usage": (OPEN, OPEN),
    "cut": (lost(502, "upstream_cut"), lost(200, "upstream_cut")),
    "cut=0": (lost(502, "upstream_cut"), lost(200, "upstream_cut")),
    "early-eof": (GOOD, lost(200, "upstream_cut")),
    "early-eof=0": (GOOD, lost(200, "upstream_cut")),
    "status=400": (refused(400), refused(400)),
    "status=401": (ours(502, "upstream_unavailable"), ours(502, "upstream_unavailable")),
    "status=402": (ours(502, "upstream_unavailable"), ours(502, "upstream_unavailable")),
    "status=403": (refused(403), refused(403)),
    "status=404": (refused(404), refused(404)),
    "status=408": (refused(408), refused(408)),
    "status=413": (refused(413), refused(413)),
    "status=429,retry-after=30": (refused(429), refused(429)),
    "status=429,retry-after-date=30": (refused(429), refused(429)),
    "status=500": (refused(500), refused(500)),
    "status=502": (refused(502), refused(502)),
    "status=503,retry-after=30": (refused(503), refused(503)),
    "status=504": (refused(504), refused(504)),
    "status=524": (refused(524), refused(524)),
    "status=529": (refused(529), refused(529)),
    "moderation": (refused(403), refused(403)),
    "garbage": (GARBLED, GARBLED),
    "empty": (GARBLED, GARBLED),
    "bad-json": (lost(502, "upstream_garbled"), GOOD),
    "gigantic=1": (GOOD, GOOD),
    "many=3000": (GOOD, GOOD),
    "gzip-bomb=1": (lost(502, "upstream_garbled"), lost(502, "upstream_garbled")),
    "redirect": (GARBLED, GARBLED),
    "set-cookie": (GOOD, GOOD),
    "wrong-model": (GOOD, GOOD),
    "no-id": (GOOD, GOOD),
    "no-id,no-usage": (OPEN, OPEN),
    "no-generation": (GOOD, GOOD),
    "no-generation,no-usage": (OPEN, OPEN),
    "late-generation": (GOOD, GOOD),
    "late-generation,no-usage": (OPEN, OPEN),
    "hold-until=1": (GOOD, GOOD),
    "slow=0.001": (GOOD, GOOD),
    "bill": (GOOD, GOOD),
    "tool-steps": (GOOD, GOOD),
    "stall-before": (lost(504, "upstream_timeout"), lost(504, "upstream_timeout")),
    "stall-after": (lost(504, "upstream_timeout"), lost(200, "upstream_timeout")),
}

NOT_WHAT_IS_OWED = {
    "corrected": "the correction is found when the day is reconciled",
    "zero-usage": "an explicit zero is a zero",
    "no-id,no-usage": "no usage, and no name to ask for it by: the prompt, estimated",
    "no-generation,no-usage": "not found for more than an hour: nothing",
    "late-generation,no-usage": "waits until OpenRouter knows",
    "stall-before": "nobody knows whether it was begun: the prompt, estimated",
}
"""After a sweep. Everything else is charged to the nano."""
CHARGED_NOTHING = {
    "zero-usage": "settled",
    "no-generation,no-usage": "released",
    "late-generation,no-usage": "unsettled",
}

STALLS = {"stall-before", "stall-after"}
QUICK = [fault for fault in EXPECTED if fault not in STALLS]
WITHOUT_AN_ANSWER = ("status=", "moderation", "garbage", "empty", "redirect", "gzip-bomb", "hold-until", "slow")
"""Faults that the form of an answer does not matter to. They are met at one endpoint."""
MEETINGS = [
    (fault, path) for fault in QUICK for path in SAYING if path == CHAT or not fault.startswith(WITHOUT_AN_ANSWER)
]
MODES = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture(scope="module")
async def stage(shared_database: str) -> AsyncIterator[Stage]:
    with erring(EXPECTED) as sandbox, before(sandbox, shared_database) as gateway:
        async with staged(gateway, shared_database) as made:
            yield made


@dataclass
class Met:
    """One call, and what came of it."""

    someone: Person
    answer: httpx.Response
    row: Row
    owed_before: int


async def meet(stage: Stage, fault: str, stream: bool, path: str = CHAT, **more: Any) -> Met:
    someone = await stage.customer()
    owed_before = stage.gateway.upstream.owed_nanos
    answer = await ask(stage, someone, fault, stream, path, **more)
    return Met(someone, answer, await stage.row(someone), owed_before)


async def ask(stage: Stage, someone: Person, fault: str, stream: bool, path: str, **more: Any) -> httpx.Response:
    body = asking(path, TEXT, f"sandbox/fault-{fault}", stream=stream, max_tokens=100, **more)
    return await stage.post(someone, body, f"/v1{path}")


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """However it came."""
    if answer.headers["content-type"].startswith("text/event-stream"):
        return dict(chunks(answer.text)[-1]["error"])
    return dict(answer.json()["error"])


def test_every_fault_of_the_sandbox_is_met_here() -> None:
    met = {part.partition("=")[0] for fault in EXPECTED for part in fault.split(",")}
    assert met == set(DEFAULTS)


@MODES
@pytest.mark.parametrize(("fault", "path"), MEETINGS)
async def test_a_fault_costs_what_it_is_owed(stage: Stage, fault: str, path: str, stream: bool) -> None:
    await end_well(stage, fault, await meet(stage, fault, stream, path), expected(fault, path, stream))


def expected(fault: str, path: str, stream: bool) -> Row:
    """A message that failed is an error alone, without a usage."""
    failed = path == MESSAGES and fault.startswith(("mid-stream-error", "finish-error"))
    return UNSETTLED | {"error_code": FAILED} if failed else EXPECTED[fault][stream]


@pytest.mark.parametrize("fault", sorted(STALLS))
async def test_a_stall_ends_in_time_and_costs_what_it_is_owed(shared_database: str, stage: Stage, fault: str) -> None:
    """All wait at once, and are swept one after the other. What is owed for one is what its own generation costs."""
    upstream = stage.gateway.upstream
    with before(upstream, shared_database, UPSTREAM_TIMEOUT_SECONDS="5") as impatient:
        there = Stage(impatient, stage.door, stage.connection, stage.http)
        calls = [(path, stream, await there.customer()) for path in SAYING for stream in (False, True)]
        answers = await asyncio.gather(*(ask(there, someone, fault, stream, path) for path, stream, someone in calls))
        await until(stage.all_ended)
        await stage.sql("update tollgate.holds set next_sweep_at = clock_timestamp() + interval '1 hour'")
        for (_, stream, someone), answer in zip(calls, answers, strict=True):
            row = await there.row(someone)
            own = sum(one["owed_nanos"] for one in upstream.generations() if one["id"] == row["generation_id"])
            met = Met(someone, answer, row, upstream.owed_nanos - own)
            await end_well(there, fault, met, EXPECTED[fault][stream])
            assert error_of(answer)["code"] == "upstream_timeout"


async def end_well(stage: Stage, fault: str, met: Met, expected: Row) -> None:
    assert {name: met.row[name] for name in expected} == expected
    assert met.answer.status_code == expected["status"]
    await money_is_as(stage, met.someone, met.row)
    if met.row["state"] == "unsettled":
        assert "x-tollgate-charge-nanos" not in met.answer.headers
        await until(stage.all_ended)
        await stage.sweep(met.someone, looks=MOST_LOOKS if "no-generation" in fault else 0)
    ended = await stage.row(met.someone)
    await money_is_as(stage, met.someone, ended)
    await paid(stage, fault, met, ended)


async def paid(stage: Stage, fault: str, met: Met, ended: Row) -> None:
    """What it came to in the end."""
    if ended["quarantined"]:
        assert ended["charge_nanos"] == ended["hold_nanos"]
    elif ended["estimated"]:
        assert ended["generation_id"] is None
        assert 0 < ended["charge_nanos"] < ended["hold_nanos"]
    elif fault in CHARGED_NOTHING:
        assert ended["state"] == CHARGED_NOTHING[fault]
        assert not ended["charge_nanos"]
    else:
        assert ended["state"] != "unsettled"
        assert ended["charge_nanos"] == stage.gateway.upstream.owed_nanos - met.owed_before
        return
    assert fault in NOT_WHAT_IS_OWED


async def money_is_as(stage: Stage, someone: Person, row: Row) -> None:
    held = row["hold_nanos"] if row["state"] == "unsettled" else 0
    assert await stage.money(someone) == (NANOS_PER_CREDIT - (row["charge_nanos"] or 0), held)
    assert await stage.charged(someone) == (row["charge_nanos"] or 0)


@MODES
@pytest.mark.parametrize("fault", ["status=429,retry-after=30", "status=429,retry-after-date=30"])
async def test_a_limit_upstream_is_passed_on_with_its_time(stage: Stage, fault: str, stream: bool) -> None:
    met = await meet(stage, fault, stream)
    assert met.answer.headers["x-tollgate-charge-nanos"] == "0"
    error = met.answer.json()["error"]
    assert (error["code"], error["type"]) == ("rate_limit_exceeded", "rate_limit_error")
    assert (error["upstream"], error["upstream_code"]) == ("openrouter", 429)
    waits = met.answer.headers["retry-after"]
    assert waits == "30" if "date" not in fault else waits.endswith("GMT")


@MODES
@pytest.mark.parametrize("status", [401, 402])
async def test_our_own_trouble_upstream_is_never_the_clients(stage: Stage, status: int, stream: bool) -> None:
    error = error_of((await meet(stage, f"status={status}", stream)).answer)
    assert set(error) == {"message", "type", "code", "param"}
    assert error["code"] == "upstream_unavailable"
    assert "credit" not in error["message"]


@MODES
@pytest.mark.parametrize("fault", ["garbage", "redirect", "empty", "bad-json", "nan-cost", "gzip-bomb=1"])
async def test_what_is_no_answer_is_not_shown(stage: Stage, fault: str, stream: bool) -> None:
    answer = (await meet(stage, fault, stream)).answer
    if answer.status_code == 502:
        assert error_of(answer)["code"] == "upstream_garbled"
        assert answer.headers["x-should-retry"] == "false"
    for tell_tale in ("<html", "cloudflare", "169.254", "location", "NaN" if not stream else "<html"):
        assert tell_tale not in answer.text.lower()


async def test_nothing_of_a_reply_is_followed_or_kept_but_what_is_named(stage: Stage) -> None:
    for fault in ("set-cookie", "redirect", "gzip-bomb=1"):
        for stream in (False, True):
            headers = (await meet(stage, fault, stream)).answer.headers
            assert not {"set-cookie", "location", "content-encoding"} & set(headers)
            assert headers["server"] == "uvicorn"


CUTS = ["cut", "cut=0", "early-eof", "early-eof=0"]


@pytest.mark.parametrize("fault", CUTS)
async def test_a_broken_stream_never_looks_whole(stage: Stage, fault: str) -> None:
    answer = (await meet(stage, fault, True)).answer
    events = payloads(answer.text)
    assert json.loads(events[-1])["error"]["code"] == "upstream_cut"
    assert "[DONE]" not in events
    assert not any(choice["finish_reason"] for chunk in chunks(answer.text) for choice in chunk.get("choices", ()))
    assert TEXT.startswith(told(answer.text))


@pytest.mark.parametrize("fault", ["mid-stream-error", "finish-error", "vllm-error"])
async def test_a_failure_in_the_middle_is_passed_on_with_a_word_for_its_code(stage: Stage, fault: str) -> None:
    answer = (await meet(stage, fault, True)).answer
    (failing,) = [chunk for chunk in chunks(answer.text) if "error" in chunk]
    assert failing["error"]["upstream_code"] in (500, 502)
    assert re.fullmatch("[a-z_]+", failing["error"]["code"])
    assert answer.text.endswith("data: [DONE]\n\n") == (fault == "vllm-error")


async def test_a_stream_with_its_end_but_no_done_is_whole_and_gets_one(stage: Stage) -> None:
    for fault in ("no-done", "no-done,no-usage"):
        answer = (await meet(stage, fault, True)).answer
        assert payloads(answer.text)[-1] == "[DONE]"
        assert told(answer.text) == TEXT


@MODES
async def test_what_serves_is_told_and_billed_by_its_own_cost(stage: Stage, stream: bool) -> None:
    """Another model answered than was asked for: the client sees which, the row too, and its cost is the charge."""
    met = await meet(stage, "wrong-model", stream)
    shown = chunks(met.answer.text)[0] if stream else met.answer.json()
    assert shown["model"] == met.row["served_model"] == "sandbox/somebody-else"
    assert met.row["model"] == "sandbox/fault-wrong-model"
    assert met.row["charge_nanos"] == WHOLE


async def test_a_late_generation_is_waited_for_and_then_charged_once(shared_database: str) -> None:
    clock = Clock()
    fault = "late-generation,no-usage"
    with erring([fault], clock) as sandbox, before(sandbox, shared_database) as gateway:
        async with staged(gateway, shared_database) as stage:
            met = await meet(stage, fault, False)
            for seconds, state, charge in [(0, "unsettled", None), (29, "unsettled", None), (30, "settled", WHOLE)]:
                clock.now = NOON + seconds
                await stage.sweep(met.someone)
                ended = await stage.row(met.someone)
                assert (ended["state"], ended["charge_nanos"]) == (state, charge)
            await stage.sweep(met.someone)
            assert await stage.charged(met.someone) == WHOLE


@MODES
async def test_an_answer_that_failed_is_free_and_remembered_as_failed(stage: Stage, stream: bool) -> None:
    met = await meet(stage, "finish-error", stream)
    await stage.sweep(met.someone)
    ended = await stage.row(met.someone)
    assert (ended["charge_nanos"], ended["error_code"], ended["status"]) == (0, FAILED, 200)
