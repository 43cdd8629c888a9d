"""Our server of speech, with a voice of the tests. With the real one: tests/engines/test_sound_engines.py, by hand."""

import struct
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tollgate.speech.app import SpeechServer

KEY = {"authorization": "Bearer secret"}


def speak(text: str, speed: float) -> Iterator[bytes]:
    """Two bytes for each letter; the second sentence has none."""
    for sentence in text.split("."):
        yield b"\1\0" * int(len(sentence) / speed)


async def post(asked: dict[str, Any], headers: dict[str, str] = KEY) -> httpx.Response:
    app = SpeechServer("tiny", speak, 24_000, "secret").app()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://host") as client:
        return await client.post("/v1/audio/speech", json=asked, headers=headers)


async def test_sound_comes_as_wav_and_as_bare_samples() -> None:
    wav = await post({"model": "tiny", "input": "ab..cd", "speed": 0.5})
    assert wav.headers["content-type"] == "audio/wav"
    assert wav.content[:4] + wav.content[8:12] == b"RIFFWAVE"
    assert struct.unpack("<I", wav.content[24:28]) == (24_000,)
    assert wav.content[44:] == b"\1\0" * 8
    pcm = await post({"model": "tiny", "input": "ab", "response_format": "pcm"})
    assert (pcm.headers["content-type"], pcm.content) == ("audio/pcm", b"\1\0" * 2)


@pytest.mark.parametrize(
    ("asked", "headers", "status", "code"),
    [
        ({"model": "tiny", "input": "a"}, {}, 401, "invalid_api_key"),
        ({"model": "tiny", "input": "a"}, {"authorization": "Bearer other"}, 401, "invalid_api_key"),
        ({"model": "other", "input": "a"}, KEY, 404, "model_not_found"),
        ({"model": "tiny", "input": "a" * 5000}, KEY, 400, "invalid_request"),
        ({"model": "tiny", "input": "a" * 70_000}, KEY, 413, "body_too_large"),
        ({"model": "tiny", "input": "a", "response_format": "mp3"}, KEY, 400, "invalid_request"),
    ],
)
async def test_what_it_refuses(asked: dict[str, Any], headers: dict[str, str], status: int, code: str) -> None:
    refused = await post(asked, headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
