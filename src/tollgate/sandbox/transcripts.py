"""POST /audio/transcriptions and /audio/translations: says how long the sound was, and is priced by its seconds."""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from functools import partial
from math import ceil
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from tollgate.sandbox import delivery, speech, tokens
from tollgate.sandbox.catalog import Model
from tollgate.sandbox.client_connection import ClientConnection
from tollgate.sandbox.encoding import encode, encode_with, utf8
from tollgate.sandbox.generation import Generation
from tollgate.sandbox.paid import Completions
from tollgate.sandbox.parameters import Body, Parameters, read_object
from tollgate.sandbox.prices import Used
from tollgate.sandbox.refusals import PROVIDER_ERROR, Refusal
from tollgate.sandbox.request_reading import take
from tollgate.sandbox.speech import Said
from tollgate.sandbox.state import State
from tollgate.sandbox.stream import DONE, PROCESSING, Event, Script, gigantic, with_excess

BYTES_A_SECOND = 16_000
"""Of sound that is not WAV: 128 kbit/s."""
WAV_HEAD_BYTES = 44
BOUNDARY = re.compile(r'multipart/form-data\s*;.*?boundary="?([^";]+)"?', re.IGNORECASE)
NAME = re.compile(rb'(?i)content-disposition:\s*form-data;.*?\bname="?([^";\r\n]+)"?')
TRUE = ("true", "1")
TEXTS = {"text": "text/plain; charset=utf-8", "srt": "application/x-subrip", "vtt": "text/vtt"}
SUBTITLES = {
    "srt": "1\n00:00:00,000 --> 00:00:{seconds:02},000\n{text}\n",
    "vtt": "WEBVTT\n\n00:00.000 --> 00:{seconds:02}.000\n{text}\n",
}


class Transcripts(Completions):
    def __init__(self, state: State) -> None:
        super().__init__(state, FORM)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        read = partial(_read, Headers(scope=scope).get("content-type", ""))
        async with ClientConnection(receive, send) as client:
            job, body = await take(self._state, client, scope, hears, read)
            params = FORM.read(body)
            said = speech.BLANK if "blank" in job.faults else Said(tokens.split(params.heard))
            generation = self._state.open(job, api_type="stt", streamed=params.stream)
            generation.used = Used(prompt=params.prompt_tokens)
            answer = self._stream if params.stream else self._whole
            await answer(client, generation, params, said)

    async def _deliver(self, client: ClientConnection, generation: Generation, params: Parameters, body: bytes) -> None:
        media_type = TEXTS.get(str(params.asked.get("response_format")), "application/json")
        await delivery.whole(client, generation, body, media_type)


def hears(model: Model) -> bool:
    return model.behaviour == "hear"


class _Form:
    def read(self, body: Body) -> Parameters:
        seconds = _seconds(_sound(body))
        heard = f"The sandbox heard {seconds} seconds of sound."
        return Parameters(heard, (), seconds, stream=_is_true(body.get("stream")), asked=body)

    def whole(self, generation: Generation, params: Parameters, said: Said, reported: dict[str, Any]) -> str:
        text = "".join(with_excess(said, generation.faults).content)
        wanted = str(params.asked.get("response_format"))
        if wanted in TEXTS:
            return SUBTITLES.get(wanted, "{text}\n").format(text=text, seconds=min(params.prompt_tokens, 59))
        error = {"error": PROVIDER_ERROR} if said.finish == "error" else {}
        answer = {"text": text, **(_verbose(params, text) if wanted == "verbose_json" else {}), **error}
        return encode_with(answer, _named(reported, generation))

    class Stream:
        def __init__(self, script: Script) -> None:
            self._script = script

        def opening(self) -> Iterator[Event]:
            faults = self._script.faults
            yield Event(PROCESSING)
            if "many" in faults:
                yield from (_event("transcript.text.delta", delta="") for _ in range(faults.whole("many")))
            if "gigantic" in faults:
                yield _event("transcript.text.delta", delta=gigantic(faults))
            if "bad-json" in faults:
                yield Event(b'data: {"type":\n\n')

        def telling(self) -> Iterator[Event]:
            yield from (_event("transcript.text.delta", 1, delta=token) for token in self._script.said.content)

        def closing(self) -> Iterator[Event]:
            reported = _named(self._script.usage, self._script.generation)
            yield _event("transcript.text.done", text="".join(self._script.said.content), **reported)
            if "no-done" not in self._script.faults:
                yield Event(DONE)

        def failing(self) -> Iterator[Event]:
            yield _event("error", error=PROVIDER_ERROR)


FORM = _Form()


def _event(kind: str, tokens: int = 0, **more: Any) -> Event:
    return Event(utf8(f"data: {encode({'type': kind, **more})}\n\n"), tokens)


def _named(reported: Mapping[str, Any], generation: Generation) -> dict[str, Any]:
    """The usage by the names of transcripts: seconds, and tokens where they have a price."""
    given = reported.get("usage")
    if not given:
        return dict(reported)
    kept = {name: value for name, value in given.items() if "tokens" not in name}
    if not generation.model.pricing.at(0)["completion"]:
        return {"usage": {"seconds": given["prompt_tokens"], **kept}}
    names = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens", "total_tokens": "total_tokens"}
    return {"usage": {**{name: given[other] for other, name in names.items()}, **kept}}


def _verbose(params: Parameters, text: str) -> dict[str, Any]:
    segment = {"id": 0, "start": 0.0, "end": float(params.prompt_tokens), "text": text}
    language = str(params.asked.get("language") or "en")
    return {"task": "transcribe", "language": language, "duration": float(params.prompt_tokens), "segments": [segment]}


def _read(content_type: str, body: bytes) -> dict[str, Any]:
    """A form as an object: its fields as texts, and its file as bytes."""
    found = BOUNDARY.match(content_type)
    if found is None:
        return read_object(body)
    read: dict[str, Any] = {}
    for part in (b"\r\n" + body).split(b"\r\n--" + found[1].encode())[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        if name := NAME.search(head):
            key = name[1].decode()
            read[key] = content if key == "file" else content.decode()
    return read


def _sound(body: Body) -> bytes:
    if isinstance(body.get("file"), bytes):
        return bytes(body["file"])
    given = body.get("input_audio")
    try:
        return base64.b64decode(given["data"], validate=True) if isinstance(given, dict) else b""
    except (binascii.Error, ValueError, KeyError, TypeError):
        raise Refusal(400, "Invalid input: 'input_audio.data' must be base64") from None


def _seconds(sound: bytes) -> int:
    """At least one, and each that has begun."""
    if not sound:
        raise Refusal(400, "Invalid input: expected a file or 'input_audio'")
    is_wav = sound.startswith(b"RIFF") and sound[12:16] == b"fmt " and len(sound) > WAV_HEAD_BYTES
    rate = int.from_bytes(sound[28:32], "little") if is_wav else 0
    length = (len(sound) - WAV_HEAD_BYTES) / rate if rate else len(sound) / BYTES_A_SECOND
    return max(1, ceil(length))


def _is_true(given: Any) -> bool:
    return given is True or (isinstance(given, str) and given.lower() in TRUE)
