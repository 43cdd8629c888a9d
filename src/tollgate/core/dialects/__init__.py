"""Translates other APIs to chat completions and back: Messages and Responses for upstreams that only have those, and
Generate for all. Pure.

    translation = BY_ENDPOINT["messages"]           # or "responses", or "generate"
    chat = translation.to_chat(asked)               # the body for /chat/completions, or BadRequest
    document = translation.answer(asked, chat, now) # a plain answer
    events = translation.Events(asked)              # a stream: one object for each
    events.feed(chunk)                              # the events that this chunk makes
    events.finish(now)                              # the last ones; without a finish_reason they report a failure
    events.fail(error, status)                      # the last ones, when the upstream failed or cut the stream
    translation.END                                 # the bytes after the last event
    translation.error(error, status, request_id)    # the body of a refusal

`asked` is the client's body as `strict_json.from_client` read it; answers and chunks are as `strict_json.from_upstream`
read them, and `error` is what stands under `error` in one of our bodies. `now` is in Unix seconds. `written` and
`in_event` make bytes of what comes out. After `finish` or `fail`, and after a chunk with an `error`, no more events
come.

A translated stream always asks for its usage. Members of a chat usage that are not about tokens, such as `cost`, stay
in the usage of the answer. A plain answer is made by the same code as a stream, so the two agree.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol

from tollgate.core.dialects import generate, messages, responses

Translated = Literal["messages", "responses", "generate"]


class Events(Protocol):
    def __init__(self, asked: Mapping[str, Any]) -> None: ...
    def feed(self, chunk: Mapping[str, Any]) -> list[dict[str, Any]]: ...
    def finish(self, now: int) -> list[dict[str, Any]]: ...
    def fail(self, error: Mapping[str, Any], status: int = 502) -> list[dict[str, Any]]: ...


class Translation(Protocol):
    @property
    def END(self) -> bytes: ...  # noqa: N802
    @property
    def Events(self) -> type[Events]: ...  # noqa: N802
    def to_chat(self, asked: Mapping[str, Any]) -> dict[str, Any]: ...
    def answer(self, asked: Mapping[str, Any], chat: Mapping[str, Any], now: int) -> dict[str, Any]: ...
    def error(self, error: Mapping[str, Any], status: int, request_id: str | None = None) -> dict[str, Any]: ...


BY_ENDPOINT: Final[Mapping[Translated, Translation]] = {
    "messages": messages,
    "responses": responses,
    "generate": generate,
}


def written(document: Mapping[str, Any]) -> bytes:
    """As JSON. Decimals become floats, as any reader of JSON would read them."""
    return json.dumps(document, default=float, ensure_ascii=False, separators=(",", ":")).encode()


def in_event(event: Mapping[str, Any]) -> bytes:
    """As a server-sent event. One without a type has no name."""
    name = b"event: %b\n" % event["type"].encode() if "type" in event else b""
    return name + b"data: %b\n\n" % written(event)
