"""POST /audio/speech: a tone for each character, as bytes that are sent as they are made."""

import hashlib
import math
import struct
from collections.abc import Iterator

from starlette.types import Receive, Scope, Send

from tollgate.sandbox import delivery
from tollgate.sandbox.catalog import Model
from tollgate.sandbox.client_connection import ClientConnection
from tollgate.sandbox.output import MEGABYTE
from tollgate.sandbox.parameters import Body
from tollgate.sandbox.prices import Used
from tollgate.sandbox.refusals import Refusal
from tollgate.sandbox.request_reading import take
from tollgate.sandbox.state import State
from tollgate.sandbox.unit_endpoints import text

RATE = 24_000
SAMPLES = 240
"""Of a character: ten milliseconds."""
MOST_CHARACTERS = 4096
FRAME = b"\xff\xfb\x50\xc4"
"""The header of an MP3 frame. What follows is not sound, but begins as a player expects it."""
TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": f"audio/pcm;rate={RATE};channels=1",
}
USUAL = "mp3"
ENDLESS = 0xFFFFFFFF
"""The length in the header of a WAV file that is sent as it is made."""


class Speech:
    def __init__(self, state: State) -> None:
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Once begun it is charged in full: the text was read."""
        async with ClientConnection(receive, send) as client:
            job, body = await take(self._state, client, scope, speaks)
            said, encoding = _said(body), _encoding(body)
            generation = self._state.open(job, api_type="tts", streamed=True)
            pieces = _pieces(said, encoding, job.faults.whole("gigantic") if "gigantic" in job.faults else 0)
            finished = False
            try:
                pace = job.faults.pace(self._state.habits.token_delay_seconds, len(said))
                await delivery.in_pieces(client, generation, TYPES[encoding], pieces, len(said), pace)
                finished = True
            finally:
                self._state.end(generation, Used(characters=len(said)), "stop", cancelled=not finished)
            await delivery.finish(client)


def speaks(model: Model) -> bool:
    return model.behaviour == "speak"


def _said(body: Body) -> str:
    said = text(body, "input")
    if len(said) > MOST_CHARACTERS:
        raise Refusal(400, f"Invalid input: 'input' must have at most {MOST_CHARACTERS} characters")
    return said


def _encoding(body: Body) -> str:
    encoding = body.get("response_format") or USUAL
    if encoding not in TYPES:
        raise Refusal(400, f"Invalid input: 'response_format' must be one of {', '.join(TYPES)}")
    return str(encoding)


def _pieces(said: str, encoding: str, megabytes: int) -> Iterator[bytes]:
    """One for each character, and then megabytes of silence that nobody counts."""
    opening = _wav_header() if encoding == "wav" else b""
    for character in said:
        yield opening + (_tone(character) if encoding in ("wav", "pcm") else _frame(character))
        opening = b""
    silence = bytes(64 * 1024)
    for _ in range(megabytes * MEGABYTE // len(silence)):
        yield silence


def _tone(character: str) -> bytes:
    pitch = 220 + ord(character) % 660
    step = 2 * math.pi * pitch / RATE
    return struct.pack(f"<{SAMPLES}h", *(round(8000 * math.sin(step * place)) for place in range(SAMPLES)))


def _frame(character: str) -> bytes:
    return FRAME + hashlib.shake_128(character.encode("utf-8", "surrogatepass")).digest(140)


def _wav_header() -> bytes:
    fields = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    sizes = struct.pack("<I", ENDLESS)
    return b"RIFF" + sizes + b"WAVEfmt " + struct.pack("<I", len(fields)) + fields + b"data" + sizes
