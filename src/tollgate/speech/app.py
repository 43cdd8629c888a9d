"""OpenAI's `/v1/audio/speech`, one synthesis at a time."""

import asyncio
import hmac
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Final, Literal

from pydantic import BaseModel, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

Speak = Callable[[str, float], Iterator[bytes]]
"""Text and speed to 16-bit samples, sentence by sentence."""
MOST_CHARACTERS: Final = 4096
MOST_BODY_BYTES: Final = 64 * 1024
SAMPLE_BYTES: Final = 2
UNKNOWN_LENGTH: Final = 0xFFFFFFFF


class Asked(BaseModel):
    model: str
    input: Annotated[str, Field(min_length=1, max_length=MOST_CHARACTERS)]
    voice: str | None = None
    response_format: Literal["wav", "pcm"] = "wav"
    speed: Annotated[float, Field(ge=0.25, le=4)] = 1.0


class SpeechServer:
    def __init__(self, name: str, speak: Speak, sample_rate: int, secret: str = "") -> None:
        self._name, self._speak, self._rate, self._secret = name, speak, sample_rate, secret
        self._synthesis = ThreadPoolExecutor(1)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/health", self.health),
                Route("/v1/models", self.models),
                Route("/v1/audio/speech", self.speech, methods=["POST"]),
            ]
        )

    async def health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def models(self, request: Request) -> Response:
        if not self._is_allowed(request):
            return refusal(401, "invalid_api_key", "The key is missing or wrong.")
        return JSONResponse({"object": "list", "data": [{"id": self._name, "object": "model", "owned_by": "host"}]})

    async def speech(self, request: Request) -> Response:
        if not self._is_allowed(request):
            return refusal(401, "invalid_api_key", "The key is missing or wrong.")
        if int(request.headers.get("content-length") or MOST_BODY_BYTES + 1) > MOST_BODY_BYTES:
            return refusal(413, "body_too_large", f"Send at most {MOST_BODY_BYTES} bytes, and say how many.")
        try:
            asked = Asked.model_validate_json(await request.body())
        except ValidationError as error:
            fault = error.errors()[0]
            return refusal(400, "invalid_request", f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}.")
        if asked.model != self._name:
            return refusal(404, "model_not_found", f"This server has {self._name} only.")
        kind = "audio/wav" if asked.response_format == "wav" else "audio/pcm"
        return StreamingResponse(self._sound(asked), media_type=kind)

    async def _sound(self, asked: Asked) -> AsyncIterator[bytes]:
        """Sent as each sentence is ready, so the header cannot state the length."""
        if asked.response_format == "wav":
            yield wav_header(self._rate)
        sentences = self._speak(asked.input, asked.speed)
        loop = asyncio.get_running_loop()
        while (samples := await loop.run_in_executor(self._synthesis, next, sentences, None)) is not None:
            yield samples

    def _is_allowed(self, request: Request) -> bool:
        given = request.headers.get("authorization", "").encode()
        return not self._secret or hmac.compare_digest(given, f"Bearer {self._secret}".encode())


def wav_header(rate: int) -> bytes:
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate * SAMPLE_BYTES, SAMPLE_BYTES, 16)
    return struct.pack("<4sI4s", b"RIFF", UNKNOWN_LENGTH, b"WAVE") + form + struct.pack("<4sI", b"data", UNKNOWN_LENGTH)


def refusal(status: int, code: str, message: str) -> Response:
    return JSONResponse({"error": {"message": message, "type": "invalid_request_error", "code": code}}, status)
