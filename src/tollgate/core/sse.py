"""Server-sent events as they pass through: where each ends, and what a stream says of its own generation.

Nothing is encoded again. Every byte that goes in comes out in the raw bytes of some event, in order, and where the
input is cut changes neither the events nor what is read of them. Blocks of comments alone, and blank lines, are events
without data. The events are those of the standard, with one liberty: what an upstream leaves unfinished at the end is
handed out too, for a usage without its last line end is a usage.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from tollgate.core import request_body, strict_json
from tollgate.core.strict_json import NotJson

MOST_EVENT_BYTES: Final = 32 * 1024 * 1024
"""An event may carry a picture; it is kept whole until it ends."""
LONGEST_NAME: Final = 256
LONGEST_MESSAGE: Final = 1000
CALL_TOKENS: Final = 32
"""What a server takes out around a tool call that the model wrote: its marks, and the frame of its JSON."""
END_TOKENS: Final = 3
"""Of each answer, likewise: its end, and the marks before and after its reasoning."""

Ending = Literal["complete", "failed", "cut"]

_LF: Final = 10
_BOM: Final = b"\xef\xbb\xbf"
_DONE: Final = b"[DONE]"
_LINE_END: Final = rb"(?:\n|\r\n|\r(?=[^\n]))"
"""A CR is a line end of its own once another byte than LF is seen behind it."""
_LEADING_LINE_END = re.compile(_LINE_END)
_BLANK_LINE = re.compile(_LINE_END + _LINE_END)
_MOST_UNDECIDED: Final = 3
"""How many of a blank line's bytes may have come before its last."""
_LINES = re.compile(rb"\r\n|\n|\r")
_NOTEWORTHY = re.compile(rb'"(?:usage|error|finish_reason)"\s*:\s*[^\sn]')
"""Anything but null. Inside a string the quotes would be escaped, so what a model says is never taken for it."""
_NOT_SAID: Final = frozenset(("role", "finish_reason", "native_finish_reason", "stop_reason", "logprobs", "id", "type"))
"""Texts in a choice that are the server's, and not the model's."""
_WORTH_A_LOOK: Final = (b"\r", b"\n:", _DONE)


class Event(NamedTuple):
    data: bytes
    """Empty where there is none."""
    raw: bytes
    """All of it, with its blank line."""


class EventTooLarge(ValueError):
    """The upstream sends an event that does not end."""


class Events:
    """Cuts a stream into its events, each as soon as it is whole."""

    def __init__(self, most_bytes: int = MOST_EVENT_BYTES) -> None:
        self._most_bytes = most_bytes
        self._buffer = bytearray()
        self._start = 0
        self._searched = 0
        self._has_cr = False

    def feed(self, piece: bytes) -> Iterator[Event]:
        """The events that this piece completes. Those that are not taken come with the next."""
        del self._buffer[: self._start]
        self._searched -= self._start
        self._start = 0
        self._buffer += piece
        self._has_cr = self._has_cr or b"\r" in piece
        return self._whole()

    @property
    def is_between(self) -> bool:
        """Whether what was fed so far ended with an event."""
        return self._start == len(self._buffer) and not self._has_cr

    def finish(self) -> Iterator[Event]:
        """What is left when the stream has ended."""
        yield from self._whole()
        rest = bytes(self._buffer[self._start :])
        self._start = self._searched = len(self._buffer)
        if rest:
            yield Event(data_of(rest), rest)

    def _whole(self) -> Iterator[Event]:
        while (end := self._end()) >= 0:
            raw = bytes(self._buffer[self._start : end])
            self._start = self._searched = end
            yield Event(data_of(raw), raw)

    def _end(self) -> int:
        """Where the event that starts now ends; -1 when that has not come yet."""
        end = self._end_by_any() if self._has_cr else self._end_by_lf()
        if (len(self._buffer) if end < 0 else end) - self._start > self._most_bytes:
            raise EventTooLarge(f"an event of more than {self._most_bytes} bytes")
        return end

    def _end_by_lf(self) -> int:
        """The ordinary way: the next line end is followed by another. No byte is looked at twice."""
        buffer = self._buffer
        while (found := buffer.find(_LF, self._searched)) >= 0:
            if found == self._start:
                return found + 1
            self._searched = found
            if found + 1 == len(buffer):
                return -1
            if buffer[found + 1] == _LF:
                return found + 2
            self._searched = found + 1
        self._searched = len(buffer)
        return -1

    def _end_by_any(self) -> int:
        """The same for all three line ends of the standard, mixed as they may be."""
        found = _LEADING_LINE_END.match(self._buffer, self._start) or _BLANK_LINE.search(
            self._buffer, max(self._start, self._searched - _MOST_UNDECIDED)
        )
        self._searched = len(self._buffer)
        return found.end() if found else -1


def data_of(raw: bytes) -> bytes:
    """An event's data lines, put together. The usual one has a single line and is not taken apart."""
    lines = raw.rstrip(b"\r\n")
    if lines.startswith(b"data: ") and b"\n" not in lines and b"\r" not in lines:
        return lines[6:]
    fields = _LINES.split(raw.removeprefix(_BOM))
    return b"\n".join(line[5:].removeprefix(b" ") for line in fields if line == b"data" or line.startswith(b"data:"))


class Failure(NamedTuple):
    """What an upstream says went wrong. Its code is a status, a word or nothing."""

    code: int | str | None
    message: str
    type: str | None = None


@dataclass
class Tally:
    """What a stream, or a whole reply, has said of itself so far. All texts in it are fit for a log and a row."""

    choices: int = 1
    """How many answers were asked for."""
    generation_id: str | None = None
    model: str | None = None
    """The one that answers, and is billed."""
    usage: Mapping[str, Any] | None = None
    """The last one seen. None is absent, which is not zero."""
    finish_reasons: dict[int, str] = field(default_factory=dict)
    failure: Failure | None = None
    done: bool = False
    unreadable: int = 0
    """Events that seemed to matter and were not JSON."""
    counts: bool = False
    """Whether the texts are counted: for a server that nobody can ask for its usage later."""
    text_tokens: int = 0
    """How many tokens the texts so far may be, see `chat.most_tokens`. The texts themselves are not kept."""

    @property
    def said_tokens(self) -> int:
        """No fewer than the server counts for what it has said so far; 0 where that is nothing."""
        return self.text_tokens + END_TOKENS * self.choices if self.text_tokens else 0

    @property
    def ending(self) -> Ending:
        """How the stream ended, if this was all of it. Every answer's end is an end, with [DONE] or without."""
        if self.failure or "error" in self.finish_reasons.values():
            return "failed"
        return "complete" if self.done or len(self.finish_reasons) >= self.choices else "cut"

    def see(self, data: bytes) -> None:
        """An event's data. Only what may matter is read: the chunk with the id, and those with more than text."""
        if is_done(data):
            self.done = True
        elif self.counts or (self.generation_id is None and b'"id"' in data) or _NOTEWORTHY.search(data):
            try:
                self._take(strict_json.from_upstream(data))
            except NotJson:
                self.unreadable += 1

    def take_whole(self, reply: Mapping[str, Any]) -> None:
        """A reply that is no stream, as `documents.from_upstream` read it."""
        self._take(reply)
        self.done = True

    def _take(self, document: Mapping[str, Any]) -> None:
        self.generation_id = self.generation_id or _name(document.get("id"))
        self.model = _name(document.get("model")) or self.model
        self.usage = _object(document.get("usage")) or self.usage
        self._fail(document.get("error"))
        choices = document.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            self._take_choice(_object(choice))
        if self.counts:
            self.text_tokens += _most_said(choices)

    def _take_choice(self, choice: Mapping[str, Any]) -> None:
        self._fail(choice.get("error"))
        index, reason = choice.get("index", 0), choice.get("finish_reason")
        if isinstance(index, int) and isinstance(reason, str) and reason:
            self.finish_reasons[index] = strict_json.printable(reason, LONGEST_NAME)

    def _fail(self, error: object) -> None:
        """The first failure is the cause of those that follow."""
        if error and self.failure is None:
            self.failure = _failure(error)


def quiet(piece: bytes) -> int:
    """How many bytes at the beginning are whole events that nobody has to look into: no line end but LF, no comment,
    and of all that a tally takes nothing. Only for a piece that begins where an event begins."""
    if piece.startswith(b":"):
        return 0
    found = _NOTEWORTHY.search(piece)
    end = found.start() if found else len(piece)
    for mark in _WORTH_A_LOOK:
        place = piece.find(mark, 0, end)
        end = end if place < 0 else place
    last = piece.rfind(b"\n\n", 0, end)
    return 0 if last < 0 else last + 2


def is_done(data: bytes) -> bool:
    return len(data) < 16 and data.strip() == _DONE


def _most_said(choices: object) -> int:
    """The most tokens that the texts in these may be: content, reasoning, the names and arguments of calls."""
    tokens, left = 0, [("", choices)]
    while left:
        name, value = left.pop()
        if isinstance(value, dict):
            left += [one for one in value.items() if one[0] not in _NOT_SAID]
        elif isinstance(value, list):
            left += [("", one) for one in value]
        elif isinstance(value, str):
            tokens += request_body.most_tokens(value.encode(errors="surrogatepass"))
            tokens += CALL_TOKENS if name == "name" and value else 0
    return tokens


def _failure(error: object) -> Failure:
    """OpenRouter's and vLLM's object, or the bare string that some servers send."""
    if not isinstance(error, dict):
        return Failure(None, strict_json.printable(str(error), LONGEST_MESSAGE))
    code = error.get("code")
    kind = _object(error.get("metadata")).get("error_type") or error.get("type")
    return Failure(
        code if isinstance(code, int) and not isinstance(code, bool) else _name(code),
        strict_json.printable(str(error.get("message") or ""), LONGEST_MESSAGE),
        _name(kind),
    )


def _name(given: object) -> str | None:
    """What is not fit to be kept is not known."""
    fit = isinstance(given, str) and 0 < len(given) <= LONGEST_NAME and given.isprintable() and " " not in given
    return str(given) if fit else None


def _object(given: object) -> Mapping[str, Any]:
    return given if isinstance(given, dict) else {}
