"""Files of sound: kept out of memory, held for the most that they can be, and charged for what they are."""

import asyncio
import base64
import contextlib
import io
import json
import wave
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from completions.asks import TRANSCRIPTIONS, TRANSLATIONS
from completions.paid import Line, eventually
from completions.stage import Row, Stage, before, erring, staged
from gateway import Upstream
from people import Person
from process.test_spools import files
from sandbox.serving import serving
from tollgate.catalog import store as catalog
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.keys.authentication import console
from tollgate.process.spools import BLOCK_BYTES, Spools
from tollgate.sandbox.app import create_sandbox
from tollgate.upstreams import store as upstreams
from upstreams.scripted import Line as Asked
from upstreams.scripted import Play, Scripted, answer, cut, hang, streamed
from upstreams.test_uploads import form_of

PATH = "/v1" + TRANSCRIPTIONS
EAR, BY_TOKENS = "sandbox/ear", "sandbox/ear-tokens"
SECOND = 100_000
"""Nanos."""
MEGABYTES = 26 * 1024 * 1024
FAULTS = ("no-usage", "cut", "late-generation=1000000", "status=503", "negative-cost", "mid-stream-error=2")


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
    with erring([f"{fault}" for fault in FAULTS]) as sandbox, before(sandbox, shared_database) as gateway:
        async with staged(gateway, shared_database) as made:
            yield made


@pytest.fixture(autouse=True)
def no_file_is_left(stage: Stage) -> AsyncIterator[None]:
    before = files()
    yield
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
    await stage.books_agree()


async def test_openrouters_json_is_the_same_call(stage: Stage) -> None:
    someone = await stage.customer()
    said = await stage.post(someone, as_json(language="en", temperature=0.5, user="u-1"), "/api" + PATH)
    assert said.status_code == 200, said.text
    (*_, seen) = stage.gateway.upstream.generations()
    assert seen["parameters"] == {"model": EAR, "language": "en", "temperature": 0.5, "user": "u-1"}
    assert await stage.charged(someone) == 13 * SECOND


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


async def test_a_test_key_pays_nothing_and_a_model_of_another_kind_is_refused_by_its_server(stage: Stage) -> None:
    someone = await stage.customer(nanos=0, secret="tg_test_" + "x" * 49)
    refused = await upload(stage, someone)
    assert refused.status_code == 401
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
    "no model": (form(FILE), "model: name a model"),
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
        ({"model": None}, "model: name a model"),
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


async def test_a_form_and_json_have_limits_of_their_own(stage: Stage) -> None:
    someone = await stage.customer()
    for announced in ({}, {"content-length": str(MEGABYTES + 1)}):
        line = await Line.opened(stage.gateway.address)
        kind = {"content-type": "multipart/form-data; boundary=b", "transfer-encoding": "chunked"}
        await line.open(someone, PATH, **(announced or kind) | {"content-type": kind["content-type"]})
        with contextlib.suppress(ConnectionError):
            await line.send(b"--b\r\nContent-Disposition: form-data; " + FILE[: -len(SOUND)], chunked=not announced)
            for _ in range(0 if announced else MEGABYTES // 2**20 + 1):
                await line.send(bytes(2**20), chunked=True)
        assert await line.status() == 413
        line.hang_up()
    large = base64.b64encode(bytes(21 * 2**20)).decode()
    refused = await stage.post(someone, {**as_json(), "input_audio": {"data": large, "format": "wav"}}, PATH)
    assert (refused.status_code, refused.json()["error"]["limit_bytes"]) == (413, 20 * 2**20)
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
        ("cut", "unsettled", 502),
        ("late-generation=1000000", "settled", 200),
        ("status=503", "released", 503),
        ("negative-cost", "unsettled", 200),
    ],
)
async def test_what_goes_wrong_is_settled_by_the_record(stage: Stage, fault: str, state: str, status: int) -> None:
    someone, before = await stage.customer(), stage.gateway.upstream.owed_nanos
    said = await upload(stage, someone, headers={"x-sandbox-fault": ""}, model=f"{EAR}+{fault}")
    assert (said.status_code, (await stage.row(someone))["state"]) == (status, state), said.text
