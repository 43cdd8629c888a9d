"""Files of sound: kept out of memory, held for the most that they can be, and charged for what they are."""

import base64
import contextlib
import io
import json
import time
import wave
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from secrets import randbits
from typing import Any

import httpx
import pytest

from completions.asks import TRANSCRIPTIONS, TRANSLATIONS
from completions.paid import Line, eventually
from completions.stage import Stage, before, staged
from gateway import Upstream
from people import Person
from process.test_spools import files
from sandbox.serving import PATIENCE_SECONDS, serving
from servers.process import free_port
from tollgate.catalog import store as catalog
from tollgate.core.models import Dialect
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.keys.authentication import console
from tollgate.process.spools import BLOCK_BYTES
from tollgate.sandbox.app import Sandbox
from tollgate.sandbox.catalog import Catalog
from tollgate.sandbox.models import MODELS
from tollgate.sandbox.state import Habits, State
from tollgate.upstreams import store as upstreams
from upstreams.scripted import Play, Scripted, answer, cut, hang, streamed
from upstreams.test_uploads import form_of

PATH = "/v1" + TRANSCRIPTIONS
EAR, BY_TOKENS = "sandbox/ear", "sandbox/ear-tokens"
SECOND = 100_000
"""Nanos."""
FAULTS = ("no-usage", "negative-cost", "nan-cost", "finish-error", "bad-json", "status=500", "stall-after=2")


def wav(seconds: float) -> bytes:
    made = io.BytesIO()
    with wave.open(made, "wb") as writing:
        writing.setnchannels(1)
        writing.setsampwidth(2)
        writing.setframerate(8_000)
        writing.writeframes(bytes(range(250)) * round(64 * seconds))
    return made.getvalue()


SOUND = wav(12.5)
LONG = wav(60)
"""More than a block: it is in a file."""


def as_json(sound: bytes = SOUND, model: str = EAR, **more: Any) -> dict[str, Any]:
    return {"model": model, "input_audio": {"data": base64.b64encode(sound).decode(), "format": "wav"}, **more}


@pytest.fixture(scope="module")
async def stage(shared_database: str) -> AsyncIterator[Stage]:
    (ear,) = (model for model in MODELS if model.id == EAR)
    faulty = [replace(ear, id=f"{EAR}@{fault}") for fault in FAULTS]
    sandbox = Sandbox(State(Habits(generation_delay_seconds=0), Catalog([*MODELS, *faulty]), time.time, randbits))
    with serving(sandbox) as address, before(Upstream(sandbox, address), shared_database) as gateway:
        async with staged(gateway, shared_database) as made:
            yield made


@pytest.fixture(autouse=True)
def no_file_is_left(stage: Stage) -> Iterator[None]:
    """The server closes a spool when the request is over, which may be a moment after its answer."""
    before = files()
    yield
    deadline = time.monotonic() + PATIENCE_SECONDS
    while files() != before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert files() == before


async def upload(
    stage: Stage, someone: Person, sound: bytes = SOUND, path: str = PATH, /, headers: Any = (), **fields: Any
) -> httpx.Response:
    given = {"authorization": f"Bearer {someone.secret}", **dict(headers)}
    data = {"model": EAR, **fields}
    file = {"file": ("speech.wav", sound, "audio/wav")}
    return await stage.http.post(stage.gateway.address + path, headers=given, data=data, files=file)


@pytest.mark.parametrize("path", [PATH, "/api" + PATH])
@pytest.mark.parametrize(("model", "tokens"), [(EAR, (0, 0)), (BY_TOKENS, (13, 7))])
@pytest.mark.parametrize("sound", [SOUND, LONG], ids=["in memory", "in a file"])
async def test_a_form_is_charged_what_it_cost(
    stage: Stage, path: str, model: str, tokens: tuple[int, int], sound: bytes
) -> None:
    someone = await stage.customer()
    owed = stage.gateway.upstream.owed_nanos
    said = await upload(stage, someone, sound, path, model=model, language="en", prompt="Names: Åse.")
    assert said.status_code == 200, said.text
    seconds = 13 if sound is SOUND else 60
    assert said.json()["text"] == f"The sandbox heard {seconds} seconds of sound."
    cost = stage.gateway.upstream.owed_nanos - owed
    row = await stage.row(someone)
    assert row["charge_nanos"] == cost == int(said.headers["x-tollgate-charge-nanos"]) <= row["hold_nanos"]
    assert (row["state"], row["endpoint"], row["estimated"]) == ("settled", "transcriptions", False)
    assert row["usage"]["seconds"] in (seconds, str(seconds))
    assert await stage.money(someone) == (NANOS_PER_CREDIT - cost, 0)
    if model == EAR:
        assert cost == seconds * SECOND
        assert row["hold_nanos"] < 2 * cost


async def test_openrouters_json_is_the_same_call(stage: Stage) -> None:
    someone = await stage.customer()
    said = await stage.post(someone, as_json(language="en", temperature=0.5, user="u-1"), "/api" + PATH)
    assert said.status_code == 200, said.text
    (*_, seen) = stage.gateway.upstream.generations()
    assert seen["parameters"] == {"model": EAR, "language": "en", "temperature": 0.5, "user": "u-1"}
    assert await stage.charged(someone) == 13 * SECOND


async def test_a_file_without_a_model_is_for_the_default(stage: Stage) -> None:
    for as_form in (True, False):
        someone = await stage.customer()
        await stage.sql("update tollgate.orgs set default_model = $1 where id = $2", EAR, someone.org_id)
        if as_form:
            file = {"file": ("speech.wav", SOUND, "audio/wav")}
            headers = {"authorization": f"Bearer {someone.secret}"}
            said = await stage.http.post(stage.gateway.address + PATH, headers=headers, files=file)
        else:
            said = await stage.post(someone, as_json(model=None), PATH)
        assert said.status_code == 200, said.text
        (*_, seen) = stage.gateway.upstream.generations()
        assert seen["parameters"]["model"] == (await stage.row(someone))["model"] == EAR


@pytest.mark.parametrize(
    ("wanted", "kind", "told"),
    [
        ("text", "text/plain; charset=utf-8", "The sandbox heard 13 seconds of sound.\n"),
        ("srt", "application/x-subrip", "1\n00:00:00,000 --> 00:00:13,000\n"),
        ("vtt", "text/vtt", "WEBVTT\n\n"),
        ("verbose_json", "application/json", '{"text":"The sandbox heard 13 seconds of sound.","task":"transcribe"'),
    ],
)
async def test_a_text_is_passed_on_and_charged_by_its_record(stage: Stage, wanted: str, kind: str, told: str) -> None:
    """OpenRouter's record of it, since the text states nothing."""
    someone = await stage.customer()
    said = await upload(stage, someone, response_format=wanted)
    assert (said.status_code, said.headers["content-type"]) == (200, kind)
    assert said.text.startswith(told)
    if wanted != "verbose_json":
        assert "x-tollgate-charge-nanos" not in said.headers
        assert (await stage.row(someone))["state"] == "unsettled"
        await stage.sweep(someone)
    assert (await stage.row(someone))["state"] == "settled"
    assert await stage.money(someone) == (NANOS_PER_CREDIT - 13 * SECOND, 0)


@pytest.mark.parametrize("flag", ["true", "True", "1"])
async def test_a_stream_is_settled_before_its_last_event(stage: Stage, flag: str) -> None:
    someone = await stage.customer(markup_ppm=500_000)
    said = await upload(stage, someone, stream=flag, headers={"x-tollgate-usage": "true"})
    assert said.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in said.text.splitlines() if line.startswith("data: {")]
    *deltas, done = events
    assert "".join(one["delta"] for one in deltas) == done["text"] == "The sandbox heard 13 seconds of sound."
    assert (done["type"], done["usage"]["seconds"]) == ("transcript.text.done", 13)
    assert done["usage"]["cost"] == 0.00195
    assert done["usage"]["tollgate"]["charge_nanos"] == 13 * SECOND * 3 // 2 == await stage.charged(someone)
    assert said.text.endswith("data: [DONE]\n\n")


async def test_a_model_that_does_not_hear_is_refused(stage: Stage) -> None:
    someone = await stage.customer()
    refused = await upload(stage, someone, model="sandbox/echo")
    assert (refused.status_code, refused.json()["error"]["message"]) == (
        400, "sandbox/echo cannot be used on this endpoint",
    )  # fmt: skip
    refused = await upload(stage, someone, SOUND, "/v1" + TRANSLATIONS)
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "endpoint_not_served")
    assert await stage.money(someone) == (NANOS_PER_CREDIT, 0)


async def test_what_a_sound_may_cost_at_most_is_held(stage: Stage) -> None:
    """It is too long for the balance: by the exact length of its samples, or by the least rate of its format."""
    someone = await stage.customer(nanos=10_000_000)
    refused = (await upload(stage, someone, wav(101))).json()["error"]
    assert (refused["code"], refused["required_nanos"]) == ("insufficient_credits", 101 * SECOND)
    assert (await upload(stage, someone, wav(100))).status_code == 200
    someone = await stage.customer(nanos=10_000_000)
    refused = (await upload(stage, someone, b"\xff\xfb\x90\x00" + bytes(101_000 - 4))).json()["error"]
    assert refused["required_nanos"] == 101 * SECOND


@pytest.mark.parametrize("kind", ["form", "json"])
async def test_a_repetition_is_answered_from_what_was_stored(stage: Stage, kind: str) -> None:
    """The boundary of a form is another each time."""
    someone = await stage.customer()

    async def ask(sound: bytes = SOUND, **fields: Any) -> httpx.Response:
        headers = {"idempotency-key": "one"}
        if kind == "form":
            return await upload(stage, someone, sound, headers=headers, **fields)
        return await stage.post(someone, as_json(sound, **fields), PATH, **headers)

    first, again = await ask(), await ask()
    assert again.content == first.content
    assert again.headers["idempotency-replayed"] == "true"
    for other in (await ask(SOUND + b"\0"), await ask(language="en")):
        assert other.json()["error"]["code"] == "idempotency_key_reused"
    assert await stage.charged(someone) == 13 * SECOND


def form(*parts: bytes, boundary: bytes = b"b", end: bytes = b"--b--\r\n") -> tuple[bytes, str]:
    body = b"".join(b"--b\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts)
    return body + end, f"multipart/form-data; boundary={boundary.decode()}"


MODEL = b'name="model"\r\n\r\nsandbox/ear'
FILE = b'name="file"; filename="a.wav"\r\n\r\n' + SOUND
REFUSED: dict[str, tuple[tuple[bytes, str], str]] = {
    "no boundary": ((b"x", "multipart/form-data"), "with its boundary"),
    "not a form": ((b"x" * 5_000, "multipart/form-data; boundary=b"), "does not come"),
    "another boundary": (form(MODEL, FILE, boundary=b"c"), "does not come"),
    "cut": (form(MODEL, FILE, end=b""), "ends before"),
    "empty": ((b"", "multipart/form-data; boundary=b"), "ends before"),
    "no file": (form(MODEL), "file: send a file"),
    "an empty file": (form(MODEL, b'name="file"; filename="a.wav"\r\n\r\n'), "file: send a file"),
    "two files": (form(MODEL, FILE, FILE), "file: send one file"),
    "another file": (form(MODEL, FILE, b'name="image"; filename="a.png"\r\n\r\nx'), "image: is a file"),
    "no model": (form(FILE), "model: name one"),
    "two models": (form(MODEL, FILE, MODEL), "model: send it once"),
    "fallbacks": (form(MODEL, FILE, b'name="models[]"\r\n\r\nsandbox/ear'), "models: this endpoint"),
    "a nested form": (form(MODEL, b'name="x"\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n'), "x: send a value"),
    "a long head": (form(MODEL, b'name="' + b"x" * 5_000 + b'"\r\n\r\n'), "longer than 4096"),
    "many parts": (form(*[b'name="x[]"\r\n\r\n'] * 65), "more than 64"),
    "long fields": (form(MODEL, b'name="prompt"\r\n\r\n' + b"x" * 70_000, FILE), "more than 65536"),
    "not text": (form(MODEL, FILE, b'name="prompt"\r\n\r\n\xff'), "prompt: is not UTF-8"),
    "a strange name": (form(MODEL, FILE, b'name="a b"\r\n\r\nx'), "The name of a field"),
    "a strange flag": (form(MODEL, FILE, b'name="stream"\r\n\r\nperhaps'), "stream: send true or false"),
    "a key": (form(MODEL, FILE, b'name="api_key"\r\n\r\nsk-1'), "api_key: Tollgate chooses"),
    "a key in brackets": (form(MODEL, FILE, b'name="api_key[]"\r\n\r\nsk-1'), "api_key: Tollgate chooses"),
    "another body": (form(MODEL, FILE, b'name="extra_body[n]"\r\n\r\n1'), "extra_body: Tollgate adds"),
    "an extra": (form(MODEL, FILE, b'name="service_tier"\r\n\r\npriority'), "service_tier"),
}


@pytest.mark.parametrize(("sent", "told"), REFUSED.values(), ids=REFUSED)
async def test_a_hostile_form_is_refused_and_costs_nothing(stage: Stage, sent: tuple[bytes, str], told: str) -> None:
    someone = await stage.customer()
    body, kind = sent
    refused = await stage.post(someone, body, PATH, **{"content-type": kind})
    assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error"), refused.text
    assert told in refused.json()["error"]["message"]
    assert await stage.rows(someone) == []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"input_audio": None}, "input_audio: send the sound"),
        ({"input_audio": "x"}, "input_audio: send an object"),
        ({"input_audio": {"data": "UklG"}}, "input_audio.format"),
        ({"input_audio": {"data": "UklG", "format": "../x"}}, "input_audio.format"),
        ({"input_audio": {"data": "UklG\n", "format": "wav"}}, "input_audio.data: is not Base64"),
        ({"input_audio": {"data": "data:audio/wav;base64,UklG", "format": "wav"}}, "input_audio.data: is not Base64"),
        ({"model": None}, "model: name one"),
        ({"models": [EAR]}, "models: this endpoint"),
        ({"api_key": "sk-1"}, "api_key: Tollgate chooses"),
        ({"stream": "yes"}, "stream: send true or false"),
        ({"provider": {"options": {"deepgram": {"x": 1}}}}, "provider.options"),
    ],
)
async def test_json_that_cannot_be_priced_is_refused(stage: Stage, changed: dict[str, Any], told: str) -> None:
    someone = await stage.customer()
    refused = await stage.post(someone, as_json() | changed, PATH)
    assert refused.status_code == 400, refused.text
    assert told in refused.json()["error"]["message"]
    assert await stage.rows(someone) == []


FORM, JSON = "multipart/form-data; boundary=b", "application/json"


@pytest.mark.parametrize(("kind", "most"), [(FORM, 26), (JSON, 20)])
@pytest.mark.parametrize("says_its_size", [True, False])
async def test_a_form_and_json_have_limits_of_their_own(
    stage: Stage, kind: str, most: int, says_its_size: bool
) -> None:
    someone = await stage.customer()
    line = await Line.opened(stage.gateway.address)
    size = {"content-length": str(most * 2**20 + 1)} if says_its_size else {"transfer-encoding": "chunked"}
    await line.open(someone, PATH, **size, **{"content-type": kind})
    if not says_its_size:
        begun = b"--b\r\nContent-Disposition: form-data; " + FILE
        await line.send(begun, chunked=True)
        for _ in range(most - 1):
            await line.send(bytes(2**20), chunked=True)
        # Nothing is behind the byte that is too much: a server that closes with bytes unread resets the connection,
        # and its answer may be lost.
        rest = 2**20 + 1 - len(begun)
        await line.send(b"%x\r\n" % rest + bytes(rest))
    assert await line.status() == 413
    line.hang_up()
    assert await stage.rows(someone) == []


@pytest.mark.parametrize("part", [20, 150, 70_000, len(LONG)])
async def test_a_client_that_leaves_while_it_sends_leaves_nothing(stage: Stage, part: int) -> None:
    someone, before = await stage.customer(), files()
    body, kind = form(MODEL, FILE[: -len(SOUND)] + LONG)
    line = await Line.opened(stage.gateway.address)
    await line.open(someone, PATH, **{"content-type": kind, "content-length": str(len(body))})
    await line.send(body[:part])
    if part > BLOCK_BYTES:
        await eventually(lambda: files() == before + 1)
    line.hang_up()
    await eventually(lambda: files() == before)
    assert (await upload(stage, someone)).status_code == 200
    assert await stage.charged(someone) == 13 * SECOND


async def test_a_key_that_is_not_known_gets_no_room(stage: Stage) -> None:
    """Its file is refused before more than a block of it was read."""
    someone = await stage.customer()
    someone.secret = "sk-or-v1-nobody-has-ever-seen-this"
    body, kind = form(MODEL, FILE[: -len(SOUND)] + LONG)
    line = await Line.opened(stage.gateway.address)
    await line.open(someone, PATH, **{"content-type": kind, "content-length": str(len(body))})
    assert await line.status() == 401
    line.hang_up()


@pytest.mark.parametrize(
    ("fault", "state", "status"),
    [
        ("no-usage", "unsettled", 200),
        ("negative-cost", "unsettled", 200),
        ("nan-cost", "unsettled", 502),
        ("finish-error", "settled", 200),
        ("bad-json", "unsettled", 502),
        ("status=500", "released", 500),
    ],
)
async def test_what_goes_wrong_is_settled_by_the_record(stage: Stage, fault: str, state: str, status: int) -> None:
    someone, before = await stage.customer(), stage.gateway.upstream.owed_nanos
    said = await upload(stage, someone, LONG, model=f"{EAR}@{fault}")
    assert (said.status_code, (await stage.row(someone))["state"]) == (status, state), said.text
    await eventually(stage.all_ended)
    await stage.sweep(someone)
    assert (await stage.row(someone))["state"] in ("settled", "released")
    assert await stage.charged(someone) == stage.gateway.upstream.owed_nanos - before


TEXT = {"text": "Nine crates of limes."}
STATED = {"usage": {"type": "duration", "seconds": 11}}
OWN = 20_000
"""Nanos for a second."""
DELTA = b'data: {"type":"transcript.text.delta","delta":"Nine crates"}\n\n'
DONE = b'data: {"type":"transcript.text.done","text":"Nine crates","usage":{"type":"duration","seconds":11}}\n\n'
CHUNK = (
    b'data: {"object":"transcription.chunk","choices":[{"delta":{"content":"Nine crates"},"finish_reason":null}]}\n\n'
)
STOP = b'data: {"object":"transcription.chunk","choices":[{"delta":{"content":""},"finish_reason":"stop"}]}\n\n'
COUNTS = b'data: {"choices":[],"usage":{"prompt_tokens":40,"completion_tokens":3}}\n\ndata: [DONE]\n\n'


def said(document: dict[str, Any], **more: Any) -> Play:
    return answer(json.dumps(document).encode(), **more)


BY_SECOND = {"prompt": "0", "completion": "0", "second": "0.00002"}
SERVERS: dict[str, tuple[Dialect, dict[str, str]]] = {
    "openai": ("openai", BY_SECOND),
    "vllm": ("vllm", BY_SECOND),
    "sglang": ("sglang", BY_SECOND),
    "llamacpp": ("llamacpp", BY_SECOND),
    "by tokens": ("openai", {"prompt": "0.000001", "completion": "0.000002"}),
    "vllm by tokens": ("vllm", {"prompt": "0.000001", "completion": "0"}),
    "breaking": ("openai", BY_SECOND),
    "other": ("openai", BY_SECOND),
    "left": ("openai", BY_SECOND),
    "by letters": ("openai", {"prompt": "0", "completion": "0", "character": "0.01"}),
}
"""Of the operator's own, by a name: its dialect and the prices of its model."""


class Own:
    """A gateway with all of these servers in its catalog. A test says what one of them plays."""

    def __init__(self, stage: Stage, ports: dict[str, int]) -> None:
        self.stage = stage
        self._ports = ports

    @contextlib.asynccontextmanager
    async def serving(self, name: str, *plays: Play) -> AsyncIterator[tuple[Scripted, str]]:
        """A server, and the name of its model."""
        server = Scripted(*plays)
        server.port = self._ports[name]
        async with server.listening():
            yield server, model_of(name)


def model_of(name: str) -> str:
    return f"ours/{name.replace(' ', '-')}"


@pytest.fixture(scope="module")
async def own(shared_database: str, stage: Stage) -> AsyncIterator[Own]:
    ports = {name: free_port() for name in SERVERS}
    operator = console(stage.door, "tests")

    async def add(name: str, url: str, dialect: str, pricing: dict[str, str], **more: Any) -> None:
        made = await upstreams.make(
            operator,
            {
                "name": f"ear-{name.replace(' ', '-')}-{randbits(40)}",
                "base_url": url,
                "dialect": dialect,
                "secret_name": "EAR_KEY",
            },
        )
        route = {"model": model_of(name), "upstream_id": made["id"], "pricing": pricing, **more}
        await catalog.put_route(operator, route)

    for name, (dialect, pricing) in SERVERS.items():
        more = {"model": model_of("breaking"), "upstream_model": "theirs", "priority": 200} if name == "other" else {}
        await add(name, f"http://127.0.0.1:{ports[name]}/v1", dialect, pricing, **more)
    sandbox = stage.gateway.upstream
    await add("sandbox", sandbox.url, "openai", BY_SECOND | {"request": "0.01"}, upstream_model=EAR)
    with before(sandbox, shared_database, PRIVATE_UPSTREAMS="true", EAR_KEY="sk-of-the-ear") as gateway:
        async with staged(gateway, shared_database) as made:
            yield Own(made, ports)


@pytest.mark.parametrize("dialect", ["openai", "vllm", "sglang", "llamacpp"])
@pytest.mark.parametrize("kind", ["form", "json"])
async def test_every_server_of_ones_own_gets_a_form(own: Own, dialect: str, kind: str) -> None:
    more = {"language": "de", "prompt": "Åse", "temperature": "0.5"}
    async with own.serving(dialect, said(TEXT | STATED)) as (server, model):
        someone = await own.stage.customer()
        if kind == "form":
            granular = {"timestamp_granularities[]": ["word", "segment"]}
            heard = await upload(own.stage, someone, LONG, model=model, **more, **granular)
        else:
            granular = {"timestamp_granularities": ["word", "segment"]}
            sent = as_json(LONG, model, **more, **granular, provider={"order": ["x"]})
            heard = await own.stage.post(someone, sent, PATH)
    assert heard.json() == TEXT | STATED
    (seen,) = server.seen
    boundary = seen.headers["content-type"].removeprefix("multipart/form-data; boundary=")
    fields = form_of(seen, boundary.encode())
    assert fields[0] == ("model", model.encode())
    assert fields[-1] == ("file", LONG)
    assert [name for name, _ in fields].count("timestamp_granularities[]") == 2
    assert dict(fields).keys() == {"model", "file", "timestamp_granularities[]", *more}
    assert boundary not in heard.request.headers["content-type"]
    row = await own.stage.row(someone)
    assert (row["charge_nanos"], row["hold_nanos"], row["estimated"]) == (11 * OWN, 60 * OWN, False)
    assert row["usage"]["seconds"] == 11


@pytest.mark.parametrize(
    ("play", "asked", "seconds"),
    [
        (said(TEXT | STATED), {}, 11),
        (said(TEXT | {"usage": {"seconds": 10.5}}), {}, 10.5),
        (said(TEXT | {"duration": "11.5"}), {"response_format": "verbose_json"}, 11.5),
        (said(TEXT | {"duration": 11.25}), {"response_format": "verbose_json"}, 11.25),
        (said(TEXT), {}, 13),
        (said(TEXT | {"duration": "long", "usage": {"seconds": -1}}), {}, 13),
        (said(TEXT | {"usage": {"seconds": 10_000}}), {}, 13),
        (answer(b"Nine crates", kind="text/plain"), {"response_format": "text"}, 13),
        (answer(b"1\n00:00", kind="application/x-subrip"), {"response_format": "srt"}, 13),
        (streamed(DELTA, DONE), {"stream": "true"}, 11),
        (streamed(DELTA, b'data: {"type":"transcript.text.done","text":"Nine"}\n\n'), {"stream": "true"}, 13),
        (streamed(DELTA, then=cut), {"stream": "true"}, 13),
    ],
)
async def test_seconds_are_charged_as_stated_or_as_estimated_and_never_beyond_the_hold(
    own: Own, play: Play, asked: dict[str, str], seconds: float
) -> None:
    async with own.serving("openai", play) as (_, model):
        someone = await own.stage.customer()
        heard = await upload(own.stage, someone, SOUND, model=model, **asked)
    assert heard.status_code == 200
    row = await own.stage.row(someone)
    assert (row["state"], row["charge_nanos"]) == ("settled", seconds * OWN)
    assert row["charge_nanos"] <= row["hold_nanos"] == 13 * OWN
    assert await own.stage.money(someone) == (NANOS_PER_CREDIT - row["charge_nanos"], 0)


async def test_tokens_are_charged_where_they_are_priced_and_estimated_where_nothing_is_said(own: Own) -> None:
    counts = {"type": "tokens", "input_tokens": 130, "output_tokens": 5, "total_tokens": 135}
    async with own.serving("by tokens", said(TEXT | {"usage": counts}), said(TEXT)) as (_, model):
        someone = await own.stage.customer()
        for _ in range(2):
            assert (await upload(own.stage, someone, SOUND, model=model)).status_code == 200
    stated, estimated = await own.stage.rows(someone)
    assert (stated["charge_nanos"], stated["estimated"]) == (130 * 1_000 + 5 * 2_000, False)
    assert estimated["estimated"]
    assert 13 * 32 * 1_000 < estimated["charge_nanos"] <= estimated["hold_nanos"]


async def test_vllm_is_asked_for_its_usage_which_is_not_shown(own: Own) -> None:
    async with own.serving("vllm by tokens", streamed(CHUNK, STOP, COUNTS)) as (server, model):
        someone = await own.stage.customer()
        heard = await upload(own.stage, someone, SOUND, model=model, stream="true")
    assert heard.content == CHUNK + STOP + b"data: [DONE]\n\n"
    boundary = server.seen[0].headers["content-type"].partition("boundary=")[2].encode()
    assert ("stream_include_usage", b"true") in form_of(server.seen[0], boundary)
    assert (await own.stage.row(someone))["charge_nanos"] == 40 * 1_000


async def test_the_file_goes_to_the_next_server_when_one_breaks(own: Own) -> None:
    async with own.serving("breaking", cut) as (broken, model), own.serving("other", said(TEXT | STATED)) as (other, _):
        someone = await own.stage.customer()
        assert (await upload(own.stage, someone, LONG, model=model)).status_code == 200
    for server, name in ((broken, model), (other, "theirs")):
        boundary = server.seen[0].headers["content-type"].partition("boundary=")[2].encode()
        assert form_of(server.seen[0], boundary) == [("model", name.encode()), ("file", LONG)]
    assert await own.stage.charged(someone) == 11 * OWN


async def test_who_leaves_a_stream_pays_for_the_sound_that_the_server_has(own: Own) -> None:
    async with own.serving("left", streamed(DELTA, then=hang)) as (server, model):
        someone, before = await own.stage.customer(), files()
        body, kind = form(b'name="model"\r\n\r\n' + model.encode(), b'name="stream"\r\n\r\ntrue', FILE)
        line = await Line.opened(own.stage.gateway.address)
        await line.open(someone, PATH, **{"content-type": kind, "content-length": str(len(body))})
        await line.send(body)
        await line.until(b"crates")
        line.hang_up()
        await eventually(lambda: server.seen[0].left.is_set())
    await eventually(lambda: files() == before)

    async def is_charged() -> bool:
        return await own.stage.charged(someone) > 0

    await eventually(is_charged)
    assert await own.stage.charged(someone) == 13 * OWN


async def test_translations_are_for_servers_that_have_them(own: Own) -> None:
    someone = await own.stage.customer()
    heard = await upload(own.stage, someone, SOUND, "/api/v1" + TRANSLATIONS, model=model_of("sandbox"))
    assert heard.json()["text"] == "The sandbox heard 13 seconds of sound."
    row = await own.stage.row(someone)
    assert (row["endpoint"], row["charge_nanos"]) == ("translations", 13 * OWN + 10_000_000)


async def test_a_model_with_another_price_is_refused(own: Own) -> None:
    async with own.serving("by letters", said(TEXT)) as (server, model):
        someone = await own.stage.customer()
        refused = (await upload(own.stage, someone, SOUND, model=model)).json()["error"]
    assert (refused["code"], refused["price"]) == ("model_unpriced", "character")
    assert server.seen == []
