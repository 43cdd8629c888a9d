"""The outermost middleware: request ids, the limit of a body's size, response headers, the log line of a request, and
unexpected errors.

It is one plain ASGI middleware, since each BaseHTTPMiddleware would cost more than a database call.
"""

import os
import re
import time
from collections.abc import Mapping
from typing import Any, Protocol

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tollgate.core.errors import InternalError
from tollgate.process import logs
from tollgate.process.clock import Monotonic
from tollgate.web.client_address import announced_bytes, headers_of
from tollgate.web.cors import Cors
from tollgate.web.error_responses import render
from tollgate.web.request_counts import RequestCounts

log = logs.source("application")

SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
CLIENT_GONE = 499
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
ADDED = {b"vary"}
"""Sent even if the answer has such a header already."""
OVER_TLS_ONLY = {"strict-transport-security": "max-age=31536000"}


class Observer(Protocol):
    """Is told of every request, with the facts of its log line and what is known of its caller."""

    def begins(self) -> None: ...

    def ended(self, method: str, path: str | None, facts: Mapping[str, Any], caller: Mapping[str, Any]) -> None: ...


class RequestMiddleware:
    def __init__(
        self,
        app: ASGIApp,
        *,
        production: bool,
        max_body_bytes: int,
        clock: Monotonic,
        observer: Observer | None = None,
        counts: RequestCounts | None = None,
        cors: Cors | None = None,
        larger_bodies: Mapping[str, int] = {},
    ) -> None:
        """`larger_bodies` has the most bytes by the beginning of the path, where that is more than `max_body_bytes`."""
        self._app = app
        self._cors = cors or Cors(())
        self._counts = counts or RequestCounts()
        self._observer = observer
        headers = SECURITY_HEADERS | (OVER_TLS_ONLY if production else {})
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._max_body_bytes = max_body_bytes
        self._larger_bodies = {start: max(most, max_body_bytes) for start, most in larger_bodies.items()}
        self._larger_starts = tuple(self._larger_bodies)
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        scope["state"] = {**scope.get("state", {}), "own_id": new_id()}  # requests share the server's state
        sent = headers_of(scope)
        request_id = scope["state"]["request_id"] = _request_id(sent, scope["state"]["own_id"])
        logs.begin(request_id=request_id)
        method, served = scope["method"], _as_get(scope)
        headers = [
            *self._headers,
            *self._cors.headers(scope, sent),
            (b"x-request-id", request_id.encode()),
        ]
        response = _Response(send, headers, bare=method == "HEAD")
        started = self._clock()
        if self._observer:
            self._observer.begins()
        try:
            await self._respond(served, sent, receive, response)
        finally:
            route = route_of(served)
            seconds = self._clock() - started
            log.info(
                "request", method=method, route=route, status=response.status, duration_ms=round(seconds * 1000, 1)
            )
            facts = logs.noted()
            self._counts.count(method, route, response.status, seconds, facts)
            if self._observer:
                self._observer.ended(method, route, facts, scope["state"].get("claims", {}))

    async def _respond(self, scope: Scope, sent: Mapping[str, str], receive: Receive, response: "_Response") -> None:
        body = _Body(receive, self._most_bytes(scope["path"]), announced_bytes(sent))
        try:
            await (self._cors.preflight(scope, sent) or self._app)(scope, body.receive, response.send)
        except Exception:  # the last handler: logs the cause, and answers in our shape
            log.exception("unexpected_error")
            if response.status != CLIENT_GONE:
                raise  # the response has begun: only the server can abort it
            await render(InternalError())(scope, receive, response.send)

    def _most_bytes(self, path: str) -> int:
        if not path.startswith(self._larger_starts):  # as most do
            return self._max_body_bytes
        return next(most for start, most in self._larger_bodies.items() if path.startswith(start))


class _Response:
    """Adds our headers, and remembers the status, which is 499 until the response starts. A bare one has no body."""

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]], *, bare: bool) -> None:
        self._send = send
        self._bare = bare
        self._headers = headers
        self.status = CLIENT_GONE

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = message.get("headers", [])
            message["headers"] = [*given, *self._absent_in(dict(given))]  # ASGI has all names in lower case
        elif self._bare:
            message = {**message, "body": b""}
        await self._send(message)

    def _absent_in(self, given: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        if given.keys().isdisjoint(dict(self._headers)):  # as in most answers
            return self._headers
        return [one for one in self._headers if one[0] not in given or one[0] in ADDED]


class _Body:
    """Refuses a body that is too large when it is first read: until then the key may be refused.

    Counts its bytes too, since Content-Length may be wrong or absent.
    """

    def __init__(self, receive: Receive, max_bytes: int, announced_bytes: int) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._announced_bytes = announced_bytes
        self._seen = 0

    async def receive(self) -> Message:
        self._refuse_more_than_allowed(self._announced_bytes)
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        self._refuse_more_than_allowed(self._seen)
        return message

    def _refuse_more_than_allowed(self, size: int) -> None:
        if size > self._max_bytes:
            # FastAPI turns other exceptions into 400 while it reads a body.
            raise HTTPException(413, str(self._max_bytes), {"connection": "close"})


def _as_get(scope: Scope) -> Scope:
    """HEAD is answered as GET, whose body is then left out."""
    return {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope


def route_of(scope: Scope) -> str | None:
    """The path template of the route. For an included router, FastAPI has the complete one in a context of its own."""
    route = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route") or scope.get("endpoint")
    return getattr(route, "path", None)


def _request_id(headers: Mapping[str, str], own_id: str) -> str:
    """The client's id if it is well-formed. Only ours is unique."""
    claimed = headers.get("x-request-id", "")
    return claimed if SANE_ID.fullmatch(claimed) else own_id


def new_id() -> str:
    """Of a request. Begins with the time, like the ids that the database makes, so that indexes grow at the end."""
    return f"req_{time.time_ns() // 1_000_000:012x}{os.urandom(8).hex()}"
