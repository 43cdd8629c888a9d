"""Server-sent events: splits a stream into events, and reads what a stream reports about its generation.

Nothing is encoded again. Every byte that goes in comes out in the raw bytes of some event, in order, and where the
input is cut changes neither the events nor what is read of them. Blocks of comments and blank lines are events without
data. The events are those of the standard, with one exception: an unfinished event at the end of the stream counts,
since a usage without its last line end is still a usage.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal, NamedTuple

from tollgate.core import request_body, strict_json
from tollgate.core.fields import as_mapping, as_mappings
from tollgate.core.names import LONGEST_NAME, is_name
from tollgate.core.strict_json import NotJson

MOST_EVENT_BYTES: Final = 32 * 1024 * 1024
"""An event may carry an image. It is buffered until it ends."""
LONGEST_MESSAGE: Final = 1000
CALL_TOKENS: Final = 32
"""Tokens of a tool call that a server does not pass on: its marks, and the frame of its JSON."""
END_TOKENS: Final = 3
"""The same for each answer: its end, and the marks before and after its reasoning."""

Ending = Literal["complete", "failed", "cut"]

_LF: Final = 10
_BOM: Final = b"\xef\xbb\xbf"
_DONE: Final = b"[DONE]"
_LINE_END: Final = rb"(?:\n|\r\n|\r(?=[^\n]))"
"""A CR is a line end of its own when a byte other than LF follows it."""
_LEADING_LINE_END = re.compile(_LINE_END)
_BLANK_LINE = re.compile(_LINE_END + _LINE_END)
_MOST_UNDECIDED: Final = 3
"""The most bytes of a blank line that may have come before its last byte."""
_LINES = re.compile(rb"\r\n|\n|\r")
_NOTEWORTHY = re.compile(rb'"(?:usage|error|finish_reason)"\s*:\s*[^\sn]')
"""A member that is not null. In the model's text the quotes are escaped, so text never matches."""
_COUNTS: Final = ("prompt_tokens", "completion_tokens")
_NOT_SAID: Final = frozenset(("role", "finish_reason", "native_finish_reason", "stop_reason", "logprobs", "id", "type"))
"""Texts in a choice that the server wrote, not the model."""
_WORTH_A_LOOK: Final = (b"\r", b"\n:", _DONE)


class Event(NamedTuple):
    data: bytes
    """Empty for an event without data."""
    raw: bytes
    """All bytes of the event, its blank line included."""


class EventTooLarge(ValueError):
    """The upstream sent an event without an end."""


class Events:
    """Splits a stream into events, each as soon as it is complete."""

    def __init__(self, most_bytes: int = MOST_EVENT_BYTES) -> None:
        self._most_bytes = most_bytes
        self._buffer = bytearray()
        self._start = 0
        self._searched = 0
        self._has_cr = False

    def feed(self, piece: bytes) -> Iterator[Event]:
        """The events that this piece completes. Events that the caller does not take come with the next piece."""
        del self._buffer[: self._start]
        self._searched -= self._start
        self._start = 0
        self._buffer += piece
        self._has_cr = self._has_cr or b"\r" in piece
        return self._complete()

    @property
    def is_between(self) -> bool:
        """Whether the input so far ended with the end of an event."""
        return self._start == len(self._buffer) and not self._has_cr

    def finish(self) -> Iterator[Event]:
        """The rest, when the stream has ended."""
        yield from self._complete()
        rest = bytes(self._buffer[self._start :])
        self._start = self._searched = len(self._buffer)
        if rest:
            yield Event(data_of(rest), rest)

    def _complete(self) -> Iterator[Event]:
        while (end := self._end()) >= 0:
            raw = bytes(self._buffer[self._start : end])
            self._start = self._searched = end
            yield Event(data_of(raw), raw)

    def _end(self) -> int:
        """Where the current event ends; -1 if its end has not come yet."""
        end = self._end_by_any() if self._has_cr else self._end_by_lf()
        if (len(self._buffer) if end < 0 else end) - self._start > self._most_bytes:
            raise EventTooLarge(f"an event of more than {self._most_bytes} bytes")
        return end

    def _end_by_lf(self) -> int:
        """For LF alone: the usual case. No byte is searched twice."""
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
        """For all three line ends of the standard, in any mixture."""
        found = _LEADING_LINE_END.match(self._buffer, self._start) or _BLANK_LINE.search(
            self._buffer, max(self._start, self._searched - _MOST_UNDECIDED)
        )
        self._searched = len(self._buffer)
        return found.end() if found else -1


def data_of(raw: bytes) -> bytes:
    """An event's data lines, joined. The usual event has one line and is not split."""
    lines = raw.rstrip(b"\r\n")
    if lines.startswith(b"data: ") and b"\n" not in lines and b"\r" not in lines:
        return lines[6:]
    fields = _LINES.split(raw.removeprefix(_BOM))
    return b"\n".join(line[5:].removeprefix(b" ") for line in fields if line == b"data" or line.startswith(b"data:"))


def with_data(raw: bytes, data: bytes, new: bytes) -> bytes:
    """The event with other data. Its line ends and its other fields stay as they were."""
    before, found, after = raw.partition(data)
    if found:
        return before + new + after
    return b"".join(b"data: " + line + b"\n" for line in new.split(b"\n")) + b"\n"


class Failure(NamedTuple):
    """An error that an upstream reported. Its code is a status, a word or None."""

    code: int | str | None
    message: str
    type: str | None = None


@dataclass
class Tally:
    """What a stream, or a plain answer, has reported about itself so far. Its texts are safe for logs and rows."""

    noteworthy: ClassVar[re.Pattern[bytes]] = _NOTEWORTHY
    """Finds what must be read of an event."""
    choices: int = 1
    """How many answers the client asked for."""
    generation_id: str | None = None
    model: str | None = None
    """The model that answers, and is billed."""
    usage: Mapping[str, Any] | None = None
    """The last one seen. None is absent, which is not zero."""
    finish_reasons: dict[int, str] = field(default_factory=dict)
    failure: Failure | None = None
    awaits_start: bool = field(default=True, compare=False)
    """Whether the event that names the generation has not come yet."""
    done: bool = False
    unreadable: int = 0
    """Events that had to be read and were not JSON."""
    events: int = 0
    """Events with data, [DONE] apart; 1 for a plain answer."""
    counts: bool = False
    """Whether texts are counted: for a server of our own, which cannot be asked for its usage later."""
    text_tokens: int = 0
    """How many tokens the texts so far may be, see `request_body.most_tokens`. The texts are not kept."""
    images: int = 0
    """Made, where images are what was asked for."""
    prompts: int = 1
    apart: bool = False
    """Each choice of a stream states a usage of its own, and a plain answer states that of the first alone."""
    is_guessed: bool = False
    """A part of the usage is not stated."""
    _stated: list[Mapping[str, Any]] = field(default_factory=list)
    """The usages of the choices, where they come apart."""

    @property
    def said_tokens(self) -> int:
        """At least what the server counts for its texts so far; 0 without texts."""
        return self.text_tokens + END_TOKENS * self.choices if self.text_tokens else 0

    @property
    def ending(self) -> Ending:
        """How the stream ended, if this was all of it. It is complete at [DONE], or when every answer has ended."""
        if self.failure or "error" in self.finish_reasons.values():
            return "failed"
        return "complete" if self.done or len(self.finish_reasons) >= self.choices else "cut"

    def see(self, data: bytes) -> None:
        """Takes an event's data. Only the chunk with the id, and those with more than text, are parsed."""
        if is_done(data):
            self.done = True
            if len(self._stated) == 1:  # then it was that of all
                self.usage = self._stated[0]
            return
        self.events += 1
        if self.counts or (self.awaits_start and b'"id"' in data) or _NOTEWORTHY.search(data):
            try:
                self._take(strict_json.from_upstream(data))
            except NotJson:
                self.unreadable += 1

    def take_plain(self, answer: Mapping[str, Any]) -> None:
        """An answer that is no stream, as `strict_json.from_upstream` read it."""
        self._take(answer)
        if self._stated:
            self._guess(answer)
        self.events = 1
        self.done = True

    def _take(self, document: Mapping[str, Any]) -> None:
        self.generation_id = self.generation_id or _name(document.get("id"))
        self.awaits_start = self.generation_id is None
        self.model = _name(document.get("model")) or self.model
        usage = as_mapping(document.get("usage"))
        if usage and self.apart:
            self._take_apart(usage)
        else:
            self.usage = usage or self.usage
        self._fail(document.get("error"))
        choices = document.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            self._take_choice(as_mapping(choice))
        if self.counts:
            self.text_tokens += most_said(choices)

    def _take_apart(self, usage: Mapping[str, Any]) -> None:
        """The sum, when all choices have ended. A prompt that is answered several times counts once, as the choice that
        read most of it states it."""
        self._stated.append(usage)
        if len(self._stated) == self.choices:
            read, made = (sum(_count(one, name) for one in self._stated) for name in _COUNTS)
            self.usage = _counted(read * self.prompts // self.choices, made, self._cached if self.prompts == 1 else 0)

    @property
    def _cached(self) -> int:
        return min(_count(as_mapping(one.get("prompt_tokens_details")), "cached_tokens") for one in self._stated)

    def _guess(self, answer: Mapping[str, Any]) -> None:
        """The choices after the first have as many tokens as their texts, compared with the first's. What other prompts
        have is not known."""
        said = [most_said(choice) for choice in as_mappings(answer.get("choices"))]
        if self.prompts == 1 and len(said) == self.choices and said[0]:
            read, first = (_count(self._stated[0], name) for name in _COUNTS)
            self.usage = _counted(read, -(-first * sum(said) // said[0]), self._cached)
            self.is_guessed = True

    def _take_choice(self, choice: Mapping[str, Any]) -> None:
        self._fail(choice.get("error"))
        index, reason = choice.get("index", 0), choice.get("finish_reason")
        if isinstance(index, int) and isinstance(reason, str) and reason:
            self.finish_reasons[index] = strict_json.printable(reason, LONGEST_NAME)

    def _fail(self, error: object) -> None:
        """The first failure is kept: it caused those that follow."""
        if error and self.failure is None:
            self.failure = _failure(error)


def _count(usage: Mapping[str, Any], name: str) -> int:
    value = usage.get(name)
    return value if type(value) is int and value > 0 else 0


def _counted(prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> Mapping[str, Any]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }


def quiet(piece: bytes, noteworthy: re.Pattern[bytes] = _NOTEWORTHY) -> int:
    """How many bytes at the beginning are complete events that need not be parsed: no line end but LF, no comment, and
    nothing that a tally takes. The piece must begin where an event begins."""
    if piece.startswith(b":"):
        return 0
    found = noteworthy.search(piece)
    end = found.start() if found else len(piece)
    for mark in _WORTH_A_LOOK:
        place = piece.find(mark, 0, end)
        end = end if place < 0 else place
    last = piece.rfind(b"\n\n", 0, end)
    return 0 if last < 0 else last + 2


def is_done(data: bytes) -> bool:
    return len(data) < 16 and data.strip() == _DONE


def most_said(said: object) -> int:
    """The most tokens that these texts may be: content, reasoning, names and arguments of tool calls."""
    tokens, left = 0, [("", said)]
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
    """Reads the object of OpenRouter and vLLM, or the bare string that some servers send."""
    if not isinstance(error, dict):
        return Failure(None, strict_json.printable(str(error), LONGEST_MESSAGE))
    code = error.get("code")
    kind = as_mapping(error.get("metadata")).get("error_type") or error.get("type")
    return Failure(
        code if isinstance(code, int) and not isinstance(code, bool) else _name(code),
        strict_json.printable(str(error.get("message") or ""), LONGEST_MESSAGE),
        _name(kind),
    )


def _name(given: object) -> str | None:
    """None for a text that is not safe to keep."""
    return given if is_name(given) else None
