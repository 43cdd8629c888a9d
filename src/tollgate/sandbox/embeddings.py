"""POST /embeddings: vectors that depend on nothing but the text."""

import base64
import hashlib
import struct
from collections.abc import Iterator
from itertools import count, islice
from typing import Any

from starlette.types import Receive, Scope, Send

from tollgate.sandbox import billing, delivery, tokens
from tollgate.sandbox.catalog import Model
from tollgate.sandbox.client_connection import ClientConnection
from tollgate.sandbox.encoding import encode, encode_with, utf8
from tollgate.sandbox.parameters import Body
from tollgate.sandbox.prices import Used
from tollgate.sandbox.refusals import Refusal
from tollgate.sandbox.request_reading import take
from tollgate.sandbox.state import State

USUAL_DIMENSIONS = 8
MOST_DIMENSIONS = 4096


class Embeddings:
    def __init__(self, state: State) -> None:
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with ClientConnection(receive, send) as client:
            job, body = await take(self._state, client, scope, embeds)
            inputs = _inputs(body.get("input"))
            vectors = [_shown(_vector(one, _dimensions(body)), body) for one in inputs]
            generation = self._state.open(job, api_type="embeddings")
            self._state.end(generation, Used(prompt=sum(map(_count, inputs))), None)
            usage = billing.usage_of_embeddings(generation.used, generation.bill)
            answer = {
                "id": generation.id,
                "object": "list",
                "model": generation.shown_model,
                "data": [
                    {"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)
                ],
            }
            if "no-id" in generation.faults:
                del answer["id"]
            reported = billing.reported(usage, generation.faults)
            await delivery.whole(client, generation, utf8(encode_with(answer, reported)))


def embeds(model: Model) -> bool:
    return model.behaviour == "embed"


def _inputs(given: Any) -> list[Any]:
    """Texts, or lists of token numbers; always as a list of inputs."""
    if isinstance(given, str) or (isinstance(given, list) and given and all(map(_is_token, given))):
        return [given]
    if isinstance(given, list) and given and all(isinstance(one, str | list) for one in given):
        return given
    raise Refusal(400, "Input required: specify 'input' as a string or a non-empty array")


def _is_token(one: Any) -> bool:
    return isinstance(one, int) and not isinstance(one, bool)


def _count(one: Any) -> int:
    return tokens.count(one) if isinstance(one, str) else len(one)


def _dimensions(body: Body) -> int:
    wanted = body.get("dimensions", USUAL_DIMENSIONS)
    if not _is_token(wanted) or not 1 <= wanted <= MOST_DIMENSIONS:
        raise Refusal(400, f"'dimensions' must be between 1 and {MOST_DIMENSIONS}")
    return int(wanted)


def _vector(one: Any, dimensions: int) -> list[float]:
    return list(islice(_numbers(encode(one).encode("utf-8", "surrogatepass")), dimensions))


def _numbers(seed: bytes) -> Iterator[float]:
    """Between -1 and 1, in steps that a 32-bit float holds exactly."""
    for block in count():
        for (number,) in struct.iter_unpack("<h", hashlib.sha256(b"%d " % block + seed).digest()):
            yield number / 32768


def _shown(vector: list[float], body: Body) -> list[float] | str:
    if body.get("encoding_format") != "base64":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
