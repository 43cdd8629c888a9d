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
