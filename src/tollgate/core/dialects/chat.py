"""The chat completions side of a translation: messages of a request, and what an answer says.

An answer is a sequence of items (reasoning, text, a refusal, tool calls), of which one is open at a time. Chat servers
may send pieces of several tool calls in turn; the pieces of those that are not open wait until the end. Known faults of
servers are tolerated: both names for reasoning in one chunk, tool calls without an index, ids and names that are
repeated, calls without an id, and arguments that are empty instead of {}.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal, NamedTuple

from tollgate.core.dialects.treatments import malformed
from tollgate.core.errors import UpstreamCut, UpstreamUnavailable
from tollgate.core.fields import as_mapping, as_mappings

Kind = Literal["reasoning", "text", "refusal", "call"]
Object = dict[str, Any]

REASONING_FIELDS: Final = ("reasoning", "reasoning_content")
"""Servers differ in the name. An answer's name is kept in what the client sends back, so that the same server gets its
reasoning under its own name."""
TOKEN_COUNTS: Final = frozenset(
    ("prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details")
)


def text_part(text: str) -> Object:
    return {"type": "text", "text": text}


def image_part(url: str, **detail: Any) -> Object:
    return {"type": "image_url", "image_url": {"url": url, **detail}}


def file_part(name: str | None, data: str) -> Object:
    return {"type": "file", "file": {**given(filename=name), "file_data": data}}


def call(call_id: str, name: str, arguments: str) -> Object:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def function(name: str, description: str | None, parameters: Any, strict: bool | None) -> Object:
    about = given(name=name, description=description, parameters=parameters, strict=strict)
    return {"type": "function", "function": about}


def schema_format(name: str, schema: Any, **more: Any) -> Object:
    return {"type": "json_schema", "json_schema": {"name": name, **given(**more), "schema": schema}}


def streamed(stream: bool | None) -> Object:
    """A stream always reports its usage."""
    return {"stream": True, "stream_options": {"include_usage": True}} if stream else {}


def given(**members: Any) -> Object:
    return {name: value for name, value in members.items() if value is not None}


def text_of(value: object, param: str) -> str:
    if not isinstance(value, str):
        malformed(param, "text")
    return value


def json_text(value: Any) -> str:
    return json.dumps(value, default=float, ensure_ascii=False, separators=(",", ":"))


def turns(messages: Iterable[Object], merged: Iterable[str]) -> list[Object]:
    """Messages whose contents are lists of parts, as a server gets them: neighbours of these roles are one message."""
    together: list[Object] = []
    for message in messages:
        if together and message["role"] == together[-1]["role"] and message["role"] in merged:
            together[-1] = _one(together[-1], message)
        else:
            together.append(message)
    return [{**message, "content": _content(message)} for message in together]


def _one(first: Object, second: Object) -> Object:
    both = first.keys() & second.keys() - {"role"}
    return {**first, **second, **{name: first[name] + second[name] for name in both}}


def _content(message: Object) -> Any:
    """One text is a string, which every server reads; nothing beside tool calls is null."""
    parts = message["content"]
    if len(parts) == 1 and parts[0]["type"] == "text":
        return parts[0]["text"]
    return parts or (None if "tool_calls" in message else "")


class Usage(NamedTuple):
    """Tokens, in buckets that do not overlap."""

    uncached: int
    cache_read: int
    cache_write: int
    output: int
    reasoning: int
    """Of the output."""
    beside: Mapping[str, Any]
    """What else the usage states, such as a cost."""

    @property
    def input(self) -> int:
        return self.uncached + self.cache_read + self.cache_write


def usage(reported: Mapping[str, Any]) -> Usage:
    """In a chat usage, cached tokens are a part of the prompt's."""
    details = as_mapping(reported.get("prompt_tokens_details"))
    prompt, output = _count(reported, "prompt_tokens"), _count(reported, "completion_tokens")
    read = min(_count(details, "cached_tokens"), prompt)
    write = min(_count(details, "cache_write_tokens"), prompt - read)
    reasoning = _count(as_mapping(reported.get("completion_tokens_details")), "reasoning_tokens")
    beside = {name: value for name, value in reported.items() if name not in TOKEN_COUNTS}
    return Usage(prompt - read - write, read, write, output, min(reasoning, output), beside)


def _count(reported: Mapping[str, Any], name: str) -> int:
    value = reported.get(name)
    return max(value, 0) if isinstance(value, int) else 0


class Piece(NamedTuple):
    """Of what the model says."""

    kind: Kind
    text: str
    """For a tool call: of its arguments."""
    source: str = ""
    """For reasoning: the field that it came in."""
    place: int = 0
    """The server's number of a tool call."""
    call_id: str = ""
    name: str = ""


def pieces(delta: Mapping[str, Any]) -> Iterator[Piece]:
    """What a delta, or a whole message, says."""
    source = next((name for name in REASONING_FIELDS if _text(delta, name)), None)
    if source:
        yield Piece("reasoning", _text(delta, source), source)
    yield from _contents(delta.get("content"))
    if refusal := _text(delta, "refusal"):
        yield Piece("refusal", refusal)
    for position, part in enumerate(as_mappings(delta.get("tool_calls"))):
        yield _call_piece(part, position)


def _contents(value: object) -> Iterator[Piece]:
    """Mistral's servers send lists of parts when a model thinks."""
    parts = as_mappings(value) if isinstance(value, list) else [{"type": "text", "text": value}]
    for part in parts:
        if text := _text(part, "text"):
            yield Piece("text", text)
        for thought in as_mappings(part.get("thinking")):
            yield Piece("reasoning", _text(thought, "text"), REASONING_FIELDS[0])


def _call_piece(part: Mapping[str, Any], position: int) -> Piece:
    about, index = as_mapping(part.get("function")), part.get("index")
    arguments = about.get("arguments")
    return Piece(
        "call",
        json_text(arguments) if isinstance(arguments, dict) else _text(about, "arguments"),
        place=index if isinstance(index, int) else position,
        call_id=_text(part, "id"),
        name=_text(about, "name"),
    )


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name)
    return value if isinstance(value, str) else ""


@dataclass
class Item:
    """One thing that the model says: a block in Messages, an item in Responses."""

    kind: Kind
    index: int
    source: str = ""
    call_id: str = ""
    name: str = ""
    texts: list[str] = field(default_factory=list)
    is_whole: bool = True
    """False if the answer ended within it."""

    @property
    def text(self) -> str:
        return "".join(self.texts)


class Step(NamedTuple):
    """A change of an item: it opens, gets more text, or closes."""

    change: Literal["opened", "added", "closed"]
    item: Item
    text: str = ""


class Items:
    """Puts the pieces of an answer in order, with one item open at a time."""

    def __init__(self) -> None:
        self.all: list[Item] = []
        self.open: Item | None = None
        self._key: object = None
        self._waiting: list[tuple[object, Piece]] = []
        self._calls: dict[int, tuple[int, str]] = {}
        self._opened_calls: set[object] = set()
        self._counted = 0

    def take(self, piece: Piece) -> Iterator[Step]:
        key = self._key_of(piece)
        if key != self._key and key in self._opened_calls:
            return  # its arguments were whole, so this repeats them
        if key != self._key and (self._waiting or self._is_within_a_call()):
            self._waiting.append((key, piece))
        else:
            yield from self._add(key, piece)

    def end(self, *, is_whole: bool) -> Iterator[Step]:
        """What waited, and the end of the last item."""
        for key in dict.fromkeys(key for key, _ in self._waiting):
            for one, piece in self._waiting:
                if one == key:
                    yield from self._add(key, piece)
        if self.open:
            self.open.is_whole = is_whole
        yield from self._close()

    def _add(self, key: object, piece: Piece) -> Iterator[Step]:
        if key != self._key:
            yield from self._close()
            self._key, self.open = key, self._new(piece)
            yield Step("opened", self.open)
        if self.open and piece.text:
            self.open.texts.append(piece.text)
            yield Step("added", self.open, piece.text)

    def _new(self, piece: Piece) -> Item:
        item = Item(piece.kind, len(self.all), piece.source, piece.call_id, piece.name)
        self.all.append(item)
        if piece.kind == "call":
            self._opened_calls.add(self._key)
        return item

    def _close(self) -> Iterator[Step]:
        item, self.open = self.open, None
        if item is None:
            return
        if item.kind == "call" and item.is_whole and not item.texts:
            item.texts.append("{}")
            yield Step("added", item, "{}")
        yield Step("closed", item)

    def _key_of(self, piece: Piece) -> object:
        """A new id at a known index is a new call: some servers number every call 0."""
        if piece.kind != "call":
            return piece.kind
        number, known = self._calls.get(piece.place, (None, ""))
        if number is None or (piece.name and piece.call_id and piece.call_id != known):
            number, self._counted = self._counted, self._counted + 1
            self._calls[piece.place] = (number, piece.call_id)
        return number

    def _is_within_a_call(self) -> bool:
        return self.open is not None and self.open.kind == "call" and parsed(self.open.text) is None


def parsed(arguments: str) -> Object | None:
    """The object that these arguments are; None if they are not whole."""
    if not arguments.rstrip().endswith("}"):
        return None
    try:
        value = json.loads(arguments)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


@dataclass
class Facts:
    """What an answer states about itself."""

    id: str = ""
    model: str = ""
    created: int = 0
    usage: Mapping[str, Any] = field(default_factory=dict)
    finish_reason: str | None = None
    stopped_by: str | None = None
    """The stop sequence, at servers that name it."""

    def see(self, chunk: Mapping[str, Any], choice: Mapping[str, Any]) -> None:
        self.id = self.id or _text(chunk, "id")
        self.model = self.model or _text(chunk, "model")
        self.created = self.created or _count(chunk, "created")
        self.usage = as_mapping(chunk.get("usage")) or self.usage
        self.finish_reason = _text(choice, "finish_reason") or self.finish_reason
        self.stopped_by = _text(choice, "stop_reason") or self.stopped_by


class ChatEvents(ABC):
    """Turns the chunks of a chat stream into events. A dialect says which events begin, change and end an answer."""

    CUT_BY: ClassVar[frozenset[str]] = frozenset(("length", "content_filter"))
    """The finish reasons that end an answer within an item."""

    def __init__(self, asked: Mapping[str, Any]) -> None:
        self.asked = asked
        self.facts = Facts()
        self.items = Items()
        self._has_begun = self._is_over = False

    def feed(self, chunk: Mapping[str, Any]) -> list[Object]:
        if self._is_over:
            return []
        if error := chunk.get("error"):
            return self.fail(as_mapping(error) or {"message": str(error)})
        choices = as_mappings(chunk.get("choices"))
        choice = next((one for one in choices if one.get("index", 0) == 0), {})
        self.facts.see(chunk, choice)
        begun = self._begin() if choices or self.facts.usage else []
        said = pieces(as_mapping(choice.get("delta")))
        return begun + [event for piece in said for step in self.items.take(piece) for event in self._changed(step)]

    def finish(self, now: int) -> list[Object]:
        if self._is_over:
            return []
        if self.facts.finish_reason is None:
            return self.fail(UpstreamCut().body()["error"])
        if self.facts.finish_reason == "error":
            return self.fail(UpstreamUnavailable().body()["error"])
        self._is_over = True
        steps = self.items.end(is_whole=self.facts.finish_reason not in self.CUT_BY)
        changes = [event for step in steps for event in self._changed(step)]
        return self._begin() + changes + self.ended(now)

    def fail(self, error: Mapping[str, Any], status: int = 502) -> list[Object]:
        if self._is_over:
            return []
        self._is_over = True
        if self.items.open:
            self.items.open.is_whole = False
        return self._begin() + self.failed({"message": "The upstream failed.", **error}, status)

    @property
    def model(self) -> str:
        """The model that answers, where the server names it."""
        return self.facts.model or _text(self.asked, "model")

    def _begin(self) -> list[Object]:
        if self._has_begun:
            return []
        self._has_begun = True
        return self.began()

    def _changed(self, step: Step) -> list[Object]:
        if step.change == "opened":
            return self.opened(step.item)
        if step.change == "closed":
            return self.closed(step.item)
        added = self.added(step.item, step.text)
        return [] if added is None else [added]

    @abstractmethod
    def began(self) -> list[Object]: ...

    @abstractmethod
    def opened(self, item: Item) -> list[Object]: ...

    @abstractmethod
    def added(self, item: Item, text: str) -> Object | None:
        """None where the dialect does not show items of this kind."""

    @abstractmethod
    def closed(self, item: Item) -> list[Object]: ...

    @abstractmethod
    def ended(self, now: int) -> list[Object]: ...

    @abstractmethod
    def failed(self, error: Mapping[str, Any], status: int) -> list[Object]: ...


def as_chunk(answer: Mapping[str, Any]) -> Object:
    """A plain answer as the one chunk of a stream."""
    choices = as_mappings(answer.get("choices"))
    return {
        **answer,
        "choices": [
            {**one, "delta": one.get("message"), "finish_reason": one.get("finish_reason") or "stop"} for one in choices
        ],
    }
