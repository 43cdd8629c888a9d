"""Every fault, seen from the client's side, and what the ledger says is owed for it."""

import gzip
import json
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.serving import (
    NOON,
    PATIENCE_SECONDS,
    Clock,
    a_chat,
    a_sandbox,
    chunks,
    collected,
    entry,
    exact,
    get,
    in_process,
    over_tcp,
    payloads,
    post,
    serving,
    told,
    until,
)
from tollgate.sandbox import faults
from tollgate.sandbox.app import Sandbox, create_bounded_sandbox
from tollgate.sandbox.output import OutputEncoder, split
from tollgate.sandbox.state import BOUNDED

IMPATIENT = httpx.Timeout(PATIENCE_SECONDS, read=0.1)
"""Of a client that leaves when nothing comes, and not before it has asked."""
TEXT = "12345678" * 4
"""Eight tokens."""
CHAT = "/api/v1/chat/completions"


async def faulty(fault: str, stream: bool = False, **more: Any) -> tuple[httpx.Response, dict[str, Any]]:
    """The answer, and the ledger's entry for it."""
    sandbox = a_sandbox()
    answered = await post(sandbox, a_chat(TEXT, stream=stream, **more), fault=fault)
    return answered, await entry(sandbox)


async def usage_with(fault: str, stream: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    answered, kept = await faulty(fault, stream)
    found: dict[str, Any] = (chunks(answered.text)[-1] if stream else exact(answered.text))["usage"]
    return found, kept


async def without_generation(fault: str, stream: bool = False) -> httpx.Response:
    sandbox = a_sandbox()
    answered = await post(sandbox, a_chat(TEXT, stream=stream), fault=fault)
    assert sandbox.ledger.shown()["generations"] == []
    return answered


both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


def test_the_table_has_a_row_for_every_fault() -> None:
    rows = re.findall(r"^\| ([a-z][a-z0-9-]+) +\|", faults.__doc__ or "", re.MULTILINE)
    assert rows == ["name", *faults.DEFAULTS]


@pytest.mark.parametrize(
    "odd",
    [
        "nonsense",
        "cut=soon",
        "crlf=1",
        "stall-after=-1",
        "status=200",
        "status=999",
        "hold-until=1.2.3",
        "bill=half",
        "many=1e9",
        "gigantic=9999999999999999",
        "slow=nan",
    ],
)
async def test_a_fault_that_is_not_known_is_named(odd: str) -> None:
    answered = await without_generation(odd)
    assert answered.status_code == 400
    assert odd.partition("=")[0] in answered.json()["error"]["message"]


@pytest.mark.parametrize(
    "name", ["sandbox/echo@status=418", "sandbox/fault-status=418", "sandbox/echo:nitro@status=418"]
)
async def test_a_models_name_can_carry_a_fault(name: str) -> None:
    assert (await post(a_sandbox(), a_chat(model=name))).status_code == 418


async def test_faults_of_header_and_name_combine() -> None:
    answered, _ = await faulty("set-cookie , no-done", True, model="sandbox/echo@crlf,no-usage")
    assert "set-cookie" in answered.headers
    assert answered.text.count("\r\n") == answered.text.count("\n")
    assert payloads(answered.text)[-1] != "[DONE]"
    assert "usage" not in chunks(answered.text)[-1]


async def test_comments_come_between_events() -> None:
    answered, kept = await faulty("comments=5", True)
    assert answered.text.count(": OPENROUTER PROCESSING\n\n") > 5 * 8
    assert told(answered.text) == TEXT
    assert kept["owed_nanos"] == 13_000


async def test_without_a_stream_comments_are_blank_lines() -> None:
    answered, _ = await faulty("comments=5")
    assert answered.text.count("\n") == 5
    assert answered.json()["choices"][0]["message"]["content"] == TEXT


async def test_crlf_ends_every_line() -> None:
    answered, _ = await faulty("crlf", True)
    assert answered.text.count("\r\n") == answered.text.count("\n") > 10
    assert told(answered.text) == TEXT


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_any_text_survives_being_split(text: str) -> None:
    data = f"data: {json.dumps(text, ensure_ascii=False)}\n\n".encode()
    parts = split(data)
    assert b"".join(parts) == data
    assert all(parts)
    assert len(parts) > 1
    assert text.isascii() or not all(map(is_utf8, parts))


@both
async def test_split_utf8_ends_writes_inside_characters_and_lines(stream: bool) -> None:
    writes: list[bytes] = []
    body = json.dumps(a_chat("日本語 🎈 ñ", stream=stream)).encode()

    async def receive() -> dict[str, Any]:
        if body_left:
            return {"type": "http.request", "body": body_left.pop()}
        await anyio.sleep_forever()
        raise AssertionError

    async def send(message: Any) -> None:
        writes.append(message.get("body", b""))

    body_left = [body]
    headers = [(b"authorization", b"Bearer x"), (b"x-sandbox-fault", b"split-utf8")]
    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": headers, "root_path": "", "query_string": b""}
    await a_sandbox()(scope, receive, send)
    text = b"".join(writes).decode()
    assert (told(text) if stream else json.loads(text)["choices"][0]["message"]["content"]) == "日本語 🎈 ñ"
    assert any(not is_utf8(write) for write in writes)
    assert sum(not write.endswith(b"\n") for write in writes if write) > 1


def is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@both
async def test_usage_can_be_missing_or_null(stream: bool) -> None:
    for fault in ("no-usage", "null-usage"):
        answered, kept = await faulty(fault, stream)
        body = chunks(answered.text)[-1] if stream else exact(answered.text)
        assert body.get("usage", "missing") == ("missing" if fault == "no-usage" else None)
        assert kept["owed_nanos"] == 13_000


@both
async def test_usage_can_be_zero_although_it_was_not(stream: bool) -> None:
    found, kept = await usage_with("zero-usage", stream)
    assert found["prompt_tokens"] == found["completion_tokens"] == found["total_tokens"] == found["cost"] == 0
    assert found["is_byok"] is False
    assert kept["owed_nanos"] == 13_000


@both
async def test_a_cost_can_be_negative(stream: bool) -> None:
    found, kept = await usage_with("negative-cost", stream)
    assert found["cost"] == Decimal("-0.000013")
    assert kept["owed_nanos"] == 13_000


@both
async def test_a_cost_can_be_no_number(stream: bool) -> None:
    answered, kept = await faulty("nan-cost", stream)
    assert '"cost":NaN,' in answered.text
    assert kept["owed_nanos"] == 13_000


@both
async def test_tokens_can_be_strings(stream: bool) -> None:
    found, _ = await usage_with("string-tokens", stream)
    assert (found["prompt_tokens"], found["completion_tokens"], found["total_tokens"]) == ("12", "8", "20")
    assert found["cost"] == Decimal("0.000013")


@both
async def test_usage_can_be_absurd(stream: bool) -> None:
    found, kept = await usage_with("absurd-usage", stream)
    assert found["prompt_tokens"] == found["completion_tokens"] == 10**12
    assert found["cost"] == Decimal("0.000013")
    assert kept["completion_tokens"] == 8


@both
async def test_a_cost_can_differ_from_tokens_times_price_and_is_owed(stream: bool) -> None:
    found, kept = await usage_with("cost-differs", stream)
    assert found["cost"] == found["cost_details"]["upstream_inference_cost"] == Decimal("0.000039")
    assert kept["owed_nanos"] == 39_000
    found, kept = await usage_with("cost-differs=0.5", stream)
    assert found["cost"] == Decimal("0.0000065")


@both
async def test_with_ones_own_provider_key_fee_and_vendor_are_both_owed(stream: bool) -> None:
    found, kept = await usage_with("byok", stream)
    assert found["is_byok"] is True
    assert found["cost"] == Decimal("0.00000065")
    assert found["cost_details"]["upstream_inference_cost"] == Decimal("0.000013")
    assert (kept["cost_nanos"], kept["owed_nanos"]) == (650, 13_650)


@both
async def test_an_answer_can_be_blank_and_is_free(stream: bool) -> None:
    answered, kept = await faulty("blank", stream)
    body = chunks(answered.text) if stream else [exact(answered.text)]
    assert body[-1]["usage"]["cost"] == body[-1]["usage"]["completion_tokens"] == 0
    assert not any(choice["finish_reason"] for chunk in body for choice in chunk["choices"])
    assert kept["owed_nanos"] == 0


@pytest.mark.parametrize("fault", ["mid-stream-error", "finish-error"])
async def test_an_error_in_the_middle_of_a_stream_comes_in_a_chunk_and_is_free(fault: str) -> None:
    answered, kept = await faulty(fault, True)
    last = chunks(answered.text)[-1]
    assert answered.status_code == 200
    assert told(answered.text) == TEXT[:16]
    assert (last["error"]["code"], last["error"]["metadata"]["error_type"]) == (502, "provider_unavailable")
    assert last["choices"][0]["finish_reason"] == "error"
    assert "[DONE]" not in answered.text
    assert (kept["owed_nanos"], kept["finish_reason"], kept["completion_tokens"]) == (0, "error", 4)


@pytest.mark.parametrize("fault", ["mid-stream-error=3", "finish-error=3"])
async def test_an_error_without_a_stream_comes_with_part_of_the_text_and_is_free(fault: str) -> None:
    answered, kept = await faulty(fault)
    (choice,) = answered.json()["choices"]
    assert answered.status_code == 200
    assert choice["message"]["content"] == TEXT[:12]
    assert (choice["finish_reason"], choice["error"]["code"]) == ("error", 502)
    assert answered.json()["usage"]["cost"] == 0
    assert kept["owed_nanos"] == 0


async def test_vllms_error_comes_before_done() -> None:
    answered, kept = await faulty("vllm-error=2", True)
    *_, error, done = payloads(answered.text)
    assert told("\n".join(answered.text.split("\n")[:-6])) == TEXT[:8]
    assert json.loads(error)["error"]["code"] == 500
    assert done == "[DONE]"
    assert kept["owed_nanos"] == 0


async def test_vllms_error_without_a_stream_is_a_500() -> None:
    answered = await without_generation("vllm-error")
    assert (answered.status_code, answered.json()["error"]["type"]) == (500, "InternalServerError")


async def test_a_stream_can_end_without_done() -> None:
    answered, kept = await faulty("no-done", True)
    assert chunks(answered.text)[-1]["usage"]["total_tokens"] == 20
    assert "[DONE]" not in answered.text
    assert kept["owed_nanos"] == 13_000


async def test_a_stream_can_end_early_and_what_was_said_is_owed() -> None:
    answered, kept = await faulty("early-eof=5", True)
    assert told(answered.text) == TEXT[:20]
    assert "[DONE]" not in answered.text
    assert not any(choice["finish_reason"] for chunk in chunks(answered.text) for choice in chunk["choices"])
    assert (kept["completion_tokens"], kept["finish_reason"]) == (5, None)
    assert kept["owed_nanos"] == 12 * 250 + 5 * 1250


@pytest.mark.parametrize("status", [402, 408, 429, 500, 502, 503, 529])
@both
async def test_an_error_before_any_token_has_openrouters_shape(status: int, stream: bool) -> None:
    answered = await without_generation(f"status={status}", stream)
    error = answered.json()["error"]
    assert answered.status_code == error["code"] == status
    assert error["message"]
    assert error["metadata"]["error_type"]
    assert ("retry-after" in answered.headers) == (status in {429, 503})


async def test_retry_after_comes_in_seconds_or_as_a_date() -> None:
    answered = await without_generation("status=429,retry-after=7")
    assert answered.headers["retry-after"] == "7"
    assert answered.json()["error"]["availability"]["retry_after"] == 7
    answered = await without_generation("status=503,retry-after-date=90")
    date = parsedate_to_datetime(answered.headers["retry-after"])
    assert date == datetime.fromtimestamp(NOON + 90, UTC)


async def test_moderation_tells_what_was_flagged() -> None:
    answered = await without_generation("moderation")
    metadata = answered.json()["error"]["metadata"]
    assert answered.status_code == 403
    assert {"reasons", "flagged_input", "provider_name", "model_slug"} <= set(metadata)
    assert len(metadata["flagged_input"]) <= 100


async def test_garbage_is_a_page_and_empty_is_nothing() -> None:
    garbage, empty = await without_generation("garbage"), await without_generation("empty")
    assert (garbage.status_code, garbage.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert (empty.status_code, empty.content) == (200, b"")


async def test_json_can_break_off() -> None:
    answered, kept = await faulty("bad-json")
    assert answered.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        answered.json()
    assert kept["owed_nanos"] == 13_000


async def test_one_event_of_a_stream_can_break_off() -> None:
    answered, _ = await faulty("bad-json", True)
    with pytest.raises(json.JSONDecodeError):
        chunks(answered.text)
    assert payloads(answered.text)[-1] == "[DONE]"


@both
async def test_a_piece_can_be_gigantic(stream: bool) -> None:
    answered, kept = await faulty("gigantic=2", stream)
    longest = max(map(len, answered.text.split("\n")))
    assert 2_000_000 < longest < 2_001_000
    assert kept["completion_tokens"] == 8


async def test_events_can_be_very_many() -> None:
    answered, kept = await faulty("many=3000", True)
    assert len(payloads(answered.text)) > 3000
    assert told(answered.text) == TEXT
    assert kept["completion_tokens"] == 8


@both
async def test_a_gzip_bomb_is_tiny_on_the_wire(stream: bool) -> None:
    async with in_process(a_sandbox()) as http:
        headers = {"x-sandbox-fault": "gzip-bomb=5"}
        async with http.stream("POST", CHAT, json=a_chat(TEXT, stream=stream), headers=headers) as answered:
            raw = b"".join([part async for part in answered.aiter_raw()])
    assert answered.headers["content-encoding"] == "gzip"
    assert len(raw) < 20_000
    text = gzip.decompress(raw).decode()
    assert len(text) > 5_000_000
    assert (told(text) if stream else json.loads(text)["choices"][0]["message"]["content"]) == TEXT


def test_a_gzip_bomb_is_made_as_it_is_sent() -> None:
    bomb = OutputEncoder(faults.parse("gzip-bomb=100000")).bomb(b"", b"")
    assert sum(len(next(bomb)) for _ in range(5)) < 20_000


async def test_a_redirect_leads_to_where_no_proxy_should_go() -> None:
    answered = await without_generation("redirect")
    assert (answered.status_code, answered.headers["location"]) == (302, "http://169.254.169.254/")
    assert (await without_generation("redirect=https://a.test/b")).headers["location"] == "https://a.test/b"


@both
async def test_the_answer_can_set_a_cookie(stream: bool) -> None:
    answered, _ = await faulty("set-cookie", stream)
    assert answered.headers["set-cookie"].startswith("sandbox=1")


@both
async def test_the_answer_can_name_another_model(stream: bool) -> None:
    for fault, name in {"wrong-model": "sandbox/somebody-else", "wrong-model=sandbox/words": "sandbox/words"}.items():
        answered, kept = await faulty(fault, stream)
        named = chunks(answered.text)[0] if stream else answered.json()
        assert named["model"] == name
        assert (kept["model"], kept["owed_nanos"]) == ("sandbox/echo", 13_000)


@both
async def test_the_id_can_be_missing(stream: bool) -> None:
    answered, _ = await faulty("no-id", stream)
    first = chunks(answered.text)[0] if stream else answered.json()
    assert "x-generation-id" not in answered.headers
    assert "id" not in first


async def test_a_generation_can_come_late_or_never() -> None:
    clock = Clock()
    sandbox = a_sandbox(clock, generation_delay_seconds=0)
    late = (await post(sandbox, a_chat(), fault="late-generation=60")).json()["id"]
    never = (await post(sandbox, a_chat(), fault="no-generation")).json()["id"]
    soon = (await post(sandbox, a_chat())).json()["id"]
    seen = []
    for wait in (0, 59, 2):
        clock.now += wait
        found = [await get(sandbox, "/api/v1/generation", id=one) for one in (soon, late, never)]
        seen.append([answered.status_code for answered in found])
    assert seen == [[200, 404, 404], [200, 404, 404], [200, 200, 404]]


# Over a real connection: what only shows there.


@pytest.mark.parametrize("fault", ["stall-before", "stall-before=3600", "hold-until=1000000"])
def test_what_strangers_ask_for_is_lowered(fault: str) -> None:
    (name,) = faults.parse(fault).bounded()._values
    assert faults.parse(fault).bounded().number(name) == faults.MOST[name]
    assert faults.parse(f"{name}=0.5").bounded().number(name) == 0.5


def test_no_fault_of_strangers_lasts_or_weighs_without_end() -> None:
    """Each that has a number lasts seconds, weighs megabytes, or costs nothing however large it is."""
    weightless = {
        "absurd-usage", "cost-differs", "mid-stream-error", "finish-error", "vllm-error", "cut", "early-eof", "status",
        "corrected", "retry-after", "retry-after-date", "stall-after", "late-generation", "tool-steps",
    }  # fmt: skip
    numbers = {name for name, value in faults.DEFAULTS.items() if value is not None and name not in faults.WORDS}
    assert numbers == weightless | set(faults.MOST)
    assert faults.parse("stall-after").bounded().stall_seconds == faults.LONGEST_STALL
    assert faults.parse("slow=3600").bounded().pace(0, 10_000) * 10_000 == pytest.approx(faults.LONGEST_SLOWNESS)


async def test_a_bounded_sandbox_says_little_and_keeps_little() -> None:
    sandbox = create_bounded_sandbox()
    loud = {"model": "sandbox/words", "max_tokens": 100_000, "n": 100}
    answered = await post(sandbox, a_chat(**loud, user="u" * 1000, metadata={"x": "y" * 1000}), fault="gigantic=500")
    assert answered.json()["usage"]["completion_tokens"] == BOUNDED.most_tokens
    assert len(answered.content) < 2_000_000
    assert (await entry(sandbox))["parameters"] == {"model": "sandbox/words", "user": "u" * 200}
    assert len((await post(sandbox, a_chat(stream=True), fault="many=999999")).content) < 2_000_000


@pytest.fixture(scope="module")
def listening() -> Any:
    sandbox = a_sandbox()
    with serving(sandbox) as url:
        yield sandbox, url


@pytest.fixture
async def there(listening: tuple[Sandbox, str]) -> AsyncIterator[tuple[Sandbox, httpx.AsyncClient]]:
    """A sandbox that listens and has forgotten the tests before, and a client of it."""
    sandbox, url = listening
    async with over_tcp(url) as http:
        await http.post("/sandbox/reset")
        yield sandbox, http


There = tuple[Sandbox, httpx.AsyncClient]


async def kept_there(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = (await http.get("/sandbox/ledger")).json()["generations"]
    return listed


async def finished_there(http: httpx.AsyncClient) -> dict[str, Any]:
    async def finished() -> bool:
        return any(one["finished"] for one in await kept_there(http))

    await until(finished)
    return (await kept_there(http))[0]


async def read_until_it_ends(http: httpx.AsyncClient, fault: str, **body: Any) -> tuple[bytes, Exception | None]:
    headers = {"x-sandbox-fault": fault}
    async with http.stream("POST", CHAT, json=a_chat(TEXT, **body), headers=headers) as answered:
        assert answered.status_code == 200
        return await collected(answered.aiter_bytes())


async def test_a_stream_can_be_cut_and_what_was_said_is_owed(there: There) -> None:
    seen, error = await read_until_it_ends(there[1], "cut=3", stream=True)
    assert isinstance(error, httpx.RemoteProtocolError)
    assert told(seen.decode()) == TEXT[:12]
    kept = await finished_there(there[1])
    assert (kept["completion_tokens"], kept["finish_reason"], kept["cancelled"]) == (3, None, False)
    assert kept["owed_nanos"] == 12 * 250 + 3 * 1250


async def test_a_body_can_be_cut_short_of_its_content_length(there: There) -> None:
    headers = {"x-sandbox-fault": "cut"}
    async with there[1].stream("POST", CHAT, json=a_chat(TEXT), headers=headers) as answered:
        seen, error = await collected(answered.aiter_bytes())
    assert isinstance(error, httpx.RemoteProtocolError)
    assert 0 < len(seen) < int(answered.headers["content-length"])
    assert (await finished_there(there[1]))["owed_nanos"] == 13_000


async def test_a_stream_arrives_split_and_whole(there: There) -> None:
    seen, error = await read_until_it_ends(there[1], "split-utf8,crlf,comments", stream=True, model="sandbox/echo")
    assert error is None
    assert told(seen.decode()) == TEXT


async def test_a_stall_before_the_first_byte_makes_no_generation_when_the_client_leaves(there: There) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await there[1].post(CHAT, json=a_chat(), headers={"x-sandbox-fault": "stall-before"}, timeout=IMPATIENT)
    assert await kept_there(there[1]) == []


async def test_a_short_stall_before_the_first_byte_ends(there: There) -> None:
    started = anyio.current_time()
    answered = await there[1].post(CHAT, json=a_chat(), headers={"x-sandbox-fault": "stall-before=0.05"})
    assert answered.status_code == 200
    assert anyio.current_time() - started >= 0.05


@both
async def test_a_stall_in_the_middle_lasts_until_the_client_leaves(there: There, stream: bool) -> None:
    http = there[1]
    headers = {"x-sandbox-fault": "stall-after=3"}
    async with (
        http.stream("POST", CHAT, json=a_chat(TEXT, stream=stream), headers=headers) as answered,
        aclosing(answered.aiter_bytes()) as pieces,
    ):
        seen = b""
        async for piece in pieces:
            seen += piece
            if not stream or (seen.endswith(b"\n\n") and told(seen.decode()) == TEXT[:12]):
                break
    kept = await finished_there(http)
    if stream:
        assert (kept["completion_tokens"], kept["cancelled"]) == (3, True)
        assert kept["owed_nanos"] == 12 * 250 + 3 * 1250
    else:
        assert 0 < len(seen) < int(answered.headers["content-length"])
        assert kept["owed_nanos"] == 13_000


@both
async def test_slow_takes_its_time_for_each_token(there: There, stream: bool) -> None:
    started = anyio.current_time()
    seen, _ = await read_until_it_ends(there[1], "slow=0.01", stream=stream)
    assert anyio.current_time() - started >= 0.08
    assert seen


async def test_the_gate_opens_when_enough_wait_at_once(there: There) -> None:
    http = there[1]
    statuses: list[int] = []

    async def ask() -> None:
        answered = await http.post(CHAT, json=a_chat(), headers={"x-sandbox-fault": "hold-until=3"})
        statuses.append(answered.status_code)

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        group.start_soon(ask)
        await until(lambda: held(http, 2))
        assert statuses == []
        group.start_soon(ask)
    assert statuses == [200, 200, 200]
    assert len(await kept_there(http)) == 3


async def held(http: httpx.AsyncClient, how_many: int) -> bool:
    return bool((await http.get("/sandbox/ledger")).json()["held"] == how_many)


async def test_the_gate_gives_up_when_too_few_come() -> None:
    answered = await post(a_sandbox(gate_seconds=0.02), a_chat(), fault="hold-until=3")
    assert answered.status_code == 504
    assert answered.json()["error"]["message"].endswith("3 requests at once; 1 came")


async def test_who_leaves_the_gate_is_not_counted(there: There) -> None:
    http = there[1]
    headers = {"x-sandbox-fault": "hold-until=2"}
    for _ in range(2):
        with pytest.raises(httpx.ReadTimeout):
            await http.post(CHAT, json=a_chat(), headers=headers, timeout=IMPATIENT)
        await until(lambda: held(http, 0))
    assert await kept_there(http) == []


@pytest.mark.parametrize(("fault", "said"), [("bill=produced", None), ("bill=all", 100)])
async def test_a_client_that_leaves_pays_for_what_was_said_or_for_all(
    there: There, fault: str, said: int | None
) -> None:
    http = there[1]
    body = a_chat(model="sandbox/words", max_tokens=100, stream=True)
    headers = {"x-sandbox-fault": f"slow=0.1,{fault}"}
    async with http.stream("POST", CHAT, json=body, headers=headers) as answered:
        async for line in answered.aiter_lines():
            if "one" in line:
                break
    kept = await finished_there(http)
    assert kept["cancelled"] is True
    assert kept["finish_reason"] is None
    assert kept["completion_tokens"] == said if said else 1 <= kept["completion_tokens"] < 100
    assert kept["owed_nanos"] == kept["prompt_tokens"] * 500 + kept["completion_tokens"] * 1500


async def test_a_client_that_leaves_before_the_whole_answer_pays_for_all_of_it(there: There) -> None:
    http = there[1]
    body = a_chat(model="sandbox/words", max_tokens=100)
    with pytest.raises(httpx.ReadTimeout):
        await http.post(CHAT, json=body, headers={"x-sandbox-fault": "slow=1"}, timeout=IMPATIENT)
    kept = await finished_there(http)
    assert (kept["cancelled"], kept["completion_tokens"], kept["finish_reason"]) == (True, 100, "length")


async def test_a_habit_slows_every_token_and_bills_all_of_a_cancelled_stream() -> None:
    sandbox = a_sandbox(token_delay_seconds=0.5, bill_cancelled="all")
    with serving(sandbox) as url:
        async with over_tcp(url) as http:
            body = a_chat(model="sandbox/words", stream=True)
            async with http.stream("POST", CHAT, json=body) as answered:
                await anext(answered.aiter_lines())
            kept = await finished_there(http)
    assert (kept["cancelled"], kept["completion_tokens"]) == (True, 20)


async def test_a_cancelled_generation_is_found_as_cancelled() -> None:
    sandbox = a_sandbox(generation_delay_seconds=0)
    with serving(sandbox) as url:
        async with over_tcp(url) as http:
            headers = {"x-sandbox-fault": "stall-after=3"}
            async with http.stream("POST", CHAT, json=a_chat(TEXT, stream=True), headers=headers) as answered:
                generation = answered.headers["x-generation-id"]
                async for line in answered.aiter_lines():
                    if TEXT[8:12] in line:
                        break
            await finished_there(http)
            found = exact((await http.get("/api/v1/generation", params={"id": generation})).text)["data"]
    assert found["cancelled"] is True
    assert found["tokens_completion"] in {2, 3}
    assert found["total_cost"] == 12 * Decimal("0.00000025") + found["tokens_completion"] * Decimal("0.00000125")
