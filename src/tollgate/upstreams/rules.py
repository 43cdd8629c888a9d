"""What is forwarded in either direction, and what an upstream's status means. Pure."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from itertools import groupby
from typing import Final, Literal, NamedTuple, Protocol

from pydantic import SecretStr

from tollgate.core import multipart, rendezvous, strict_json
from tollgate.core.endpoints import ENDPOINTS
from tollgate.core.models import OPENROUTER, Dialect, Route
from tollgate.core.multipart import Part
from tollgate.core.names import is_name
from tollgate.core.request_body import Ask

LONGEST_HEADER: Final = 1024
LONGEST_RETRY_SECONDS: Final = 86_400
PATIENCE_SECONDS: Final = 5.0
"""An upstream that asks for a longer wait is not called again for this request."""
FIRST_PAUSE_SECONDS: Final = 0.25

Step = Literal["reply", "refuse", "again", "elsewhere", "stop"]
"""What follows an upstream's status: pass it on, as an answer or as a refusal; call the same upstream again; call the
next one; or stop, because the call may have cost something already."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host. A connection goes to one of them and nowhere else."""

Sent = Callable[[], object]

_EMPTY: Final = (204, 205)
_OUR_TROUBLE: Final = (401, 402)
_SAFE_AGAIN: Final = (429, 503)
_REQUEST_TIMEOUT: Final = 408
_PASSED_DOWN: Final = ("content-type", "retry-after", "x-generation-id")
TEXTS: Final = ("text/plain", "text/vtt", "text/srt", "application/x-subrip", "application/octet-stream")
"""Of transcripts."""
_WHOLE_SECONDS = re.compile(r"\d{1,6}(?:\.\d{1,6})?")


def unheard() -> None:
    """The default of `sent`."""


def unnoted(route: Route | None) -> None:
    """The default of `note_at_work`."""


class AttemptRecord(NamedTuple):
    """How one attempt went, for the operator."""

    upstream: str
    model: str
    """The upstream's name for it."""
    outcome: Literal["answered", "refused", "failed", "skipped"]
    duration_ms: int = 0
    """Until the headers of the answer, or the failure."""
    status: int | None = None
    """The upstream's HTTP status, where it sent one."""
    error_code: str | None = None
    why: str | None = None
    """It names no address, and of what the upstream sent at most a content type."""


def unrecorded(record: AttemptRecord) -> None:
    """The default of `record_attempt`."""


class Kept(Protocol):
    """Bytes that can be read again for each attempt."""

    @property
    def size(self) -> int: ...

    def pieces(self) -> AsyncIterator[bytes]: ...


class Streamed(NamedTuple):
    """A form with a file, as a body that is not in memory."""

    content_type: str
    before: bytes
    file: Kept
    after: bytes

    @property
    def size(self) -> int:
        return len(self.before) + self.file.size + len(self.after)

    async def pieces(self) -> AsyncGenerator[bytes]:
        yield self.before
        async for piece in self.file.pieces():
            yield piece
        yield self.after


Body = bytes | Streamed


class Upload(NamedTuple):
    """A file and the fields that a client sent with it."""

    fields: tuple[tuple[str, bytes], ...]
    part: Part
    """The head of the file."""
    file: Kept
    boundary: str
    """Of the form that we write."""

    def form(self, **changed: bytes | None) -> Streamed:
        """The form for an upstream, with these fields set, or left out."""
        kept = [field for field in self.fields if field[0] not in changed]
        new = [(name, value) for name, value in changed.items() if value is not None]
        before, after = multipart.written([*new, *kept], self.part, self.boundary)
        return Streamed(f"multipart/form-data; boundary={self.boundary}", before, self.file, after)


class UpstreamCall(NamedTuple):
    """What is sent upstream for a paid call, whichever route takes it."""

    ask: Ask
    body: bytes
    """As the client sent it."""
    bound: int | None
    """Output tokens to put into the body; None leaves the body's own."""
    routes: tuple[Route, ...]
    """In order of preference. Weights choose among those of one priority, unless the client named fallbacks, when the
    order is the client's, or the order is decided already."""
    headers: Mapping[str, str]
    """The client's, in lower case. Few of them are forwarded."""
    org_id: str
    """Its share of the connections is bounded, and its failures alone open no breaker."""
    is_ordered: bool = False
    """The order of the routes is decided, and no weight is drawn."""
    openrouter_models: tuple[str, ...] = ()
    """Replaces the client's `models` where OpenRouter does not know all of them."""
    search_off: bool = False
    """Switches off the web search that our account at OpenRouter may have on by default."""
    as_chat: tuple[Ask, bytes] | None = None
    """The same call for chat completions, for servers that lack the endpoint."""
    until: float | None = None
    """When its answer must have ended, by the event loop's clock. None: after the time that each call has."""
    upload: Upload | None = None
    """A call with a file. Its body is empty, unless the client sent JSON."""
    note_at_work: Callable[[Route | None], object] = unnoted
    """Called with the route that has the whole request, and with None when that route failed or refused it."""
    record_attempt: Callable[[AttemptRecord], object] = unrecorded
    """Called after each attempt, and for each route that was skipped."""
    org_keys: Mapping[str, SecretStr] = {}
    """Keys of the org's own, by upstream. There they are used in the place of ours."""


def as_served(call: UpstreamCall, route: Route) -> UpstreamCall:
    """The call as the server of this route gets it."""
    if call.as_chat is None or route.upstream.dialect in ENDPOINTS[call.ask.endpoint].dialects:
        return call
    ask, body = call.as_chat
    return call._replace(ask=ask, body=body)


class Refusal(NamedTuple):
    """An upstream's error, in OpenAI's shape."""

    status: int
    body: bytes
    by_upstream: bool
    """The message is the upstream's own, not one that we put in its place."""
    is_ours: bool = False
    """It is about our account there or about our route, so the client cannot mend it."""


class TransportFailed(Exception):
    """A request got no answer. The text is for operators and names no address."""


class Unreachable(TransportFailed):
    """Nothing was sent."""


class ConnectTimeout(Unreachable):
    """Nothing was sent: the connection was not accepted in time."""


class NoConnection(TransportFailed):
    """Nothing was sent: this process had no free connection. The upstream is not at fault."""


class ConnectionLost(TransportFailed):
    """The request was sent, or may have been, and no answer came."""


class NotHttp(TransportFailed):
    """The answer is not valid HTTP."""


def step_after(status: int, dialect: Dialect) -> Step:
    """A client's mistake is not sent again, and OpenRouter is not called again for what it may have begun."""
    if 200 <= status < 300 and status not in _EMPTY:
        return "reply"
    if is_our_trouble(status, dialect) or status == _REQUEST_TIMEOUT:
        return "elsewhere"
    if status in _SAFE_AGAIN:
        return "again"
    if 400 <= status < 500:
        return "refuse"
    return "elsewhere" if dialect != OPENROUTER or status >= 500 else "stop"


def is_our_trouble(status: int, dialect: Dialect) -> bool:
    """Our key is wrong or our credit is used up. At OpenRouter, 403 is about the client's content instead."""
    return status in _OUR_TROUBLE or (status == 403 and dialect != OPENROUTER)


def is_fault(status: int) -> bool:
    """Whether the status counts against the upstream. One that a client can cause does not."""
    return status >= 500 or not (200 <= status < 300 or 400 <= status < 500)


def is_readable(headers: Mapping[str, str], *, stream: bool, as_bytes: bool = False, as_text: bool = False) -> bool:
    """Whether the headers announce JSON, or events for a stream, or text where it may be one; where bytes are asked
    for, sound alone. Compressed bodies are refused: they may be bombs."""
    if headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
        return False
    if headers.get("content-length") == "0":
        return False
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if as_bytes:
        return kind.startswith("audio/") or kind == "application/octet-stream"
    if as_text and kind in TEXTS:
        return True
    return kind.endswith("json") or (stream and kind == "text/event-stream")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """In seconds. A date is relative to the answer's own Date header, so clocks need not agree."""
    value = headers.get("retry-after", "").strip()
    if _WHOLE_SECONDS.fullmatch(value):
        return min(float(value), LONGEST_RETRY_SECONDS)
    try:
        wait = parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(wait.total_seconds(), 0.0), LONGEST_RETRY_SECONDS)


def pause(turn: int, asked: float | None, chance: float) -> float:
    """Seconds before the next attempt: doubled each time, randomised, and never shorter than the upstream asked."""
    return max(FIRST_PAUSE_SECONDS * 2.0**turn * (0.5 + chance), asked or 0.0)


def ordered(routes: Sequence[Route], randomness: Callable[[], float]) -> tuple[Route, ...]:
    """Drawn by weight among neighbours of the same priority; priorities keep their order."""
    if len(routes) < 2:
        return tuple(routes)
    runs = groupby(routes, key=lambda route: route.priority)
    return tuple(route for _, run in runs for route in _drawn(list(run), randomness))


def ordered_for(routes: Sequence[Route], chooser: str) -> tuple[Route, ...]:
    """As `ordered`, and always in the same order for the same chooser."""
    if len(routes) < 2:
        return tuple(routes)
    runs = groupby(routes, key=lambda route: route.priority)
    return tuple(
        route
        for _, run in runs
        for route in rendezvous.ordered(run, chooser, name=lambda one: one.upstream.id, weight=lambda one: one.weight)
    )


def passed_on(headers: Mapping[str, str], allowed: Sequence[str]) -> dict[str, str]:
    """The allowed headers. A value that is not printable ASCII is left out, since it could inject a header."""
    if headers.keys().isdisjoint(allowed):  # as for most requests
        return {}
    return {name: value for name in allowed if (value := headers.get(name)) and _is_plain(value)}


def passed_down(headers: Mapping[str, str]) -> dict[str, str]:
    """The upstream's headers that the client gets. Cookies, server names, lengths and encodings are not among them."""
    return passed_on(headers, _PASSED_DOWN)


def generation_id(headers: Mapping[str, str], dialect: Dialect) -> str | None:
    """OpenRouter's id of the generation, by which its cost can be looked up."""
    value = headers.get("x-generation-id", "") if dialect == OPENROUTER else ""
    return value if is_name(value) and value.isascii() else None


def fit_secret(secret: str | None) -> str | None:
    """The secret without surrounding blanks; None when no header could carry it."""
    stripped = (secret or "").strip()
    return stripped if stripped and _is_plain(stripped) else None


def has_no_key(variable: str) -> str:
    return f"{variable} is not set: set it in the environment of Tollgate and restart it"


def record_of(body: bytes) -> Mapping[str, object]:
    """OpenRouter's record of a generation. Raises NotJson."""
    record = strict_json.from_upstream(body).get("data")
    if not isinstance(record, dict):
        raise strict_json.NotJson("The body has no data.")
    return record


def _is_plain(value: str) -> bool:
    return len(value) <= LONGEST_HEADER and value.isascii() and value.isprintable()


def _drawn(routes: list[Route], randomness: Callable[[], float]) -> Iterator[Route]:
    """A weighted random order. Weights below 1 count as 1."""
    while len(routes) > 1:
        mark = randomness() * sum(max(route.weight, 1) for route in routes)
        for place, route in enumerate(routes):
            mark -= max(route.weight, 1)
            if mark < 0 or place == len(routes) - 1:
                yield routes.pop(place)
                break
    yield from routes
