"""A streamed answer as events: what is said, token by token, and the faults in between."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal, NamedTuple, Protocol

from tollgate.sandbox.dialects import Dialect, Kind, ending, pieces
from tollgate.sandbox.encoding import encode, encode_with, quoted, utf8
from tollgate.sandbox.faults import Faults
from tollgate.sandbox.generation import Generation
from tollgate.sandbox.output import MEGABYTE
from tollgate.sandbox.parameters import Parameters
from tollgate.sandbox.refusals import PROVIDER_ERROR
from tollgate.sandbox.speech import Said

PROCESSING = b": OPENROUTER PROCESSING\n\n"
DONE = b"data: [DONE]\n\n"
HOLE = "\0"
BREAKS = ("cut", "early-eof", "mid-stream-error", "finish-error", "vllm-error")
VLLM_ERROR = {
    "error": {
        "message": "EngineCore encountered an issue. See stack trace (above) for the root cause.",
        "type": "InternalServerError",
        "param": None,
        "code": 500,
    }
}


class Event(NamedTuple):
    data: bytes
    tokens: int = 0
    reasoning: int = 0
    act: Literal["go on", "stall", "cut"] = "go on"


STALL = Event(b"", act="stall")


@dataclass(frozen=True)
class Script:
    """What is to be streamed."""

    generation: Generation
    params: Parameters
    said: Said
    usage: dict[str, Any]
    """As the last chunk carries it: {"usage": …}, or {} to leave the chunk out."""

    @property
    def tokens(self) -> int:
        return self.said.tokens * self.params.choices

    @property
    def faults(self) -> Faults:
        return self.generation.faults


class Stream(Protocol):
    """The events of a script, in order."""

    def opening(self) -> Iterator[Event]: ...

    def telling(self) -> Iterator[Event]: ...

    def closing(self) -> Iterator[Event]: ...

    def failing(self) -> Iterator[Event]: ...


class ChoicesStream:
    """Of chat completions and text completions."""

    def __init__(self, dialect: Dialect, script: Script) -> None:
        self.dialect = dialect
        self.script = script

    def chunk(self, choices: list[dict[str, Any]], **more: Any) -> str:
        plain = self.dialect.envelope(self.script.generation, of_chunk=True) | {"choices": choices}
        return f"data: {encode_with(plain, more)}\n\n"

    def opening(self) -> Iterator[Event]:
        faults = self.script.faults
        yield Event(PROCESSING)
        first = utf8(self.chunk([{"index": 0, **self.dialect.closing, **ending(None)}]))
        named = f'"id":"{self.script.generation.id}",'.encode()
        yield Event(first.replace(named, b"") if "no-id" in faults else first)
        nothing = _Mould(self, 0, "content").cast("")
        if "many" in faults:
            yield from (Event(nothing) for _ in range(faults.whole("many")))
        if "gigantic" in faults:
            yield Event(_Mould(self, 0, "content").cast(gigantic(faults)))
        if "bad-json" in faults:
            yield Event(nothing[: len(nothing) // 2] + b"\n\n")

    def telling(self) -> Iterator[Event]:
        for index in range(self.script.params.choices):
            yield from self._one_choice(index)

    def closing(self) -> Iterator[Event]:
        for index in range(self.script.params.choices):
            last = {"index": index, **self.dialect.closing, **ending(self.script.said.finish)}
            yield Event(utf8(self.chunk([last])))
        if self.script.usage:
            yield Event(utf8(self.chunk([], **self.script.usage)))
        if "no-done" not in self.script.faults:
            yield Event(DONE)

    def failing(self) -> Iterator[Event]:
        last = {"index": 0, **self.dialect.closing, **ending("error")}
        yield Event(utf8(self.chunk([last], error=PROVIDER_ERROR)))

    def _one_choice(self, index: int) -> Iterator[Event]:
        said = self.script.said
        moulds = {kind: _Mould(self, index, kind) for kind in dict(pieces(said))}
        for kind, token in pieces(said):
            if kind == "arguments":
                break
            yield Event(moulds[kind].cast(token), 1, int(kind == "reasoning"))
        if said.call:
            naming = self.dialect.naming(said.call, f"{self.script.generation.call_id}-{index}")
            yield Event(utf8(self.chunk([{"index": index, **naming}])), said.call.tokens - len(said.call.arguments))
            yield from (Event(moulds["arguments"].cast(token), 1) for token in said.call.arguments)


def events(script: Script, stream: Stream) -> Iterator[Event]:
    """The whole stream, as far as it goes."""
    faults = script.faults
    broken = faults.any_of(*BREAKS)
    told: Iterable[Event] = stream.telling()
    if broken:
        told = _first(told, faults.after(broken, script.tokens))
    if "stall-after" in faults:
        told = _stalling(told, faults.whole("stall-after"))
    told = chain(stream.opening(), told, _breaking(stream, broken) if broken else stream.closing())
    return _commented(told, faults.whole("comments")) if "comments" in faults else iter(told)


def gigantic(faults: Faults) -> str:
    """More text than anybody wants."""
    return "x" * int(faults.number("gigantic") * MEGABYTE) if "gigantic" in faults else ""


def _first(told: Iterable[Event], many: int) -> Iterator[Event]:
    """As far as so many events that say something."""
    for event in told:
        many -= event.tokens > 0
        if many < 0:
            return
        yield event


def _breaking(stream: Stream, how: str) -> Iterator[Event]:
    if how == "cut":
        yield Event(b"", act="cut")
    elif how == "vllm-error":
        yield Event(utf8(f"data: {encode(VLLM_ERROR)}\n\n"))
        yield Event(DONE)
    elif how != "early-eof":
        yield from stream.failing()


def _stalling(told: Iterable[Event], after: int) -> Iterator[Event]:
    """Stalls even when there was less to say."""
    if not after:
        yield STALL
    for event in told:
        yield event
        after -= event.tokens > 0
        if event.tokens and after == 0:
            yield STALL
    if after > 0:
        yield STALL


def _commented(told: Iterable[Event], how_many: int) -> Iterator[Event]:
    for event in told:
        yield event._replace(data=event.data + PROCESSING * how_many) if event.data else event


def with_excess(said: Said, faults: Faults) -> Said:
    return replace(said, content=[*said.content, gigantic(faults)]) if "gigantic" in faults else said


class _Mould:
    """A chunk with holes where its token goes: encoding each chunk anew would cost ten times as much."""

    def __init__(self, stream: ChoicesStream, index: int, kind: Kind) -> None:
        self._stream = stream
        self._index = index
        self._kind = kind
        self._around = None if stream.script.params.logprobs is not None else self._whole(HOLE).split(quoted(HOLE))

    def cast(self, token: str) -> bytes:
        return utf8(quoted(token).join(self._around) if self._around else self._whole(token))

    def _whole(self, token: str) -> str:
        piece = self._stream.dialect.piece(self._kind, token, self._stream.script.params)
        return self._stream.chunk([{"index": self._index, **piece}])
