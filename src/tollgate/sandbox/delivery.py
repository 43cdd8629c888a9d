"""How an answer goes over the line: at once or token by token, whole or broken."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from tollgate.sandbox.generation import Generation
from tollgate.sandbox.line import Cut, Headers, Line
from tollgate.sandbox.prices import Used
from tollgate.sandbox.stream import Event
from tollgate.sandbox.wire import SPLIT_PAUSE_SECONDS, Wire

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


async def whole(line: Line, generation: Generation, body: bytes) -> None:
    """An answer that is not streamed."""
    faults = generation.faults
    wire = Wire(faults)
    blank = b"         \n" * faults.whole("comments") if "comments" in faults else b""
    data = blank + (body[: len(body) // 2] if "bad-json" in faults else body)
    given = headers(generation, "application/json")
    broken = faults.any_of("cut", "stall-after")
    if not (wire.alters or broken):
        await line.start(200, [*given, ("content-length", str(len(data)))])
        return await line.write(data, more=False)
    length = [] if wire.alters else [("content-length", str(len(data)))]
    await line.start(200, given + length + wire.encoding)
    await _send_all(line, wire.bomb(b"", b"\n"))
    half = len(data) // 2
    await _write(line, wire, data[:half])
    await _break(line, broken, faults.stall_seconds)
    await _write(line, wire, data[half:])
    return await line.write(wire.end(), more=False)


async def _break(line: Line, broken: str | None, stall_seconds: float) -> None:
    if broken == "cut":
        raise Cut
    if broken == "stall-after":
        await line.pause(stall_seconds)


async def streamed(line: Line, generation: Generation, events: Iterable[Event], seconds_per_token: float) -> None:
    """Plays the events, and counts in `generation.used` what was said."""
    wire = Wire(generation.faults)
    await line.start(200, [*headers(generation, "text/event-stream"), ("cache-control", "no-cache"), *wire.encoding])
    await _send_all(line, wire.bomb(b": ", b"\n"))
    for batch in _batches(events, 1 if seconds_per_token or wire.splits else EVENTS_PER_WRITE):
        await line.pause(seconds_per_token * sum(event.tokens for event in batch))
        await _write(line, wire, b"".join(event.data for event in batch))
        generation.used = _more(generation.used, batch)
        await _act(line, batch[-1], generation.faults.stall_seconds)
    await line.write(wire.end(), more=False)


async def _act(line: Line, event: Event, stall_seconds: float) -> None:
    if event.act == "stall":
        await line.pause(stall_seconds)
    if event.act == "cut":
        raise Cut


async def _write(line: Line, wire: Wire, data: bytes) -> None:
    for part in wire.writes(data):
        await line.write(part)
        if wire.splits:
            await line.pause(SPLIT_PAUSE_SECONDS)


async def _send_all(line: Line, parts: Iterator[bytes]) -> None:
    for part in parts:
        await line.write(part)
        await line.pause()


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
