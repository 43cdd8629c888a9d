"""Lets web pages of named origins call the API. Operators' paths are never open to other origins."""

from collections.abc import Iterable, Mapping

from starlette.responses import Response
from starlette.types import Scope

from tollgate.core.errors import OriginNotAllowed
from tollgate.web.error_responses import render

Headers = list[tuple[bytes, bytes]]

PATHS = ("/user/", "/v1/", "/api/v1/")
EXPOSED = (
    "age, etag, idempotency-replayed, retry-after, x-generation-id, x-ratelimit-limit-requests, "
    "x-ratelimit-limit-tokens, x-ratelimit-remaining-requests, x-ratelimit-remaining-tokens, "
    "x-ratelimit-reset-requests, x-ratelimit-reset-tokens, x-request-id, x-should-retry, x-tollgate-balance-nanos, "
    "x-tollgate-cache, x-tollgate-charge-nanos, x-tollgate-max-tokens, x-tollgate-request-id"
)
METHODS = "GET, HEAD, POST, PATCH, DELETE"
MAX_AGE_SECONDS = 7200


class Cors:
    """Keys are sent in headers, never in cookies, so credentials are not allowed."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origins)

    def headers(self, scope: Scope, sent: Mapping[str, str]) -> Headers:
        """The headers for any answer to this request."""
        if not self._origins or not scope["path"].startswith(PATHS):
            return []
        origin, varying = sent.get("origin", ""), (b"vary", b"Origin")
        if origin not in self._origins:
            return [varying]
        return [
            varying,
            (b"access-control-allow-origin", origin.encode()),
            (b"access-control-expose-headers", EXPOSED.encode()),
        ]

    def preflight(self, scope: Scope, sent: Mapping[str, str]) -> Response | None:
        """The answer to a browser that asks whether it may send a request; None if this is another request, or one for
        a path that is closed to all origins.

        Any header is allowed: none is trusted because a browser sent it.
        """
        asks = scope["method"] == "OPTIONS" and "access-control-request-method" in sent
        if not asks or not scope["path"].startswith(PATHS):
            return None
        if sent.get("origin") not in self._origins:
            return render(OriginNotAllowed())
        allowed = {
            "access-control-allow-methods": METHODS,
            "access-control-allow-headers": sent.get("access-control-request-headers", ""),
            "access-control-max-age": str(MAX_AGE_SECONDS),
        }
        return Response(status_code=204, headers=allowed)
