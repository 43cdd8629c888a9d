"""What a request wishes of the completion cache, under which key its answer is stored, and which answers are. Pure."""

import hashlib
import hmac
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from tollgate.core.endpoints import ENDPOINTS, Endpoint
from tollgate.core.errors import BadRequest
from tollgate.core.models import Route
from tollgate.core.request_body import Ask

HEADER: Final = "x-tollgate-cache"
FIELD: Final = "cache"

Outcome = Literal["hit", "miss", "bypass"]

_WORDS: Final[Mapping[str, tuple[bool, bool]]] = {
    "on": (True, True),
    "read": (True, False),
    "write": (False, True),
    "off": (False, False),
}
"""What each word of the header wishes: to read, to write."""
_TTL = re.compile(r"ttl=([0-9]{1,9})")
_ANSWER_HEADERS: Final = ("anthropic-beta", "x-openrouter-metadata", "x-tollgate-usage")
"""Headers of clients that change what the answer says."""
_TOOL_CALL = re.compile(
    rb'"(?:tool_calls|function_call)"\s*:\s*(?:\[\s*[^\s\]]|\{)|"type"\s*:\s*"(?:[a-z_]*tool_use|[a-z_]+_call)"'
)
"""A call of a tool, in an answer of any endpoint. In a text of the model, the quotes are escaped."""
_CUT: Final = frozenset({"length", "max_tokens", "max_output_tokens"})
"""Reasons why an answer ended at its output bound."""


class Bounds(NamedTuple):
    """What the operator's settings allow."""

    ttl_seconds: int
    most_ttl_seconds: int
    most_answer_bytes: int
    most_org_bytes: int
    hit_share_ppm: int
    wait_seconds: float

    @property
    def usual_ttl_seconds(self) -> int:
        """Of an answer whose request names none."""
        return min(self.ttl_seconds, self.most_ttl_seconds)


class Wish(NamedTuple):
    """What a request wishes of the cache."""

    reads: bool
    writes: bool
    ttl_seconds: int
    asked: bool
    """By the request itself. If not, the setting of its key or org decides, which the database knows."""


@dataclass(slots=True, eq=False)
class Use:
    """The cache in one paid call."""

    wish: Wish
    digest: bytes
    """Of the request."""
    bounds: Bounds
    key: str | None = None
    """Under which the answer is stored; None where the cache is bypassed."""
    outcome: Outcome = "bypass"


def in_header(headers: Mapping[str, str], bounds: Bounds) -> Wish | None:
    """The wish in X-Tollgate-Cache, such as `read`, `on, ttl=600` or `off`. A ttl alone means on."""
    value = headers.get(HEADER)
    if value is None:
        return None
    words = [word.strip().lower() for word in value.split(",")]
    named = [word for word in words if word in _WORDS]
    times = [found for word in words if (found := _TTL.fullmatch(word))]
    is_alone = not {"on", "off"} & set(named) or len(named) == 1
    if len(named) + len(times) != len(words) or len(times) > 1 or not is_alone:
        raise BadRequest(
            "X-Tollgate-Cache: send read, write, on or off, and perhaps ttl=SECONDS, separated by commas.",
            param="X-Tollgate-Cache",
        )
    ttl_seconds = int(times[0][1]) if times else bounds.usual_ttl_seconds
    if not 1 <= ttl_seconds <= bounds.most_ttl_seconds:
        raise BadRequest(
            f"X-Tollgate-Cache: send a ttl of 1 to {bounds.most_ttl_seconds} seconds.", param="X-Tollgate-Cache"
        )
    wishes = [_WORDS[word] for word in named or ["on"]]
    return Wish(any(reads for reads, _ in wishes), any(writes for _, writes in wishes), ttl_seconds, asked=True)


def wished(
    document: Mapping[str, Any],
    endpoint: Endpoint,
    in_header: Wish | None,
    by_setting: bool | None,
    bounds: Bounds,
) -> Wish | None:
    """The wish of a request; None where there is none. The header counts before the body, and the body before the
    setting, which is None while it is not known. By the setting, only answers that are meant to be the same each time
    are cached: embeddings, and those at temperature 0."""
    if in_header is not None:
        return in_header
    asked = document.get(FIELD)
    if isinstance(asked, bool):
        return Wish(asked, asked, bounds.usual_ttl_seconds, asked=True)
    if by_setting is False or not (endpoint == "embeddings" or _is_zero(document.get("temperature"))):
        return None
    return Wish(reads=True, writes=True, ttl_seconds=bounds.usual_ttl_seconds, asked=False)


def as_marked(wish: Wish, headers: Mapping[str, str]) -> Wish:
    """The wish within the request's Cache-Control: no-store stores nothing, no-cache reads nothing."""
    marks = {mark.strip().lower() for mark in headers.get("cache-control", "").split(",")}
    return wish._replace(
        reads=wish.reads and "no-cache" not in marks and "no-store" not in marks,
        writes=wish.writes and "no-store" not in marks,
    )


def digest(document: Mapping[str, Any]) -> bytes:
    """Of all members but our own, whatever their order and the blanks between them. Different documents have different
    digests: a number differs from its text, and 1 from 1.0."""
    members = {name: value for name, value in document.items() if name != FIELD or not isinstance(value, bool)}
    return hashlib.sha256(repr(_canonical(members)).encode()).digest()


def key(
    pepper: str, request: bytes, ask: Ask, environment: str, routes: Sequence[Route], headers: Mapping[str, str]
) -> str:
    """Of the request and of what serves it. The org is not in it: entries are stored by org. The pepper keeps those who
    see the key from guessing the prompt."""
    served = [(route.upstream.id, route.upstream.base_url, route.model) for route in routes]
    told = [headers.get(name) for name in _ANSWER_HEADERS]
    return hmac.new(
        pepper.encode(), repr((request, ask.endpoint, environment, served, told)).encode(), hashlib.sha256
    ).hexdigest()


def is_cacheable(ask: Ask) -> bool:
    """Not what is free or priced by units, nor what an upstream looks up or does for the answer: searches, fetches,
    parsed files."""
    form = ENDPOINTS[ask.endpoint]
    return not (form.is_free or form.units or ask.extras.once or ask.extras.looped)


def may_store(body: bytes, finish_reasons: Collection[str], bounds: Bounds, *, is_our_bound: bool) -> bool:
    """Whether a complete answer may be given again. One that calls a tool would have it called again; one that was cut
    at a bound that the client did not choose depends on the balance."""
    if len(body) > bounds.most_answer_bytes or (is_our_bound and _CUT & set(finish_reasons)):
        return False
    return _TOOL_CALL.search(body) is None


def hit_rate(hits: int, misses: int) -> float | None:
    return round(hits / (hits + misses), 4) if hits + misses else None


def _is_zero(value: object) -> bool:
    return value is not None and not isinstance(value, (bool, str, list, dict)) and value == 0


def _canonical(value: Any) -> Any:
    """The value with the members of objects as sorted pairs. Lists stay lists, so that neither is taken for the
    other."""
    if isinstance(value, dict):
        return tuple(sorted((name, _canonical(member)) for name, member in value.items()))
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return value
