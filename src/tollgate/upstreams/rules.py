"""What goes up, what comes down, and what an answer's status means. Pure."""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from itertools import groupby
from typing import Final, Literal, NamedTuple

from tollgate.core import strict_json
from tollgate.core.models import OPENROUTER, Dialect, Route
from tollgate.core.request_body import Ask, Endpoint

PATHS: Final[Mapping[Endpoint, str]] = {
    "chat": "/chat/completions",
    "completions": "/completions",
    "embeddings": "/embeddings",
}
LONGEST_HEADER: Final = 1024
LONGEST_RETRY_SECONDS: Final = 86_400
PATIENCE_SECONDS: Final = 5.0
"""Who asks us to come back later than this is not waited for."""
FIRST_PAUSE_SECONDS: Final = 0.25

Step = Literal["reply", "refuse", "again", "elsewhere", "stop"]
"""What follows a status: pass it on, as an answer or as a refusal; ask the same upstream again; ask the next one; ask
nobody, because it may have been paid for."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host, to connect to one of them and nowhere else."""

Sent = Callable[[], object]

_EMPTY: Final = (204, 205)
_OUR_TROUBLE: Final = (401, 402)
_SAFE_AGAIN: Final = (429, 503)
_SERVER_GAVE_UP: Final = 408
_PASSED_DOWN: Final = ("content-type", "retry-after", "x-generation-id")
_WHOLE_SECONDS = re.compile(r"\d{1,6}(?:\.\d{1,6})?")


def unheard() -> None:
    """Where nobody wants to know that a request is sent."""


def unnoted(route: Route | None) -> None:
    """Nor to whom."""


class Order(NamedTuple):
    """One call, ready to go upstream."""

    ask: Ask
    body: bytes
    """As the client sent it."""
    bound: int | None
    """Output tokens to put into the body; None leaves the body's own."""
    routes: tuple[Route, ...]
    """In order of preference. Among those of one priority the weights choose, unless the client named fallbacks:
    then the order is its own."""
    headers: Mapping[str, str]
    """The client's, in lower case. Few of them go up."""
    org_id: str
    """Who asks: its share of the connections is bounded, and its failures alone open no breaker."""
    sent: Callable[[Route | None], object] = unnoted
    """Told which route has the whole request, and None when that route failed or refused it."""


class Refusal(NamedTuple):
    """An answer that is no reply, in OpenAI's shape."""

    status: int
    body: bytes
    by_upstream: bool
    """Its own words, and not ours for want of any."""


class TransportFailed(Exception):
    """Why a request has no answer. The text is for operators and names no address."""


class Unreachable(TransportFailed):
    """Nothing was sent."""


class ConnectTimeout(Unreachable):
    """Nothing was sent, because nobody took the call in time."""


class NoConnection(TransportFailed):
    """Nothing was sent, because this process had no connection to spare: no fault of the upstream."""


class ConnectionLost(TransportFailed):
    """It was sent, or may have been, and the rest is silence."""


class NotHttp(TransportFailed):
    """What came back is not HTTP that anybody should read."""


def step_after(status: int, dialect: Dialect) -> Step:
    """Nobody is asked twice for what the client did wrong, and OpenRouter never for what may have begun there."""
    if 200 <= status < 300 and status not in _EMPTY:
        return "reply"
    if is_our_trouble(status, dialect) or status == _SERVER_GAVE_UP:
        return "elsewhere"
    if status in _SAFE_AGAIN:
        return "again"
    if 400 <= status < 500:
        return "refuse"
    return "elsewhere" if dialect != OPENROUTER or status >= 500 else "stop"


def is_our_trouble(status: int, dialect: Dialect) -> bool:
    """Our key, or our own credit there. At OpenRouter 403 is the client's: moderation or a guardrail."""
    return status in _OUR_TROUBLE or (status == 403 and dialect != OPENROUTER)


def is_fault(status: int) -> bool:
    """Whether it speaks against the upstream. What a client can cause never does."""
    return status >= 500 or not (200 <= status < 300 or 400 <= status < 500)


def is_readable(headers: Mapping[str, str], *, stream: bool) -> bool:
    """Whether a reply's head announces what was asked for: no page, no packed bytes that could grow without end."""
    if headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
        return False
    if headers.get("content-length") == "0":
        return False
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind.endswith("json") or (stream and kind == "text/event-stream")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds. A date counts from the answer's own date, so that nobody's clock has to be right."""
    value = headers.get("retry-after", "").strip()
    if _WHOLE_SECONDS.fullmatch(value):
        return min(float(value), LONGEST_RETRY_SECONDS)
    try:
        wait = parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(wait.total_seconds(), 0.0), LONGEST_RETRY_SECONDS)


def pause(turn: int, asked: float | None, chance: float) -> float:
    """Before the next attempt: longer each time, never the same for all, never shorter than the upstream asked."""
    return max(FIRST_PAUSE_SECONDS * 2.0**turn * (0.5 + chance), asked or 0.0)


def ordered(routes: Sequence[Route], randomness: Callable[[], float]) -> tuple[Route, ...]:
    """By weight within each run of one priority; the runs stay as they are."""
    if len(routes) < 2:
        return tuple(routes)
    runs = groupby(routes, key=lambda route: route.priority)
    return tuple(route for _, run in runs for route in _drawn(list(run), randomness))


def passed_on(headers: Mapping[str, str], allowed: Sequence[str]) -> dict[str, str]:
    """A value that is not plain printable text could end a line, and is left out."""
    return {name: value for name in allowed if (value := headers.get(name)) and _is_plain(value)}


def passed_down(headers: Mapping[str, str]) -> dict[str, str]:
    """Everything else is the upstream's own: cookies, its server's name, lengths and encodings that no longer hold."""
    return passed_on(headers, _PASSED_DOWN)


def generation_id(headers: Mapping[str, str], dialect: Dialect) -> str | None:
    """What OpenRouter calls this generation, and can be asked for its cost by."""
    value = headers.get("x-generation-id", "") if dialect == OPENROUTER else ""
    fit = 0 < len(value) <= 256 and value.isprintable() and value.isascii() and " " not in value
    return value if fit else None


def fit_secret(secret: str | None) -> str | None:
    """None for what cannot be sent; a line end at its end is a file's."""
    stripped = (secret or "").strip()
    return stripped if stripped and _is_plain(stripped) else None


def record_of(body: bytes) -> Mapping[str, object]:
    """What OpenRouter keeps of a generation. Raises NotJson."""
    record = strict_json.from_upstream(body).get("data")
    if not isinstance(record, dict):
        raise strict_json.NotJson("The body has no data.")
    return record


def _is_plain(value: str) -> bool:
    return len(value) <= LONGEST_HEADER and value.isascii() and value.isprintable()


def _drawn(routes: list[Route], randomness: Callable[[], float]) -> Iterator[Route]:
    """One after the other, each with a chance by its weight. Weights below 1 count as 1."""
    while len(routes) > 1:
        mark = randomness() * sum(max(route.weight, 1) for route in routes)
        for place, route in enumerate(routes):
            mark -= max(route.weight, 1)
            if mark < 0 or place == len(routes) - 1:
                yield routes.pop(place)
                break
    yield from routes
