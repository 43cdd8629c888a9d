"""Speech by a real voice, heard again by a real recogniser. Both are installed for `make test-engines`."""

from pathlib import Path

import httpx
import openai

from completions.stage import Stage
from engines.conftest import charged, serves
from people import Person
from servers.engines import MODEL, speech, whisper

TEXT = "The weather is nice today."


async def test_what_is_spoken_is_heard_and_both_are_charged(stage: Stage, someone: Person, tmp_path: Path) -> None:
    free = {"prompt": "0", "completion": "0"}
    listener = await stage.customer()
    with speech(tmp_path) as voice, whisper(tmp_path) as ear:
        async with httpx.AsyncClient(base_url=voice.url, trust_env=False) as keyless:
            assert (await keyless.post("/audio/speech", json={"model": MODEL, "input": TEXT})).status_code == 401
        await serves(stage, voice.url, "engines/voice", voice.dialect, MODEL, {**free, "character": "0.00001"})
        await serves(stage, ear.url, "engines/ear", ear.dialect, MODEL, {**free, "second": "0.0001"})
        with openai.OpenAI(base_url=f"{stage.gateway.address}/v1", api_key=someone.secret, max_retries=0) as client:
            spoken = client.audio.speech.create(model="engines/voice", voice="any", input=TEXT, response_format="wav")
            sound = spoken.read()
        with openai.OpenAI(base_url=f"{stage.gateway.address}/v1", api_key=listener.secret, max_retries=0) as client:
            heard = client.audio.transcriptions.create(model="engines/ear", file=("a.wav", sound))
    seconds = -(-(len(sound) - 44) // 48_000)
    assert heard.text.strip().lower().rstrip(".") == TEXT.lower().rstrip(".")
    assert (await charged(stage, someone))["charge_nanos"] == len(TEXT) * 10_000
    assert (await charged(stage, listener))["charge_nanos"] == seconds * 100_000
