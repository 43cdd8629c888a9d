"""A streamed answer as events: what is said, token by token, and the faults in between."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Literal, NamedTuple

from tollgate.sandbox.dialects import Dialect, Kind, ending, pieces
from tollgate.sandbox.encoding import encode, encode_with, quoted, utf8
from tollgate.sandbox.faults import Faults
from tollgate.sandbox.generation import Generation
from tollgate.sandbox.output import MEGABYTE
from tollgate.sandbox.parameters import Parameters
from tollgate.sandbox.speech import Said

PROCESSING = b": OPENROUTER PROCESSING\n\n"
DONE = b"data: [DONE]\n\n"
HOLE = "\0"
BREAKS = ("cut", "early-eof", "mid-stream-error", "finish-error", "vllm-error")
PROVIDER_ERROR = {
    "code": 502,
    "message": "Provider disconnected unexpectedly",
    "metadata": {"error_type": "provider_unavailable", "provider_code": "disconnected"},
}
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


@dataclass(frozen=True)
class Script:
    """What is to be streamed."""

    dialect: Dialect
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

    def chunk(self, choices: list[dict[str, Any]], **more: Any) -> str:
        plain = self.dialect.envelope(self.generation, of_chunk=True) | {"choices": choices}
        return f"data: {encode_with(plain, more)}\n\n"


def events(script: Script) -> Iterator[Event]:
    """The whole stream, as far as it goes."""
    faults = script.faults
    broken = faults.any_of(*BREAKS)
    told: Iterable[Event] = _telling(script)
    if broken:
        told = islice(told, faults.after(broken, script.tokens))
    if "stall-after" in faults:
        told = _stalling(told, faults.whole("stall-after"))
    told = chain(_opening(script), told, _breaking(script, broken) if broken else _closing(script))
    return _commented(told, faults.whole("comments")) if "comments" in faults else iter(told)


def gigantic(faults: Faults) -> str:
    """More text than anybody wants."""
    return "x" * int(faults.number("gigantic") * MEGABYTE) if "gigantic" in faults else ""


def _opening(script: Script) -> Iterator[Event]:
    faults = script.faults
    yield Event(PROCESSING)
    first = utf8(script.chunk([{"index": 0, **script.dialect.closing, **ending(None)}]))
    yield Event(first.replace(f'"id":"{script.generation.id}",'.encode(), b"") if "no-id" in faults else first)
    nothing = _Mould(script, 0, "content").cast("")
    if "many" in faults:
        yield from (Event(nothing) for _ in range(faults.whole("many")))
    if "gigantic" in faults:
        yield Event(_Mould(script, 0, "content").cast(gigantic(faults)))
    if "bad-json" in faults:
        yield Event(nothing[: len(nothing) // 2] + b"\n\n")


def _telling(script: Script) -> Iterator[Event]:
    for index in range(script.params.choices):
        yield from _one_choice(script, index)


def _one_choice(script: Script, index: int) -> Iterator[Event]:
    said = script.said
    moulds = {kind: _Mould(script, index, kind) for kind in dict(pieces(said))}
    for kind, token in pieces(said):
        if kind == "arguments":
            break
        yield Event(moulds[kind].cast(token), 1, int(kind == "reasoning"))
    if said.call:
        naming = script.dialect.naming(said.call, f"{script.generation.call_id}-{index}")
        yield Event(utf8(script.chunk([{"index": index, **naming}])), said.call.tokens - len(said.call.arguments))
        yield from (Event(moulds["arguments"].cast(token), 1) for token in said.call.arguments)


def _closing(script: Script) -> Iterator[Event]:
    for index in range(script.params.choices):
        last = {"index": index, **script.dialect.closing, **ending(script.said.finish)}
        yield Event(utf8(script.chunk([last])))
    if script.usage:
        yield Event(utf8(script.chunk([], **script.usage)))
    if "no-done" not in script.faults:
        yield Event(DONE)


def _breaking(script: Script, how: str) -> Iterator[Event]:
    if how == "cut":
        yield Event(b"", act="cut")
    elif how == "vllm-error":
        yield Event(utf8(f"data: {encode(VLLM_ERROR)}\n\n"))
        yield Event(DONE)
    elif how != "early-eof":
        last = {"index": 0, **script.dialect.closing, **ending("error")}
        yield Event(utf8(script.chunk([last], error=PROVIDER_ERROR)))


def _stalling(told: Iterable[Event], after: int) -> Iterator[Event]:
    """Stalls even when there was less to say."""
    rest = iter(told)
    yield from islice(rest, after)
    yield Event(b"", act="stall")
    yield from rest


def _commented(told: Iterable[Event], how_many: int) -> Iterator[Event]:
    for event in told:
        yield event._replace(data=event.data + PROCESSING * how_many) if event.data else event


class _Mould:
    """A chunk with holes where its token goes: encoding each chunk anew would cost ten times as much."""

    def __init__(self, script: Script, index: int, kind: Kind) -> None:
        self._script = script
        self._index = index
        self._kind = kind
        self._around = None if script.params.logprobs is not None else self._whole(HOLE).split(quoted(HOLE))

    def cast(self, token: str) -> bytes:
        return utf8(quoted(token).join(self._around) if self._around else self._whole(token))

    def _whole(self, token: str) -> str:
        piece = self._script.dialect.piece(self._kind, token, self._script.params)
        return self._script.chunk([{"index": self._index, **piece}])
