"""Reads a request with a file: piece by piece, into a spool. The rest of it is small."""

import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final, NamedTuple

from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope

from tollgate.completions import content
from tollgate.core import multipart, request_body, sound_lengths, sound_requests, strict_json
from tollgate.core.endpoints import Endpoint
from tollgate.core.errors import BadRequest
from tollgate.core.mp3 import Frames
from tollgate.core.multipart import Part, Parts
from tollgate.core.request_body import Ask
from tollgate.core.sound_lengths import END_BYTES
from tollgate.core.sound_requests import FILE, MOST_FIELD_BYTES, Given
from tollgate.keys.authentication import Caller, ClientLeft, Gate
from tollgate.process import threads
from tollgate.process.spools import Spool, Spools
from tollgate.upstreams.rules import Upload
from tollgate.web.client_address import announced_bytes

BLOCK_BYTES: Final = 64 * 1024
"""The most of a body that is worked on at once: each step of the work makes a copy of it."""
CLOSE: Final = {"connection": "close"}
"""For a refusal before the end of a body: the rest is not read."""


Default = Callable[[], Awaitable[str | None]]
"""The model of a request that names none."""


class Uploaded(NamedTuple):
    ask: Ask
    body: bytes
    """OpenRouter's JSON as the client sent it; empty for a form."""
    body_hash: str
    prompt: str
    upload: Upload
    spool: Spool
    """Of the upload. Close it when the call has ended."""
    cache: None = None


class Uploads:
    def __init__(self, gate: Gate, spools: Spools, *, most_form_bytes: int, most_json_bytes: int) -> None:
        self._gate = gate
        self._spools = spools
        self._most_form_bytes = most_form_bytes
        self._most_json_bytes = most_json_bytes

    async def read(
        self,
        caller: Caller,
        scope: Scope,
        receive: Receive,
        headers: Mapping[str, str],
        endpoint: Endpoint,
        default: Default,
    ) -> Uploaded | None:
        """None when the client left before the end. Raises BadRequest and ServerBusy; then nothing is kept."""
        boundary = multipart.boundary_of(headers.get("content-type", ""))
        most = self._most_json_bytes if boundary is None else self._most_form_bytes
        if announced_bytes(headers) > most:
            await self._gate.recognise(caller)
            raise _too_large(most)
        pieces = _bounded(self._gate.pieces(caller, scope, receive), most)
        spool = self._spools.open(caller.digest)
        uploaded: Uploaded | None = None
        try:
            if boundary is None:
                uploaded = await _of_json(b"".join([piece async for piece in pieces]), spool, endpoint, default)
            else:
                uploaded = await _of_form(pieces, boundary, spool, endpoint, default)
        except ClientLeft:
            return None
        except BadRequest as error:
            error.headers = {**error.headers, **CLOSE}
            raise
        finally:
            if uploaded is None:
                spool.close()
        return uploaded


async def _bounded(pieces: AsyncIterator[bytes], most: int) -> AsyncIterator[bytes]:
    """In blocks. Raises where it is more than `most` bytes."""
    size = 0
    async for piece in pieces:
        size += len(piece)
        if size > most:
            raise _too_large(most)
        for start in range(0, len(piece), BLOCK_BYTES):
            yield piece[start : start + BLOCK_BYTES]


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, str(most), CLOSE)


class _Form:
    """Sorts the parts of a form: the file goes into the spool, and the fields are small."""

    def __init__(self, spool: Spool) -> None:
        self.file: Part | None = None
        self.frames = Frames()
        self.fields: list[tuple[str, bytearray]] = []
        self._spool = spool
        self._is_in_file = False
        self._field_bytes = 0

    async def take(self, one: Part | bytes) -> None:
        if isinstance(one, Part):
            self._begin(one)
        elif self._is_in_file:
            self.frames.feed(one)
            await self._spool.add(one)
        else:
            self._field_bytes += len(one)
            if self._field_bytes > MOST_FIELD_BYTES:
                raise BadRequest(f"The fields of the form have more than {MOST_FIELD_BYTES} bytes. Send shorter ones.")
            self.fields[-1][1].extend(one)

    def _begin(self, part: Part) -> None:
        self._is_in_file = part.name == FILE
        if not self._is_in_file and part.filename is not None:
            raise BadRequest(f"{part.name}: is a file. Send one file, as {FILE}.", param=part.name)
        if not self._is_in_file:
            self.fields.append((part.name, bytearray()))
        elif self.file is not None:
            raise BadRequest(f"{FILE}: send one file.", param=FILE)
        else:
            self.file = part if part.filename else part._replace(filename=FILE)


async def _of_form(
    pieces: AsyncIterator[bytes], boundary: bytes, spool: Spool, endpoint: Endpoint, default: Default
) -> Uploaded:
    parts, form = Parts(boundary), _Form(spool)
    async for piece in pieces:
        for one in parts.feed(piece):
            await form.take(one)
    parts.finish()
    if form.file is None or not spool.size:
        raise BadRequest(f"{FILE}: send a file with sound.", param=FILE)
    given = sound_requests.of_form([(name, bytes(value)) for name, value in form.fields])
    told = json.dumps([endpoint, spool.digest, sorted((name, value.hex()) for name, value in given.fields)])
    body_hash = hashlib.sha256(told.encode())
    given, _ = await _named(given, default)
    return await _uploaded(given, form.file, spool, form.frames, endpoint, body=b"", body_hash=body_hash)


async def _of_json(body: bytes, spool: Spool, endpoint: Endpoint, default: Default) -> Uploaded:
    document = await threads.work(len(body), request_body.parse, body)
    part, sound = await threads.work(len(body), sound_requests.sound_in, document)
    given = sound_requests.of_json(document)
    del document
    await spool.add(sound)
    frames = Frames()
    await threads.work(len(sound), frames.feed, sound)
    body_hash = await threads.work(len(body), hashlib.sha256, endpoint.encode() + b"\n" + body)
    given, name = await _named(given, default)
    if name is not None:
        body = await threads.work(len(body), strict_json.edit, body, {"model": json.dumps(name)})
    return await _uploaded(given, part, spool, frames, endpoint, body=body, body_hash=body_hash)


async def _named(given: Given, default: Default) -> tuple[Given, str | None]:
    """With the default model, which is told too, if the request names none and there is one."""
    if request_body.names_a_model(given.values) or (name := await default()) is None:
        return given, None
    fields = [(field, value) for field, value in given.fields if field != "model"]
    return Given({**given.values, "model": name}, (*fields, ("model", name.encode()))), name


async def _uploaded(
    given: Given,
    part: Part,
    spool: Spool,
    frames: Frames,
    endpoint: Endpoint,
    *,
    body: bytes,
    body_hash: "hashlib._Hash",
) -> Uploaded:
    length = sound_lengths.length(*await spool.ends(END_BYTES), spool.size, frames.seconds)
    return Uploaded(
        ask=sound_requests.read(given, length, endpoint),
        body=body,
        body_hash=body_hash.hexdigest(),
        prompt=content.beginning(["[sound]", str(given.values.get("prompt") or "")], "\n"),
        upload=Upload(given.fields, part, spool, secrets.token_hex(16)),
        spool=spool,
    )
