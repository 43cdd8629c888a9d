"""POST /images: small pictures whose colours depend on nothing but the prompt and the number of the picture."""

import base64
import hashlib
import struct
import zlib
from typing import Any

from starlette.types import Receive, Scope, Send

from tollgate.sandbox import billing, delivery, tokens
from tollgate.sandbox.catalog import Model
from tollgate.sandbox.client_connection import ClientConnection
from tollgate.sandbox.encoding import encode, encode_with, utf8
from tollgate.sandbox.generation import Generation
from tollgate.sandbox.prices import Used
from tollgate.sandbox.refusals import PROVIDER_ERROR
from tollgate.sandbox.request_reading import take
from tollgate.sandbox.state import State
from tollgate.sandbox.stream import DONE, STALL, Event
from tollgate.sandbox.unit_endpoints import text, whole

SIDE = 16
"""Pixels."""
TOKENS = 256
"""Of one image."""
MOST_IMAGES = 10
PREVIEWS = 2
NOTHING = Used(requests=0)


class Images:
    def __init__(self, state: State) -> None:
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with ClientConnection(receive, send) as client:
            job, body = await take(self._state, client, scope, paints)
            prompt, images = text(body, "prompt"), whole(body, "n", 1, MOST_IMAGES)
            streamed = bool(body.get("stream"))
            generation = self._state.open(job, api_type="image", streamed=streamed)
            used = Used(prompt=tokens.count(prompt), made=images, completion=images * TOKENS)
            if streamed:
                await self._stream(client, generation, prompt, used)
                return
            self._state.end(generation, used, "stop")
            pictures = [{"b64_json": picture(prompt, number), "media_type": "image/png"} for number in range(images)]
            answer = {"created": int(generation.started), "data": pictures}
            await delivery.whole(client, generation, utf8(encode_with(answer, self._usage(generation, used))))

    async def _stream(self, client: ClientConnection, generation: Generation, prompt: str, used: Used) -> None:
        """A stream that breaks off before its image costs nothing."""
        finished = failed = False
        try:
            events = self._events(generation, prompt, used)
            last = await delivery.streamed(client, generation, events, generation.faults.pace(0, PREVIEWS))
            failed = "mid-stream-error" in generation.faults
            finished = True
        finally:
            paid = used if finished and not failed else NOTHING
            self._state.end(generation, paid, "error" if failed else "stop", cancelled=not finished)
        await delivery.finish(client, last)

    def _events(self, generation: Generation, prompt: str, used: Used) -> list[Event]:
        preview = {"type": "image_generation.partial_image", "b64_json": picture(prompt)}
        previews = [_event({**preview, "partial_image_index": index}) for index in range(PREVIEWS)]
        broken = generation.faults.any_of("cut", "stall-after", "mid-stream-error")
        if broken == "mid-stream-error":
            return [*previews, _event({"type": "error", "error": PROVIDER_ERROR}), Event(DONE)]
        if broken:
            return [*previews, STALL if broken == "stall-after" else Event(b"", act="cut")]
        completed = {
            "type": "image_generation.completed",
            "b64_json": picture(prompt),
            "media_type": "image/png",
            "created": int(generation.started),
        }
        usage = billing.reported(_counts(used) | billing.stated_cost(generation.price(used, "stop")), generation.faults)
        return [*previews, Event(b"data: " + utf8(encode_with(completed, usage)) + b"\n\n"), Event(DONE)]

    def _usage(self, generation: Generation, used: Used) -> dict[str, Any]:
        return billing.reported(_counts(used) | billing.stated_cost(generation.bill), generation.faults)


def paints(model: Model) -> bool:
    return model.behaviour == "paint"


def picture(prompt: str, number: int = 0) -> str:
    """A PNG of stripes, in Base64."""
    colours = hashlib.sha256(f"{number} {prompt}".encode("utf-8", "surrogatepass")).digest()
    rows = b"".join(b"\0" + bytes(colours[(3 * row + part) % 32] for part in range(3)) * SIDE for row in range(SIDE))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    parts = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + parts).decode()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _counts(used: Used) -> dict[str, int]:
    return {
        "prompt_tokens": used.prompt,
        "completion_tokens": used.completion,
        "total_tokens": used.prompt + used.completion,
    }


def _event(told: dict[str, Any]) -> Event:
    return Event(b"data: " + utf8(encode(told)) + b"\n\n")
