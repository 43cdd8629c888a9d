"""The beginning of a prompt and its answer, without secrets, where an operator keeps them. Pure.

It never delays or breaks a call: a stream's pieces are read after they were sent, and only until there is enough text;
unexpected shapes give no text instead of an error.
"""

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Protocol

from tollgate.core import strict_json
from tollgate.core.endpoints import ENDPOINTS, Endpoint
from tollgate.core.fields import as_mapping, as_mappings
from tollgate.core.sse import Events, EventTooLarge
from tollgate.core.strict_json import NotJson

MOST_KEPT: Final = 2000
OVERHANG: Final = 512
"""How much more is read: the longest text by which a secret is recognised. Where a text is cut, as much is left out
again, since it may be part of a secret."""
MOST_READ: Final = MOST_KEPT + OVERHANG
MOST_EVENT_BYTES: Final = 64 * 1024
"""A larger event is not text. Nothing after it is read."""
LONGEST_KIND: Final = 64

_UNKEEPABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""Postgres stores no NUL, half of a surrogate pair cannot be encoded, and the rest control terminals."""


class Hide(Protocol):
    def __call__(self, text: str, *also_known: str) -> str: ...


class Content:
    """Of one call. `own_key` is its caller's: it is hidden even if it does not look like a key."""

    def __init__(self, prompt: str, hide: Hide, own_key: str) -> None:
        self._prompt = prompt
        self._hide = hide
        self._own_key = own_key
        self._answer = ""
        self._events: Events | None = Events(MOST_EVENT_BYTES)

    def take(self, reply: Mapping[str, Any]) -> None:
        """A plain answer, or a chunk of a stream, as `strict_json.from_upstream` read it."""
        self._answer += beginning(_said(reply), "")

    def feed(self, piece: bytes) -> None:
        """A piece of a stream."""
        if self._events is None:
            return
        try:
            for event in self._events.feed(piece):
                self._see(event.data)
                if len(self._answer) > MOST_READ:
                    self._events = None
                    break
        except EventTooLarge:
            self._events = None

    def kept(self) -> dict[str, str]:
        """As a row can hold it. Empty texts are left out."""
        said = {"prompt": self._prompt, "answer": self._answer}
        return {name: self._snippet(text) for name, text in said.items() if text}

    def _see(self, data: bytes) -> None:
        if data.startswith(b"{"):
            with contextlib.suppress(NotJson):
                self.take(strict_json.from_upstream(data))

    def _snippet(self, text: str) -> str:
        shown = self._hide(text[:MOST_READ], self._own_key)
        is_cut = len(text) > MOST_READ
        if is_cut:
            shown = shown[:-OVERHANG]
        if is_cut or len(shown) > MOST_KEPT:
            shown = shown[:MOST_KEPT] + "…"
        return _UNKEEPABLE.sub("\ufffd", shown)


def asked(endpoint: Endpoint, document: Mapping[str, Any]) -> str:
    """The user's last message, or the prompt or input. The document is one that `request_body` has read."""
    form = ENDPOINTS[endpoint]
    given = document.get(form.prompt_of(document))
    if form.one_prompt and not isinstance(given, str):
        items = as_mappings(given)
        given = next((one for one in reversed(items) if one.get("role") == "user"), items[-1] if items else {})
        given = given.get("content")
    return beginning(_texts(given), "\n")


def beginning(texts: Iterable[str], between: str) -> str:
    """As much as is read, and one character more where there is more."""
    taken: list[str] = []
    length = 0
    for text in texts:
        taken.append(text[: MOST_READ + 1])
        length += len(taken[-1]) + len(between)
        if length > MOST_READ:
            break
    return between.join(taken)


def _said(reply: Mapping[str, Any]) -> Iterator[str]:
    """The texts of the first answer, or of a transcript."""
    yield from _texts(reply.get("text"))
    if "type" in reply or reply.get("object") == "response":
        yield from _said_in_parts(reply)
    for choice in as_mappings(reply.get("choices")):
        if choice.get("index", 0) == 0:
            said = as_mapping(choice.get("message")) or as_mapping(choice.get("delta")) or choice
            for name in ("content", "text", "refusal", "images"):
                yield from _texts(said.get(name))
            for call in as_mappings(said.get("tool_calls")):
                yield from _named("calls", as_mapping(call.get("function")).get("name"))


def _said_in_parts(reply: Mapping[str, Any]) -> Iterator[str]:
    """Of Responses and Messages: a plain answer, or an event."""
    match reply.get("type"):
        case "response.output_text.delta":
            yield from _texts(reply.get("delta"))
        case "transcript.text.delta":
            yield from _texts(reply.get("delta"))
        case "content_block_delta":
            yield from _texts(as_mapping(reply.get("delta")).get("text"))
        case "response.output_item.added" | "content_block_start":
            yield from _called(as_mapping(reply.get("item") or reply.get("content_block")))
    for part in as_mappings(reply.get("output")) + as_mappings(reply.get("content")):
        yield from _called(part)
        if part.get("type") in ("message", "text"):
            yield from _texts(part)


def _called(part: Mapping[str, Any]) -> Iterator[str]:
    if part.get("type") in ("function_call", "tool_use"):
        yield from _named("calls", part.get("name"))


def _texts(content: Any) -> Iterator[str]:
    """Its texts. Of other parts, the type in brackets."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict):
        if isinstance(content.get("text"), str):
            yield content["text"]
        elif isinstance(content.get("content"), (str, list)):
            yield from _texts(content["content"])
        else:
            yield from _named("", content.get("type"))
    elif isinstance(content, list):
        if content and isinstance(content[0], int):
            yield f"[{len(content)} tokens]"
        else:
            for one in content:
                yield from _texts(one)


def _named(what: str, name: Any) -> Iterator[str]:
    if isinstance(name, str) and name:
        yield f"[{f'{what} {strict_json.printable(name, LONGEST_KIND)}'.strip()}]"
