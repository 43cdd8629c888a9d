"""Sends an answer: at once or token by token, complete or broken."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from tollgate.sandbox.client_connection import ClientConnection, Cut, Headers
from tollgate.sandbox.generation import Generation
from tollgate.sandbox.output import SPLIT_PAUSE_SECONDS, OutputEncoder
from tollgate.sandbox.prices import Used
from tollgate.sandbox.stream import Event

EVENTS_PER_WRITE = 64
"""When nothing slows a stream down; between writes the others run, and a client that left is noticed."""
COOKIE = ("set-cookie", "sandbox=1; Path=/; HttpOnly")


def headers(generation: Generation, media_type: str) -> Headers:
    given: Headers = [("content-type", media_type)]
    if "no-id" not in generation.faults:
        given.append(("x-generation-id", generation.id))
    if "set-cookie" in generation.faults:
        given.append(COOKIE)
    return given


async def whole(
    client: ClientConnection, generation: Generation, body: bytes, media_type: str = "application/json"
) -> None:
    """An answer that is not streamed."""
    faults = generation.faults
    output = OutputEncoder(faults)
    blank = b"         \n" * faults.whole("comments") if "comments" in faults else b""
    data = blank + (body[: len(body) // 2] if "bad-json" in faults else body)
    given = headers(generation, media_type)
    broken = faults.any_of("cut", "stall-after")
    if not (output.alters or broken):
        await client.start(200, [*given, ("content-length", str(len(data)))])
        return await client.write(data, more=False)
    length = [] if output.alters else [("content-length", str(len(data)))]
    await client.start(200, given + length + output.encoding)
    await _send_all(client, output.bomb(b"", b"\n"))
    half = len(data) // 2
    await _write(client, output, data[:half])
    await _break(client, broken, faults.stall_seconds)
    await _write(client, output, data[half:])
    return await client.write(output.end(), more=False)


async def _break(client: ClientConnection, broken: str | None, stall_seconds: float) -> None:
    if broken == "cut":
        raise Cut
    if broken == "stall-after":
        await client.pause(stall_seconds)


async def streamed(
    client: ClientConnection, generation: Generation, events: Iterable[Event], seconds_per_token: float
) -> bytes:
    """Plays the events, and counts in `generation.used` what was said. Returns the last bytes, for `finish`."""
    output = OutputEncoder(generation.faults)
    await client.start(
        200, [*headers(generation, "text/event-stream"), ("cache-control", "no-cache"), *output.encoding]
    )
    await _send_all(client, output.bomb(b": ", b"\n"))
    for batch in _batches(events, 1 if seconds_per_token or output.splits else EVENTS_PER_WRITE):
        await client.pause(seconds_per_token * sum(event.tokens for event in batch))
        await _write(client, output, b"".join(event.data for event in batch))
        generation.used = _more(generation.used, batch)
        await _act(client, batch[-1], generation.faults.stall_seconds)
    return output.end()


async def in_pieces(
    client: ClientConnection,
    generation: Generation,
    media_type: str,
    pieces: Iterable[bytes],
    expected: int,
    seconds_per_piece: float,
) -> None:
    """An answer of bytes, sent as they are made, as far as `finish`."""
    faults = generation.faults
    broken = faults.any_of("cut", "stall-after")
    breaks_at = faults.after(broken, expected) if broken else None
    await client.start(200, headers(generation, media_type))
    for number, piece in enumerate(pieces):
        if number == breaks_at:
            await _break(client, broken, faults.stall_seconds)
        if seconds_per_piece or not number % EVENTS_PER_WRITE:
            await client.pause(seconds_per_piece)
        await client.write(piece)


async def finish(client: ClientConnection, last: bytes = b"") -> None:
    """Ends an answer that was sent in parts, after its generation was counted: a client that has read the whole answer
    finds its cost in the ledger."""
    await client.write(last, more=False)


async def _act(client: ClientConnection, event: Event, stall_seconds: float) -> None:
    if event.act == "stall":
        await client.pause(stall_seconds)
    if event.act == "cut":
        raise Cut


async def _write(client: ClientConnection, output: OutputEncoder, data: bytes) -> None:
    for part in output.writes(data):
        await client.write(part)
        if output.splits:
            await client.pause(SPLIT_PAUSE_SECONDS)


async def _send_all(client: ClientConnection, parts: Iterator[bytes]) -> None:
    for part in parts:
        await client.write(part)
        await client.pause()


def _batches(events: Iterable[Event], size: int) -> Iterator[list[Event]]:
    """An event with which something happens ends its batch."""
    batch: list[Event] = []
    for event in events:
        batch.append(event)
        if len(batch) >= size or event.act != "go on":
            yield batch
            batch = []
    if batch:
        yield batch


def _more(used: Used, batch: list[Event]) -> Used:
    said = sum(event.tokens for event in batch)
    thought = sum(event.reasoning for event in batch)
    return replace(used, completion=used.completion + said, reasoning=used.reasoning + thought)
